"""How deep can a plain network be and still train? The theory says 6 ξ_c.

Claim (Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, Deep information propagation, 2017): a tanh network trains up to
a few of the depths ξ_c over which the correlation of two inputs settles, 6 ξ_c in their figures; deepest at the edge of
chaos, where ξ_c is infinite. Judged by the area under training accuracy over the logarithm of the depth, for each
σ_w: its rank correlation with 6 ξ_c is above 0.8, and the σ_w with the deepest network that learns is the critical one
or next to it.

    python -m experiments.trainable_depth

prints the table and the verdict, and writes trainable_depth.nc and trainable_depth.png, in about ten minutes.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.cli.sweep import prepare_jax, progress_bar
from jaxgain.cli.tables import console
from jaxgain.cli.train_table import train_tables
from jaxgain.figures.training import draw_training
from jaxgain.runs.files import output_folder, save_dataset, save_figure

LEARNED = 0.5  # accuracy from which a network has learned something; guessing is 0.1


@dataclasses.dataclass(frozen=True)
class TrainableDepthConfig:
    """Sizes of the grid; the claim is about the defaults."""

    sigma_w: str = "0.9:2:12"
    """σ_w of every layer, start:stop:count."""
    depths: tuple[int, ...] = (2, 4, 8, 12, 18, 28, 42, 64)
    """Hidden layers."""
    sigma_b: float = 0.05**0.5
    """Standard deviation of the biases."""
    width: int = 128
    """Neurons per layer."""
    learning_rate: float = 0.003
    """Of plain SGD."""
    steps: int = 1000
    """Steps of SGD."""
    seeds: int = 3
    """Networks per σ_w and depth."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


SMOKE = TrainableDepthConfig(sigma_w="1:2:3", depths=(2, 4), width=16, steps=100, seeds=2)


def run(config: TrainableDepthConfig) -> xarray.Dataset:
    """Train every network of the grid."""
    grid = {"inits": config.sigma_w, "depths": config.depths, "widths": config.width, "seeds": config.seeds}
    how = {"optimizer": "sgd", "learning_rates": config.learning_rate, "steps": config.steps, "gradient_every": 50}
    with progress_bar() as progress:
        return jg.train(jg.TrainConfig(**grid, **how, sigma_b=config.sigma_b, measure_every=100), progress=progress)


def judge(dataset: xarray.Dataset) -> dict[str, float]:
    """The rank correlation of area and 6 ξ_c, and how many columns the deepest one is from the critical one."""
    one = dataset.sel(activation="tanh").squeeze(["width", "learning_rate"], drop=True)
    accuracy = one["train_accuracy"].mean("seed").transpose("init", "depth")
    area = np.trapezoid(accuracy.values, np.log(accuracy["depth"].values), axis=1)
    reach = np.abs(one["xi_c"].values)
    rank = lambda values: np.argsort(np.argsort(values))
    learned = np.where(accuracy.values >= LEARNED, accuracy["depth"].values, 0).max(axis=1)
    # Of columns that are equally deep the one with the larger area.
    deepest = int(np.lexsort((area, learned))[-1])
    return {
        "rank_correlation": float(np.corrcoef(rank(area), rank(reach))[0, 1]),
        "columns_apart": float(abs(deepest - int(np.argmax(reach)))),
        "deepest_sigma_w": float(one["sigma_w"].values[deepest]),
        "critical_sigma_w": jg.edge_of_chaos("tanh", sigma_b=float(one["sigma_b"].values[0])).init.sigma_w,
        "deepest": float(learned.max()),
    }


def main(default: TrainableDepthConfig = TrainableDepthConfig(), words: list[str] | None = None) -> dict[str, float]:
    """Run, judge and draw."""
    config = tyro.cli(TrainableDepthConfig, default=default, args=words, prog="python -m experiments.trainable_depth")
    folder = output_folder(config.out)
    prepare_jax()
    dataset = run(config)
    save_dataset(dataset, folder / "trainable_depth.nc")
    figure = Figure()
    draw_training(figure, dataset, accuracy="train_accuracy")
    save_figure(figure, folder / "trainable_depth.png")
    for part in train_tables(dataset):
        console().print(part)
    found = judge(dataset)
    holds = found["rank_correlation"] > 0.8 and found["columns_apart"] <= 1
    print(
        f"Rank correlation of the area with 6 ξ_c: {found['rank_correlation']:.3f}. Deepest that learned: "
        f"{found['deepest']:.0f} layers at σ_w = {found['deepest_sigma_w']:.3g}, {found['columns_apart']:.0f} columns "
        f"from the largest ξ_c; the edge of chaos is at σ_w = {found['critical_sigma_w']:.4f}.\n"
        f"The claim {'holds' if holds else 'FAILS'}, over {config.seeds} seeds."
    )
    return found


if __name__ == "__main__":
    main()
