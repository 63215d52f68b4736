"""Is the variance of a ReLU network's log squared gradient 5 per layer, divided by the width?

Hanin and Nica, Products of many large random matrices and gradients in deep neural networks, 2020: for ReLU, σ_w = √2,
L layers of width n, the logarithm of the squared gradient between output and input is nearly normal, with mean -5L/2n
and variance 5L/n, so that L/n decides how unequal gradients are.

Judged at depth 20 over widths from 4 to 1000, of networks that have no dead layer: at width 128 and above it holds
within 5% and sampling errors; below, the exact law of a layer, (2/n) χ²_N with N binomial(n, 1/2), is compared too.

    python -m experiments.relu_five_l_over_n

prints the verdicts and writes relu_five_l_over_n.nc and relu_five_l_over_n.png, in a minute.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

WIDE, NEAR = 128, 0.05  # from which width 5L/n is judged, and by how much it may be off


@dataclasses.dataclass(frozen=True)
class FiveConfig:
    """Sizes of the networks; the claim is about the defaults."""

    widths: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 1000)
    """Neurons per layer."""
    depth: int = 20
    """Layers."""
    seeds: int = 10_000
    """Networks per width."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = FiveConfig()
SMOKE = FiveConfig(widths=(4, 8), depth=3, seeds=40)


def run(config: FiveConfig) -> dict[str, xarray.Dataset]:
    """Return, per width, the log squared gradient over the network, and what a layer adds by the exact law."""
    logs = []
    for width in config.widths:
        sizes: dict[str, Any] = dict(
            width=width, depth=config.depth, seeds=config.seeds, inputs=1, record_every=config.depth
        )
        swept = jg.sweep(jg.SweepConfig("relu", "sqrt(2)", statistics=("log_grad_rms",), **sizes))
        gradient = swept["log_grad_rms"].squeeze(drop=True).transpose("seed", "layer").values
        logs.append(2 * (gradient[:, 0] - gradient[:, -1]))
    laws = [jg.exact_layer_law("relu", width) for width in config.widths]
    return {
        "gradient": xarray.Dataset(
            {
                "log_square": (("width", "seed"), np.where(np.isfinite(logs), logs, np.nan).astype(np.float32)),
                "layer_mean": ("width", [law.mean for law in laws]),
                "layer_variance": ("width", [law.var for law in laws]),
                "layer_dead": ("width", [law.dead for law in laws]),
            },
            {"width": list(config.widths)},
            {"depth": config.depth},
        )
    }


