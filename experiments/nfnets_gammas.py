"""Are the constants by which NFNets multiply their activations right, and do they keep the variance?

Brock, De and Smith, Characterizing signal propagation to close the performance gap in unnormalized ResNets, 2021, and
Brock, De, Smith and Simonyan, High-performance large-scale image recognition without normalization, 2021: with weights
of mean 0 over each neuron's inputs and variance 1/fan_in, γ = 1/√Var φ(z), z standard normal, keeps the variance. Their
code has a table of γ, to 16 digits.

    python -m experiments.nfnets_gammas

prints the verdicts and writes nfnets_gammas.nc and nfnets_gammas.png, in seconds.

The table is good to 0.09%: no constant is right in all of its first five digits. CELU and ELU are one function, and
softplus and log-sigmoid mirror each other, but have different constants there.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

PAPER = "Brock et al. 2021"
PUBLISHED = {
    "celu": 1.270926833152771,
    "elu": 1.2716004848480225,
    "gelu": 1.7015043497085571,
    "leaky_relu": 1.70590341091156,
    "log_sigmoid": 1.9193484783172607,
    "relu": 1.7139588594436646,
    "relu6": 1.7131484746932983,
    "selu": 1.0008515119552612,
    "sigmoid": 4.803835391998291,
    "silu": 1.7881293296813965,
    "soft_sign": 2.338853120803833,
    "softplus": 1.9203323125839233,
    "tanh": 1.5939117670059204,
}
PRINTED, USABLE = 1e-7, 2e-3  # relative: what float32 digits promise, what a network would notice after 100 layers
COLOURS = {"weights of mean 0": "#0072b2", "plain weights": "#d55e00"}


@dataclasses.dataclass(frozen=True)
class GammasConfig:
    """Sizes of the networks."""

    width: int = 256
    """Neurons per layer."""
    depth: int = 30
    """Layers."""
    seeds: int = 64
    """Networks."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = GammasConfig()
SMOKE = GammasConfig(width=16, depth=4, seeds=4)


def run(config: GammasConfig) -> dict[str, xarray.Dataset]:
    """Return γ as published and as computed, and log variances of ReLU networks that have it."""
    exact = [jg.gain(name, kind="centred") for name in PUBLISHED]
    sizes: dict[str, Any] = dict(width=config.width, depth=config.depth, seeds=config.seeds, inputs=1, statistics="std")
    variance = []
    for distribution in (_of_mean_zero, "normal"):
        settings = jg.SweepConfig("relu", "centred", distribution=distribution, weights="dense", **sizes)
        variance.append(2 * np.log(jg.sweep(settings)["std"].squeeze(drop=True).transpose("seed", "layer").values))
    return {
        "gammas": xarray.Dataset(
            {
                "published": ("activation", list(PUBLISHED.values())),
                "exact": ("activation", exact),
            },
            {"activation": list(PUBLISHED)},
        ),
        "networks": xarray.Dataset(
            {"log_variance": (("weights", "seed", "layer"), variance)}, {"weights": list(COLOURS)}
        ),
    }


def _of_mean_zero(key: jax.Array, shape: tuple[int, int], dtype: type) -> jax.Array:
    """Weights (fan_in, fan_out) of mean 0 over the inputs of each neuron, and variance 1/fan_in."""
    weights = jax.random.normal(key, shape, dtype)
    weights = weights - weights.mean(axis=0, keepdims=True)
    return weights / (weights.std(axis=0, keepdims=True) * math.sqrt(shape[0]))


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """The table, and what it is for."""
    gammas = found["gammas"]
    off = gammas["published"] / gammas["exact"] - 1
    worst = str(gammas["activation"].values[int(np.argmax(abs(off).values))])
    largest, of = float(abs(off).max()), gammas.sel(activation=worst)
    number = (
        f"largest deviation {largest:.3%}, {worst}: {float(of['published']):.6f}, exactly {float(of['exact']):.10f}; "
    )
    number += f"median {float(off.median()):+.3%}, {int((off > 0).sum())} of {off.size} too large"
    why = "All digits are right."
    if largest > PRINTED:
        twins = gammas.sel(activation="elu") - gammas.sel(activation="celu")
        why = (
            f"The constants are estimates: CELU and ELU, one function, differ by {float(twins['published']):.5f} in "
            f"the table, by {float(twins['exact']):.5f} in truth. It matters little: over 100 layers the largest error "
            f"makes {(1 + largest) ** 100 - 1:.0%}."
        )
    change = np.diff(found["networks"]["log_variance"].isel(layer=[1, -1]), axis=-1)[..., 0]
    layers = found["networks"].sizes["layer"] - 2
    seeds = change.shape[1]
    slope, error = change.mean(axis=1) / layers, change.std(axis=1, ddof=1) / layers / seeds**0.5
    keeps, grows = abs(slope[0]) < 0.05, slope[1] > 0.05
    words = [
        f"{name}: × {np.exp(s):.3f} ± {np.exp(s) * e:.3f}" for name, s, e in zip(COLOURS, slope, error, strict=True)
    ]
    kept = "Weights of mean 0 do not see the mean that ReLU gives its outputs, so only the variance counts; "
    kept += "plain ones do, and need 1/√E φ² = √2." if grows else "plain ones do not let it grow either."
    return [
        Verdict(
            PAPER, "the table of γ is 1/√Var φ(z)", verdict_of(largest < PRINTED, largest < USABLE), number, 0, why
        ),
        Verdict(
            PAPER,
            "γ keeps the variance, if the weights have mean 0 over each neuron's inputs",
            verdict_of(bool(keeps and grows), bool(keeps)),
            f"variance of ReLU networks per layer, typically: {'; '.join(words)}",
            seeds,
            kept if keeps else "The variance is not kept.",
        ),
    ]


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Left by how much the table is off, right the variance over depth."""
    figure.set_size_inches(12, 4.9)
    table, depth = figure.subplots(1, 2)
    gammas = found["gammas"]
    off = 100 * (gammas["published"] / gammas["exact"] - 1)
    rows = np.arange(off.size)[::-1]
    table.hlines(rows, 0, off, color="#d55e00", linewidth=2)
    table.plot(off, rows, "o", color="#d55e00", label="the published constant")
    table.axvline(0, color="#0072b2", linewidth=2, label="exact, 1/√Var φ(z), as written at the left")
    names = [f"{name}  {float(gammas['exact'].sel(activation=name)):.7f}" for name in gammas["activation"].values]
    table.set_yticks(rows, names, fontsize=9)
    table.set(xlabel="deviation of γ in %", ylim=(-0.6, off.size + 2.2))
    table.set_title("NFNets' constants are good to a tenth of a percent", fontsize=11)
    table.legend(fontsize=8, frameon=False, loc="upper right")
    for name, colour in COLOURS.items():
        values = found["networks"]["log_variance"].sel(weights=name).transpose("layer", "seed").values / math.log(10)
        layers = np.arange(len(values))[1:]
        depth.plot(layers, values[1:], color=colour, linewidth=0.4, alpha=0.4)
        depth.plot(layers, values[1:].mean(axis=1), color=colour, linewidth=2.5, label=name)
    depth.set(xlabel="layer", ylabel="log₁₀ of the variance of the activations")
    depth.set_title("γ keeps the variance of ReLU if weights have mean 0", fontsize=11)
    depth.legend(fontsize=9, frameon=False)
    for axes in (table, depth):
        axes.grid(color="0.94", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()


main = main_of("nfnets_gammas", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
