"""Does a critical initialization train where the usual ones do not?

Claim: at depth 50, without normalization, SGD with momentum on handwritten digits learns at least as well (within two
standard errors) from the critical initialization of each activation as from Flax's default (LeCun, gain 1) and from the
gains √2, 5/3 and 3/4; and with GELU and SiLU far better than from any of them. Every initialization has the learning
rate that suits it best. With Adam, beside it, this is not claimed.

Two of them are critical themselves: with ReLU any length is kept by √2 in all layers, and tanh's gain is 1. With SELU,
3/4 is ahead of the critical 0.69 by a little more than one standard error: the claim is no more than that of a tie.

    python -m experiments.critical_trains

prints both tables and the verdict, and writes critical_trains.nc and critical_trains.png, in an hour on two
cores.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray
from matplotlib.figure import Figure
from rich.table import Table

import jaxgain as jg
from jaxgain.experiments import console, experiment, progress_bar, save_dataset, save_figure

FAR = 0.3  # of the accuracy: what "far better" is
WORDED = {"momentum": "SGD with momentum 0.9", "adam": "Adam"}
NAMES = {"0.75": "3/4", "1": "Flax: 1", "1.41421": "√2", "1.66667": "5/3", "critical": "critical"}


@dataclasses.dataclass(frozen=True)
class CriticalTrainsConfig:
    """Sizes of the networks; the claim is about the defaults."""

    activations: tuple[str, ...] = ("relu", "tanh", "gelu", "silu", "mish", "selu")
    """Activations."""
    optimizers: tuple[str, ...] = ("momentum", "adam")
    """Optimizers; the claim is about the first."""
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    """Of which each initialization has its best."""
    depth: int = 50
    """Hidden layers."""
    width: int = 128
    """Neurons per layer."""
    steps: int = 1000
    """Steps of the optimizer."""
    seeds: int = 3
    """Networks per activation, initialization and learning rate."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


SMOKE = CriticalTrainsConfig(("gelu",), ("momentum",), (3e-3,), depth=3, width=16, steps=50, seeds=2)


def run(config: CriticalTrainsConfig) -> xarray.Dataset:
    """Test accuracy, its error and the best learning rate, over optimizer, activation and initialization."""
    parts = []
    for optimizer in config.optimizers:
        # Flax draws LeCun's normal truncated: so all of them are, and a gain of 1 is its default.
        settings = jg.TrainConfig(
            config.activations,
            ("critical", 1, "sqrt(2)", "5/3", "3/4"),
            (config.depth,),
            (config.width,),
            config.learning_rates,
            config.seeds,
            optimizer=optimizer,  # type: ignore
            distribution="truncated_normal",
            steps=config.steps,
            gradient_every=50,
        )
        with progress_bar() as progress:
            best = jg.best_rates(jg.train(settings, progress=progress))
        mean, error = (part.squeeze(["depth", "width"], drop=True) for part in jg.accuracy_and_error(best))
        rate = best["learning_rate"].squeeze(["depth", "width"], drop=True)
        one = xarray.Dataset({"accuracy": mean, "error": error}).drop_vars("learning_rate")
        parts.append(one.assign(best_rate=rate.drop_vars("learning_rate")).expand_dims(optimizer=[optimizer]))
    about = (
        f"{config.depth} layers of {config.width}, handwritten digits, {config.steps} steps, the best of "
        f"{len(config.learning_rates)} learning rates, {config.seeds} networks each"
    )
    return xarray.concat(parts, "optimizer").assign_attrs(about=about)  # type: ignore


def judge(dataset: xarray.Dataset) -> dict[str, tuple[bool, bool]]:
    """For each activation, with the first optimizer: at least as good as every other, and far better."""
    found = {}
    for phi in dataset["activation"].values.tolist():
        one = dataset.isel(optimizer=0).sel(activation=phi)
        critical, others = one.sel(init="critical"), one.drop_sel(init="critical")
        ahead = critical["accuracy"] - others["accuracy"]
        error = np.hypot(critical["error"], others["error"])
        found[phi] = bool((ahead >= -2 * error).all()), bool((ahead > FAR).all())
    return found


