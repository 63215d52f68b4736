"""Does a critical initialization train where the usual ones do not?

Claim: at depth 50, without normalization, SGD with momentum on handwritten digits learns at least as well (within two
standard errors) from the critical initialization of each activation as from Flax's default (LeCun, gain 1) and from the
gains √2, 5/3 and 3/4; and with GELU and SiLU far better than from any of them. Every initialization has the learning
rate that suits it best. With Adam, beside it, this is not claimed.

    python -m experiments.critical_trains

prints both tables and the verdict, and writes critical_trains.nc and critical_trains.png, in half an hour.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro
import xarray
from matplotlib.figure import Figure
from rich.table import Table

import jaxgain as jg
from jaxgain.cli.sweep import prepare_jax, progress_bar
from jaxgain.cli.tables import console, with_error
from jaxgain.runs.files import output_folder, save_dataset, save_figure
from jaxgain.training.summary import accuracy_and_error, best_rates

FAR = 0.3  # of the accuracy: what "far better" is
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
            best = best_rates(jg.train(settings, progress=progress))
        mean, error = (part.squeeze(["depth", "width"], drop=True) for part in accuracy_and_error(best))
        rate = best["learning_rate"].squeeze(["depth", "width"], drop=True)
        one = xarray.Dataset({"accuracy": mean, "error": error}).drop_vars("learning_rate")
        parts.append(one.assign(best_rate=rate.drop_vars("learning_rate")).expand_dims(optimizer=[optimizer]))
    return xarray.concat(parts, "optimizer")  # type: ignore


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
    drawn = Table(box=None, padding=(0, 2, 0, 0), title=f"{optimizer}: test accuracy @ best learning rate")
    inits = [str(init) for init in dataset["init"].values]
    for header in ("activation", *(NAMES.get(init, init) for init in inits)):
        drawn.add_column(header, no_wrap=True)
    for phi in dataset["activation"].values.tolist():
        one = dataset.sel(optimizer=optimizer, activation=phi)
        values = [[float(one[name].sel(init=init)) for name in ("accuracy", "error", "best_rate")] for init in inits]
        drawn.add_row(phi, *(f"{with_error(mean, error)} @{rate:.0e}" for mean, error, rate in values))
    return drawn


def draw(figure: Figure, dataset: xarray.Dataset) -> None:
    """A panel per optimizer, a group of bars per activation."""
    optimizers = dataset["optimizer"].values.tolist()
    figure.set_size_inches(12, 1 + 2.6 * len(optimizers))
    colours = {"critical": "#d55e00", "0.75": "0.85", "1": "0.7", "1.41421": "0.5", "1.66667": "0.3"}
    panels = np.atleast_1d(figure.subplots(len(optimizers), 1, sharex=True))
    for axes, optimizer in zip(panels, optimizers, strict=True):
        for place, (init, colour) in enumerate(colours.items()):
            one = dataset.sel(optimizer=optimizer, init=init)
            at = np.arange(one.sizes["activation"]) + 0.16 * (place - 2)
            axes.bar(at, one["accuracy"], 0.15, yerr=one["error"], color=colour, label=NAMES[init], capsize=2)
        axes.axhline(0.1, color="0.4", lw=0.8, ls=":")
        axes.set_title(optimizer, loc="left", fontsize=10)
        axes.set_ylim(0, 1)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xticks(range(dataset.sizes["activation"]), dataset["activation"].values)
    panels[0].legend(ncols=5, frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1))
    figure.supylabel("test accuracy at the best learning rate", fontsize=10)
    figure.suptitle("50 layers without normalization: what learns from which initialization", fontsize=12, x=0.35)
    figure.tight_layout()


def main(default: CriticalTrainsConfig = CriticalTrainsConfig(), words: list[str] | None = None) -> bool:
    """Run, judge and draw; return whether the claim holds."""
    config = tyro.cli(CriticalTrainsConfig, default=default, args=words, prog="python -m experiments.critical_trains")
    folder = output_folder(config.out)
    prepare_jax()
    dataset = run(config)
    save_dataset(dataset, folder / "critical_trains.nc")
    figure = Figure()
    draw(figure, dataset)
    save_figure(figure, folder / "critical_trains.png")
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
