"""How deep can a plain network be and still train? The theory says 6 ξ_c.

Claim (Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, Deep information propagation, 2017): a tanh network trains up to
a few of the depths ξ_c over which the correlation of two inputs settles, 6 ξ_c in their figures; deepest at the edge of
chaos, where ξ_c is infinite. Judged by the area under training accuracy over the logarithm of the depth, for each
σ_w: its rank correlation with 6 ξ_c is above 0.8, and the σ_w with the deepest network that learns is the critical one
or next to it.

    python -m experiments.trainable_depth

prints the verdict and writes trainable_depth.nc and trainable_depth.png, in about twenty minutes.

With the defaults the rank correlation is 0.993, and 0.909 with test accuracy. At 116 layers, of the twelve columns,
only σ_w = 1.3 (training accuracy 0.96 ± 0.01) and 1.4 (0.70 ± 0.12) learn; the edge of chaos is at 1.327.
"""

import dataclasses
from pathlib import Path

import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, progress_bar, verdict_of

LEARNED = 0.5  # accuracy from which a network has learned something; guessing is 0.1


@dataclasses.dataclass(frozen=True)
class TrainableDepthConfig:
    """Sizes of the grid; the claim is about the defaults."""

    sigma_w: str = "0.9:2:12"
    """σ_w of every layer, start:stop:count."""
    depths: tuple[int, ...] = (2, 4, 8, 14, 24, 42, 70, 116)
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


FULL = TrainableDepthConfig()
SMOKE = TrainableDepthConfig(sigma_w="1:2:3", depths=(2, 4), width=16, steps=100, seeds=2)


def run(config: TrainableDepthConfig) -> dict[str, xarray.Dataset]:
    """Train every network of the grid."""
    grid = {"inits": config.sigma_w, "depths": config.depths, "widths": config.width, "seeds": config.seeds}
    how = {"optimizer": "sgd", "learning_rates": config.learning_rate, "steps": config.steps, "gradient_every": 50}
    with progress_bar() as progress:
        settings = jg.TrainConfig(**grid, **how, sigma_b=config.sigma_b, measure_every=100)
        return {"trained": jg.train(settings, progress=progress)}


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """By the rank correlation of area and 6 ξ_c, and by how far the deepest column is from the critical one."""
    one = found["trained"].sel(activation="tanh").squeeze(["width", "learning_rate"], drop=True)
    accuracy = one["train_accuracy"].mean("seed").transpose("init", "depth")
    area = np.trapezoid(accuracy.values, np.log(accuracy["depth"].values), axis=1)
    reach, sigma_w = np.abs(one["xi_c"].values), one["sigma_w"].values
    rank = lambda values: np.argsort(np.argsort(values))
    together = float(np.corrcoef(rank(area), rank(reach))[0, 1])
    learned = np.where(accuracy.values >= LEARNED, accuracy["depth"].values, 0).max(axis=1)
    # Of columns that are equally deep the one with the larger area.
    deepest = int(np.lexsort((area, learned))[-1])
    apart = abs(deepest - int(np.argmax(reach)))
    edge = jg.edge_of_chaos("tanh", sigma_b=float(one["sigma_b"].values[0])).init.sigma_w
    follows, there = together > 0.8, apart <= 1
    number = (
        f"rank correlation of trained depth and ξ_c over {len(area)} σ_w: {together:.3f}; deepest that learned: "
        f"{learned.max():.0f} layers at σ_w = {sigma_w[deepest]:.3g}, {apart} columns from the largest ξ_c; the edge "
        f"of chaos is at {edge:.4f}"
    )
    why = {
        (True, True): "How deep a network can be and learn follows from how far down two inputs can be told apart.",
        (True, False): "Depth follows ξ_c over σ_w, but the deepest networks learn away from the edge of chaos.",
        (False, True): "The deepest networks learn at the edge of chaos, but elsewhere depth does not follow ξ_c.",
        (False, False): "What trains does not follow ξ_c.",
    }[follows, there]
    says = "a tanh network trains up to a depth of about 6 ξ_c, deepest at the edge of chaos"
    verdict = verdict_of(follows and there, imprecise=follows or there)
    return [Verdict("Schoenholz et al. 2017", says, verdict, number, one.sizes["seed"], why)]


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """What trains over σ_w and depth, with 6 ξ_c on top, and losses and lengths over the steps."""
    jg.draw_training(figure, found["trained"], accuracy="train_accuracy")


main = main_of("trainable_depth", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
