"""`jaxgain train`: train a grid of networks for a few steps, print its table, write its dataset and figure."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxgain.cli.arguments import parse, refusing
from jaxgain.cli.sweep import prepare_jax, progress_bar
from jaxgain.runs.files import is_ours, output_folder, save_dataset, save_figure
from jaxgain.training.config import TrainConfig

ABOUT = """Train networks for a few steps on real data, over initializations, depths, learning rates and seeds: which
of them learn, and is it those that the theory names? Prints a table, and writes the dataset train.nc and the figure
train.png. With no option: tanh networks of up to 100 layers on handwritten digits, in about a minute. The data need
pip install 'jaxgain[data]'."""


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Settings of training runs, and where their results go."""

    out: Path = Path("jaxgain-train")
    """Folder for train.nc and train.png, made where missing. Training runs that are there are replaced."""


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    arguments = parse(Train, words, command="train", about=ABOUT)
    with refusing():
        folder = output_folder(arguments.out)
        replaced = is_ours(folder / "train.nc", "train_config_hash", "a training")
    prepare_jax()
    from matplotlib.figure import Figure

    from jaxgain.cli.tables import console
    from jaxgain.cli.train_table import train_tables
    from jaxgain.figures.training import draw_training
    from jaxgain.training.train import train

    fields = dataclasses.fields(TrainConfig)
    config = TrainConfig(**{field.name: getattr(arguments, field.name) for field in fields})
    with refusing(), progress_bar() as progress:
        dataset = train(config, progress=progress)
    save_dataset(dataset, folder / "train.nc")
    figure = Figure()
    draw_training(figure, dataset)
    save_figure(figure, folder / "train.png")
    out = console()
    for part in train_tables(dataset):
        out.print(part)
    compiling, running = (dataset.attrs[f"{what}_seconds"] for what in ("compile", "run"))
    out.print(f"Compiled in {compiling:.1f} s, ran in {running:.1f} s.", highlight=False)
    out.print(f"Dataset: {folder / 'train.nc'}{' (replaced)' if replaced else ''}", highlight=False, soft_wrap=True)
    out.print(f"Figure:  {folder / 'train.png'}", highlight=False, soft_wrap=True)