def table(dataset: xarray.Dataset, optimizer: str) -> Table:
    """Accuracy ± standard error, and the best learning rate."""
    drawn = Table(box=None, padding=(0, 1, 0, 0), title=f"{optimizer}: test accuracy @ best learning rate")
    inits = [str(init) for init in dataset["init"].values]
    for header in ("activation", *(NAMES.get(init, init) for init in inits)):
        drawn.add_column(header, no_wrap=True)
    for phi in dataset["activation"].values.tolist():
        one = dataset.sel(optimizer=optimizer, activation=phi)
        values = [[float(one[name].sel(init=init)) for name in ("accuracy", "error", "best_rate")] for init in inits]
        cells = (f"{mean:.3f}±{error:.3f}@{rate:.0e}".replace("e-0", "e-") for mean, error, rate in values)
        drawn.add_row(phi, *cells)
    return drawn


def draw(figure: Figure, dataset: xarray.Dataset) -> None:
    """A panel per optimizer, a group of bars per activation."""
    optimizers = dataset["optimizer"].values.tolist()
    figure.set_size_inches(11, 1.3 + 2.4 * len(optimizers))
    colours = {"critical": "#d55e00", "0.75": "0.88", "1": "0.72", "1.41421": "0.52", "1.66667": "0.3"}
    panels = np.atleast_1d(figure.subplots(len(optimizers), 1, sharex=True))
    for axes, optimizer in zip(panels, optimizers, strict=True):
        for place, (init, colour) in enumerate(colours.items()):
            one = dataset.sel(optimizer=optimizer, init=init)
            at = np.arange(one.sizes["activation"]) + 0.16 * (place - 2)
            label = NAMES[init] if init in ("critical", "1") else f"gain {NAMES[init]}"
            look = {"color": colour, "ec": "0.3", "lw": 0.4, "capsize": 2}
            axes.bar(at, one["accuracy"], 0.15, yerr=one["error"], label=label, **look)
        axes.axhline(0.1, color="0.3", lw=0.9, ls=":")
        axes.annotate("guessing", (1, 0.1), xycoords=axes.get_yaxis_transform(), fontsize=8, color="0.3", va="center")
        axes.set_title(WORDED.get(optimizer, optimizer), loc="left", fontsize=10)
        axes.set_ylim(0, 1)
        axes.set_ylabel("test accuracy")
        axes.margins(x=0.01)
        axes.tick_params(axis="x", length=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xticks(range(dataset.sizes["activation"]), dataset["activation"].values, fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.suptitle("What learns from which initialization, without normalization", fontsize=13, x=0.06, ha="left")
    high = figure.get_figheight()
    about = f"{dataset.attrs['about']}; means ± standard errors"
    figure.text(0.06, 1 - 0.45 / high, about, fontsize=9, color="0.35", va="top")
    places = {"loc": "upper left", "bbox_to_anchor": (0.05, 1 - 0.6 / high)}
    figure.legend(handles, labels, ncols=5, frameon=False, fontsize=9, **places)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.8 / high))


def main(words: Sequence[str] | None = None, default: CriticalTrainsConfig = CriticalTrainsConfig()) -> bool:
    """Run, judge and draw, with the options in `words`, of the process by default; return whether the claim holds."""
    with experiment("critical_trains", default, words) as config:
        dataset = run(config)
    save_dataset(dataset, config.out / "critical_trains.nc")
    figure = Figure()
    draw(figure, dataset)
    save_figure(figure, config.out / "critical_trains.png")
    for optimizer in config.optimizers:
        console().print(table(dataset, optimizer))
    judged = judge(dataset)
    behind = [phi for phi, (as_good, _) in judged.items() if not as_good]
    far = [phi for phi, (_, far_better) in judged.items() if far_better]
    holds = not behind and {"gelu", "silu"} & set(judged) <= set(far)
    print(f"Critical is behind another by more than two standard errors: {', '.join(behind) or 'nowhere'}.")
    print(f"Ahead of all others by more than {FAR:g}: {', '.join(far) or 'nowhere'}.")
    print(f"The claim {'holds' if holds else 'FAILS'}, over {config.seeds} seeds.")
    return holds


if __name__ == "__main__":
    main()
