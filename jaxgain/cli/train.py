"""`jaxgain train`: train a grid of networks for a few steps, print its table, write its dataset and figure."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jaxgain.cli.arguments import parse, part_of, refusing
from jaxgain.cli.results import Results, results_in
from jaxgain.cli.running import prepare_jax, progress_bar
from jaxgain.cli.stopping import checked, kept, resumable, say, stoppable
from jaxgain.runs.files import save_figure
from jaxgain.training.config import TrainConfig

ABOUT = """Train networks for a few steps on real data, over initializations, depths, learning rates and seeds: which
of them learn, and is it those that the theory names? Prints a table, and writes the dataset train.nc and the figure
train.png. With no option: tanh networks of up to 100 layers on handwritten digits, in about a minute. The data need
pip install 'jaxgain[data]'."""


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Settings of training runs, and where their results go."""

    out: Path = Path("jaxgain-train")
    """Folder for train.nc and train.png, made where missing. The same command goes on where it was stopped, and shows
    training runs that are complete."""

    overwrite: bool = False
    """Train anew in place of the runs that are in the folder, also where those have other settings."""


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    arguments = parse(Train, words, command="train", about=ABOUT)
    results = results_in(arguments.out, "train", overwrite=arguments.overwrite)
    with resumable(partial(kept, arguments.out, "train")):
        _train(arguments, results)


def _train(arguments: Train, results: Results) -> None:
    prepare_jax()
    from matplotlib.figure import Figure

    from jaxgain.cli.tables import console
    from jaxgain.cli.train_table import train_tables
    from jaxgain.figures.training import draw_training
    from jaxgain.training.train import train

    config = part_of(TrainConfig, arguments)
    work = partial(train, config, folder=arguments.out, overwrite=arguments.overwrite, report=say)
    with refusing(), progress_bar() as bar:
        dataset = stoppable(lambda check: work(progress=checked(bar, check)))
    figure = Figure()
    draw_training(figure, dataset)
    save_figure(figure, results.figure)
    out = console()
    for part in train_tables(dataset):
        out.print(part)
    compiling, running = (dataset.attrs[f"{what}_seconds"] for what in ("compile", "run"))
    out.print(f"Compiled in {compiling:.1f} s, ran in {running:.1f} s.", highlight=False)
    results.say(out)