def moments(gradient: xarray.Dataset) -> xarray.Dataset:
    """Mean and variance over the networks without a dead layer, with standard errors, and the share of the others."""
    values = gradient["log_square"].astype(float)
    count, mean, variance = values.count("seed"), values.mean("seed"), values.var("seed", ddof=1)
    fourth = ((values - mean) ** 4).mean("seed")
    return xarray.Dataset(
        {
            "mean": mean,
            "mean_error": np.sqrt(variance / count),
            "variance": variance,
            "variance_error": np.sqrt((fourth - variance**2) / count),
            "dead": values.isnull().mean("seed"),
        }
    )


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """The law of many neurons, and the exact one."""
    gradient, depth = found["gradient"], found["gradient"].attrs["depth"]
    m, widths = moments(gradient), gradient["width"]
    law, exact = 5 * depth / widths, depth * gradient["layer_variance"]
    near = abs(m["variance"] - law) < 4 * m["variance_error"] + NEAR * law
    wide, narrow = widths >= WIDE, widths < WIDE
    everywhere, far = bool(near.all()), bool(near.where(wide, True).all() and wide.any())
    small, big = m.isel(width=0), m.isel(width=-1)
    per_layer = lambda one, of: f"{float(one['variance'] / of):.3f} ± {float(one['variance_error'] / of):.3f}"
    n, seeds = int(widths[0]), gradient.sizes["seed"]
    words = ", ".join(f"n = {int(w)}: {per_layer(m.sel(width=w), depth / int(w))}" for w in widths.values)
    worst = float((m["variance"] / law).isel(width=0))
    why = "It holds at every width that was tried."
    if not everywhere:
        why = f"It is the limit of wide layers. At width {n} the variance is {worst:.2f} of it, "
        why += f"and {float(small['dead']):.0%} of the networks have a layer in which no neuron lives, and no gradient."
    follows = bool((abs(m["variance"] - exact) < 4 * m["variance_error"] + 1e-3 * exact).all())
    centred = bool((abs(m["mean"] - depth * gradient["layer_mean"]) < 4 * m["mean_error"]).all())
    dead = 1 - (1 - gradient["layer_dead"]) ** depth
    died = bool((abs(m["dead"] - dead) < 4 * np.sqrt(dead * (1 - dead) / seeds) + 1 / seeds).all())
    eight = [f"n = {int(w)}: {float(gradient['layer_variance'].sel(width=w)):.4f}" for w in widths[narrow].values]
    ends = f"mean at n = {int(widths[-1])}: {float(big['mean']):.4f} ± {float(big['mean_error']):.4f}, "
    ends += f"-5L/2n = {-2.5 * depth / int(widths[-1]):.4f}"
    return [
        Verdict(
            "Hanin and Nica 2020",
            "the log squared gradient of a ReLU network has variance 5L/n",
            verdict_of(everywhere, imprecise=far),
            f"variance × n/L at L = {depth}: {words}; {ends}",
            seeds,
            why,
        ),
        Verdict(
            "Hanin and Nica 2020",
            "at any width a layer multiplies the squared gradient by (2/n) χ²_N, N binomial(n, 1/2)",
            verdict_of(follows and centred and died, imprecise=follows),
            f"exact variance per layer where one neuron lives: {', '.join(eight)}; variances, means and dead layers "
            f"of all widths are {'within' if follows and centred and died else 'not within'} 4 standard errors",
            seeds,
            "Independent layers add their variances, without an approximation."
            if follows and centred and died
            else "The sampled networks have another law.",
        ),
    ]


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Left variance over width, right what the gradients of single networks are."""
    figure.set_size_inches(12, 4.8)
    variance, law = figure.subplots(1, 2)
    gradient, depth = found["gradient"], found["gradient"].attrs["depth"]
    m, widths = moments(gradient), gradient["width"].values
    scale = widths / depth
    variance.axhline(5, color="#d55e00", linewidth=2, label="5, the law of wide layers")
    exact = depth * gradient["layer_variance"] * scale
    variance.plot(widths, exact, color="#0072b2", linewidth=2, label="exact law of a layer with a living neuron")
    variance.errorbar(
        widths, m["variance"] * scale, 2 * m["variance_error"] * scale, fmt="o", color="black", markersize=5
    )
    variance.plot([], [], "o", color="black", label=f"{gradient.sizes['seed']:,} networks each, ± 2 standard errors")
    variance.set(xscale="log", xlabel="width n", ylabel="variance of the log squared gradient × n / L", ylim=(0, None))
    variance.set_xticks(widths, [str(n) for n in widths])
    variance.minorticks_off()
    variance.set_title(f"5L/n holds for wide layers (L = {depth})", fontsize=11)
    variance.legend(fontsize=9, frameon=False, loc="lower right")
    chosen = [n for n in (8, 32, 256) if n in widths] or [int(widths[0])]
    for n, colour in zip(chosen, ("#e69f00", "#009e73", "#0072b2"), strict=False):
        values = gradient["log_square"].sel(width=n).values / np.log(10)
        values = values[np.isfinite(values)]
        label = f"n = {n}, {float(m['dead'].sel(width=n)):.1%} without any gradient"
        law.hist(values, 80, density=True, histtype="step", color=colour, linewidth=2, label=label)
    law.axvline(0, color="0.6", linewidth=1)
    law.set(xlabel="log₁₀ of the squared gradient, input to output", ylabel="density of networks")
    law.set_title("its mean over networks is 1, but most are below", fontsize=11)
    law.legend(fontsize=9, frameon=False, loc="upper left")
    for axes in (variance, law):
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()


main = main_of("relu_five_l_over_n", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
