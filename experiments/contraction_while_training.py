"""Does the fixed point of a self-normalizing network survive the updates of its weights?

Claim of a forum thread on `calculate_gain('tanh')`, about Klambauer et al., Self-Normalizing Neural Networks, 2017:

- A23: "I understood it as: even after updating the weights, they will stay in the domain of the contraction mapping so
  that the fixed point does not change."

The paper's theorem is about activations of a variance from 0.8 to 1.5, and layers whose squared weights sum to 0.95 to
1.1 for each neuron (1 is the initial value). It does not say that gradient descent keeps them there.

    python -m experiments.contraction_while_training

trains SELU networks on handwritten digits at several learning rates, prints the verdict and writes
contraction_while_training.nc and contraction_while_training.png, in a minute. Networks that learn
leave the domain: the length grows from layer to layer, and the more the larger the learning rate.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    Estimate,
    Found,
    Verdict,
    estimate,
    main_of,
    plain_panel,
    progress_bar,
    verdict_of,
)

DOMAIN = (0.8, 1.5)  # of the variance of activations, in the theorem
LEARNED = 0.9  # accuracy
COLOURS = (BLUE, GREEN, ORANGE, PURPLE)


@dataclasses.dataclass(frozen=True)
class ContractionConfig:
    """Sizes of the networks; the verdict is about the defaults."""

    learning_rates: tuple[float, ...] = (3e-4, 3e-3, 3e-2, 1e-1)
    """Of plain SGD."""
    depth: int = 16
    """Hidden layers."""
    width: int = 64
    """Neurons per layer."""
    steps: int = 400
    """Steps of SGD, a multiple of 40."""
    seeds: int = 6
    """Networks per gain and learning rate."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = ContractionConfig()
SMOKE = ContractionConfig((3e-3, 3e-2), depth=4, width=40, steps=40, seeds=2)


def run(config: ContractionConfig) -> Found:
    """Train SELU networks of gain 1 and 3/4, and record the length of each layer's z on the way."""
    sizes: dict[str, Any] = {
        "depths": config.depth,
        "widths": config.width,
        "seeds": config.seeds,
        "steps": config.steps,
    }
    every: dict[str, Any] = {"gradient_every": config.steps // 10, "measure_every": config.steps // 10}
    settings = jg.TrainConfig(
        "selu", (1.0, 0.75), learning_rates=config.learning_rates, optimizer="sgd", **sizes, **every
    )
    with progress_bar() as progress:
        runs = jg.train(settings, progress=progress)
    runs = runs.squeeze(["activation", "depth", "width"], drop=True).isel(layer=slice(0, config.depth))
    return {"runs": runs[["q", "test_accuracy", "diverged"]].drop_vars(["sigma_b", "xi_c"], errors="ignore")}


def judge(found: Found) -> list[Verdict]:
    """Read the verdict off the dataset."""
    runs = found["runs"].sel(init="1")
    rates, seeds = runs["learning_rate"].values.tolist(), runs.sizes["seed"]
    last = runs["q"].isel(layer=-1)
    ratio = {
        rate: estimate((last.isel(measured_step=-1) / last.isel(measured_step=0)).sel(learning_rate=rate))
        for rate in rates
    }
    accuracy = {rate: estimate(runs["test_accuracy"].sel(learning_rate=rate)) for rate in rates}
    alive = {rate: bool((runs["diverged"].sel(learning_rate=rate) < 0).all()) for rate in rates}
    length = {rate: runs["q"].sel(learning_rate=rate).isel(measured_step=-1).mean("seed").values for rate in rates}
    inside = {rate: alive[rate] and _inside(length[rate]) for rate in rates}
    learned = [rate for rate in rates if alive[rate] and accuracy[rate].mean > LEARNED] or rates
    same = all(ratio[rate].near(1, 0.1) for rate in learned)
    stays, some = all(inside[rate] for rate in learned), any(inside[rate] for rate in learned)
    best = max(learned, key=lambda rate: accuracy[rate].mean)
    first, end = float(length[best][0]), float(length[best].max())
    moved = "stays where it was" if same else "moves, the further the larger the learning rate"
    return [
        Verdict(
            "A23",
            "updated weights stay in the domain of the contraction, and the fixed point does not change",
            verdict_of(same and stays, imprecise=some),
            "mean z² of the last hidden layer after training over that before: "
            + ", ".join(_row(rate, ratio[rate], accuracy[rate], alive[rate]) for rate in rates),
            seeds,
            f"In networks that learn the length {moved}. At the best rate, {best:g}, it goes from {first:.2f} in the "
            f"first layer to {end:.2f} at most, where all began near 1: layers are no longer alike, and no one fixed "
            "point is left"
            + (
                ". All layers stay in the theorem's domain"
                if stays
                else ". The theorem's domain is kept at small learning rates only; nothing in it binds gradient descent"
                if some
                else ". The theorem's domain is left"
            ),
        )
    ]


def _row(rate: float, ratio: Estimate, accuracy: Estimate, alive: bool) -> str:
    return f"{ratio if alive else 'diverges'} at {rate:g} (accuracy {accuracy.mean:.2f})"


def _inside(lengths: np.ndarray) -> bool:
    """Whether activations of all layers have a second moment in the domain, z being normal."""
    moments = [jg.length_map("selu", jg.Init(1.0), float(q)) for q in lengths]
    return bool(min(moments) >= DOMAIN[0] and max(moments) <= DOMAIN[1])


def draw(figure: Figure, found: Found) -> None:
    """The length over the layers before and after, and that of the last layer on the way."""
    runs = found["runs"]
    figure.set_size_inches(14, 4.8)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 3)
    mean = np.exp(np.log(runs["q"]).mean("seed"))  # type: ignore
    start = mean.sel(init="1").isel(measured_step=0, learning_rate=0)
    panels[0].plot(start["layer"], start, color="k", lw=2, ls="--", label="before")
    for rate, colour in zip(runs["learning_rate"].values, COLOURS, strict=False):
        end = mean.sel(init="1", learning_rate=rate).isel(measured_step=-1)
        panels[0].plot(end["layer"], end, color=colour, lw=2, label=f"after, rate {rate:g}")
        for axes, init in zip(panels[1:], ("1", "0.75"), strict=True):
            every = runs["q"].sel(init=init, learning_rate=rate).isel(layer=-1).transpose("measured_step", "seed")
            axes.plot(every["measured_step"], every, color=colour, lw=0.6, alpha=0.5)
            accuracy = float(runs["test_accuracy"].sel(init=init, learning_rate=rate).mean())
            curve = mean.sel(init=init, learning_rate=rate).isel(layer=-1)
            axes.plot(
                curve["measured_step"], curve, color=colour, lw=2.2, label=f"rate {rate:g}: accuracy {accuracy:.2f}"
            )
    plain_panel(panels[0], title="Gain 1: the length of each layer", xlabel="layer", ylabel="mean z²", ylim=(0, None))
    for axes, init in zip(panels[1:], ("1", "3/4"), strict=True):
        title = f"Gain {init}: the length of the last layer"
        plain_panel(axes, title=title, xlabel="step of SGD", ylabel="mean z²", ylim=(0, None))
    for axes in panels:
        axes.legend(fontsize=8.5)
    about = f"{runs.sizes['layer']} layers, handwritten digits, geometric means of {runs.sizes['seed']} networks"
    figure.suptitle(f"SELU's length does not stay at its fixed point while the network learns ({about})", fontsize=12)


main = main_of("contraction_while_training", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
