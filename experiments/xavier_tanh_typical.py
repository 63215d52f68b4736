"""Is a standard deviation of 0.0452 what 100 tanh layers of width 256 with Xavier's weights end at?

C6  A note on exploding and vanishing gradients runs one network of uniform weights, ± √(6 / (fan_in + fan_out)), from
    standard normal inputs: "x.mean(), x.std()  # see (tensor(0.0047), tensor(0.0452))".

Right here means: half of all networks end nearer to the median than this one does, or about so: it lies between their
quartiles. Imprecise: outside of them, within 99% of the networks.

    python -m experiments.xavier_tanh_typical

prints the verdict and writes xavier_tanh_typical.nc and xavier_tanh_typical.png, in half a minute.

The median network ends at 0.063, half of them between 0.054 and 0.076, and one in ten below 0.0452.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

SEEN = 0.0452


@dataclasses.dataclass(frozen=True)
class XavierConfig:
    """Sizes of the networks; the claim is about the defaults."""

    width: int = 256
    """Neurons per layer."""
    depth: int = 100
    """Layers."""
    seeds: int = 500
    """Networks of uniform weights, which are drawn one by one."""
    normal: int = 10_000
    """Networks of normal weights of the same variance."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = XavierConfig()
SMOKE = XavierConfig(width=16, depth=10, seeds=4, normal=20)


def run(config: XavierConfig) -> dict[str, xarray.Dataset]:
    """Return the standard deviation of h: quantiles over layers and each network's last, and that of theory."""
    sizes: dict[str, Any] = dict(width=config.width, depth=config.depth, inputs=1, statistics="std", mode="fan_avg")
    how = {"uniform": dict(distribution="uniform", weights="dense", seeds=config.seeds), "normal": {}}
    how["normal"] = dict(seeds=config.normal)
    found = {}
    for name, settings in how.items():
        std = jg.sweep(jg.SweepConfig("tanh", (1.0,), **sizes, **settings))["std"].squeeze(drop=True)
        bands = std.quantile([0.005, 0.25, 0.5, 0.75, 0.995], "seed")
        last = std.isel(layer=-1, drop=True).astype(np.float32)
        found[name] = xarray.Dataset({"bands": bands, "last": last}).reset_coords(drop=True)
    wide = jg.mean_field("tanh", jg.Init(1.0), depth=config.depth)
    return found | {"wide": wide[["std", "log_grad_rms"]]}


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """C6."""
    last, wide = found["uniform"]["last"], float(found["wide"]["std"][-1])
    low, first, median, third, high = found["uniform"]["bands"].isel(layer=-1).values
    normal = found["normal"]["last"]
    error = 1.2533 * float(last.std()) / last.size**0.5  # of a median
    below, many = float((last < SEEN).mean()), float((normal < SEEN).mean())
    typical, possible = first <= SEEN <= third, low <= SEEN <= high
    number = (
        f"median {median:.4f} ± {error:.4f}, quartiles {first:.4f} and {third:.4f}, 99% from {low:.4f} to {high:.4f}; "
        f"{below:.0%} end below {SEEN} (normal weights: {many:.1%} of {normal.size})"
    )
    place = (
        "a typical one" if typical else "one that can be, but not the middle" if possible else "none of these networks"
    )
    scatter, layers = float(last.std() / last.mean()), found["wide"].sizes["layer"] - 1
    gradient = np.exp(float(found["wide"]["log_grad_rms"][0]))
    why = (
        f"It is {place}. One run says little: networks scatter by {scatter:.0%}. And the signal is not kept, it dies "
        f"slowly: with tanh and σ_w = 1 the std falls as 1/√(2l) over layers l, at infinite width to {wide:.4f} after "
        f"{layers}, where the rms gradient at the input is {gradient:.2f} of that at the output."
    )
    says = "Xavier uniform, tanh, width 256, 100 layers: std 0.0452"
    return [Verdict("C6", says, verdict_of(typical, imprecise=possible), number, last.size, why)]


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Left the standard deviation over depth, right where networks end."""
    figure.set_size_inches(12, 4.8)
    depth, ends = figure.subplots(1, 2)
    bands, wide = found["uniform"]["bands"].transpose("quantile", "layer"), found["wide"]["std"]
    layers = wide["layer"].values[1:]
    depth.fill_between(layers, *bands.values[[0, 4], 1:], color="#56b4e9", alpha=0.3, linewidth=0, label="99%")
    depth.fill_between(layers, *bands.values[[1, 3], 1:], color="#56b4e9", alpha=0.8, linewidth=0, label="half")
    depth.plot(layers, bands.values[2, 1:], color="#0072b2", linewidth=2, label="median")
    depth.plot(layers, wide.values[1:], color="black", linewidth=1.5, linestyle="--", label="infinite width")
    depth.plot(layers, 1 / np.sqrt(2 * layers), color="#e69f00", linewidth=1.2, linestyle=":", label="1/√(2 layer)")
    depth.plot(layers[-1], SEEN, "o", color="#d55e00", markersize=9, clip_on=False, label=f"the note's run, {SEEN}")
    depth.set(xlabel="layer", ylabel="standard deviation of the activations", yscale="log")
    depth.set_title("tanh with Xavier's weights, width 256: the signal dies slowly\n")
    depth.legend(fontsize=9, frameon=False)
    last, normal = found["uniform"]["last"].values, found["normal"]["last"].values
    bins = np.linspace(normal.min(), normal.max(), 51)
    ends.hist(last, bins, density=True, color="#56b4e9", alpha=0.8, label=f"{last.size} networks, uniform weights")
    ends.hist(
        normal, bins, density=True, histtype="step", color="black", label=f"{normal.size} networks, normal weights"
    )
    ends.axvline(SEEN, color="#d55e00", linewidth=2.5, label=f"the note's run, {SEEN}")
    ends.axvline(float(wide[-1]), color="black", linewidth=1.5, linestyle="--", label="infinite width")
    ends.set(xlabel=f"standard deviation of the activations in layer {layers[-1]}", ylabel="density of networks")
    ends.set_title(f"one run is one draw: {np.mean(last < SEEN):.0%} of networks end below {SEEN}\n")
    ends.legend(fontsize=9, frameon=False)
    for axes in (depth, ends):
        axes.title.set_fontsize(11)
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()


main = main_of("xavier_tanh_typical", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
