"""How often does a gradient vanish, and can a law of the gradient tell?

Claim B17, from an answer to a question on tanh(nx) as an activation (Esmailian): one could "come up with a
probabilistic model that tells how often vanishing happens based on a distribution of gradient g or a joint distribution
(x, g) or (w, g)".

Two models, against networks that are counted. The log of g² is a sum over layers, so nearly normal, with the mean and
variance that theory gives at the width (`jaxgain.vanishing_probability`). And the chain of width 1, whose joint laws
of (x, g) and (w, g) are sampled layer by layer, w ~ N(0, 1), x ← tanh(n w x) (`jaxgain.sample_chain`). A gradient has
vanished where the one at the input is below 1/100 of that at the output. σ_w = 1, no biases.

    python -m experiments.vanishing_probability

prints the verdict and writes vanishing_probability.png, in about a minute. From width 16 on the normal law is right to
0.02; at widths 4 and 1 it is off by up to 0.21 and 0.16, mostly by being too small.
"""

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Found, Verdict, main_of, verdict_of

CLOSE = 0.03  # what a predicted probability may be off, beside chance
COLOURS, MARKERS = ("#d55e00", "#e69f00", "#0072b2", "#009e73"), ("o", "s", "^", "D")


@dataclasses.dataclass(frozen=True)
class ProbabilityConfig:
    """Sizes of the samples."""

    scales: tuple[float, ...] = (1.0, 2.0, 3.0)
    """n; its tanh(nx) with σ_w = 1 is run as tanh with σ_w = n, which has the same gradients."""
    widths: tuple[int, ...] = (1, 4, 16, 64)
    """Neurons per layer; 1 must be among them."""
    depths: tuple[int, ...] = (10, 20, 50)
    """Layers."""
    networks: int = 4000
    """Random networks per n, width and depth."""
    below: float = 0.01
    """Ratio of gradients, input over output, below which one has vanished."""
    out: Path = Path("experiments/figures")
    """Folder of the dataset and the figure."""


FULL = ProbabilityConfig()
SMOKE = ProbabilityConfig(scales=(1.0, 2.0), widths=(1, 16), depths=(5, 10), networks=200)


def run(config: ProbabilityConfig) -> Found:
    """Return counted and predicted probabilities over (n, width, depth), the chains', and their joint laws."""
    counted, grid = _counted(config), (len(config.scales), len(config.widths), len(config.depths))
    predicted = np.empty(grid)
    for i, j, k in np.ndindex(grid):
        sizes = {"width": config.widths[j], "depth": config.depths[k], "below": config.below}
        predicted[i, j, k] = jg.vanishing_probability("tanh", jg.Init(config.scales[i]), **sizes)
    chains = jg.chain_probabilities(
        jax.random.key(3), "tanh", jg.Init(1.0), scales=config.scales, depth=max(config.depths),
        networks=config.networks, below=config.below, above=1 / config.below,
    ).rename(scale="n", layer="depth")  # fmt: skip
    found = counted.assign(predicted=(("n", "width", "depth"), predicted))
    found = found.assign(chain=chains["vanishing"].sel(depth=list(config.depths)))
    return {"probabilities": found.assign_attrs(networks=config.networks, below=config.below)} | _joint(config)


def _counted(config: ProbabilityConfig) -> xarray.Dataset:
    deepest = config.depths[-1]
    swept = jg.sweep(
        jg.SweepConfig(
            "tanh", config.scales, widths=config.widths, depth=deepest, depths=config.depths[:-1], inputs=1, seed=5,
            seeds=config.networks, statistics=("log_grad_rms",), record_every=math.gcd(*config.depths),
        )
    )  # fmt: skip
    log_g = swept["log_grad_rms"].astype(np.float64).sel(activation="tanh").rename(gain="n").reset_coords(drop=True)
    ratio = xarray.concat(
        [log_g.sel(depth=depth, layer=0) - log_g.sel(depth=depth, layer=depth) for depth in config.depths],
        dim=xarray.IndexVariable("depth", np.array(config.depths)),
        coords="minimal",
        compat="override",
    ).drop_vars("layer", errors="ignore")
    counted = (ratio < math.log(config.below)).mean("seed")
    return xarray.Dataset({"counted": counted.transpose("n", "width", "depth")})


def _joint(config: ProbabilityConfig) -> Found:
    """Densities of (x, log g) and (w, log g) half-way up the chains of n = 2, and what of log g the weights explain."""
    depth = config.depths[-1]
    chains = jg.sample_chain(
        jax.random.key(4), "tanh", jg.Init(1.0), depth=depth, networks=5 * config.networks, scale=2.0
    )
    span = (float(chains["log_gradient"].isel(layer=-1).quantile(0.02)), 5.0)
    laws = {of: jg.joint_law(chains, of, layer=depth // 2, bins=40, span=span) for of in ("x", "w")}
    # ln|g| is the sum of these two.
    of_weights = np.log(np.abs(chains["w"].values[:, 1:])).sum(1)
    of_slopes = chains["log_slopes"].isel(layer=-1).values
    variance = {"weights": float(of_weights.var(ddof=1)), "slopes": float(of_slopes.var(ddof=1))}
    variance["whole"] = float((of_weights + of_slopes).var(ddof=1))
    mean = {"mean_weights": float(of_weights.mean()), "mean_slopes": float(of_slopes.mean())}
    found: Found = {f"law_{of}": law.to_dataset().assign_attrs(layer=depth // 2) for of, law in laws.items()}
    return found | {"parts": xarray.Dataset(attrs=variance | mean | {"depth": depth})}


def errors(found: Found) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Of each cell: how far the prediction is off beyond 3 standard errors of the count, and its standard error."""
    of = found["probabilities"]
    networks = of.attrs["networks"]
    likely = (networks * of["counted"] + 1) / (networks + 2)
    error = np.sqrt(likely * (1 - likely) / networks)
    return (abs(of["predicted"] - of["counted"]) - 3 * error).clip(0), error


def judge(found: Found) -> list[Verdict]:
    """Read the verdict off the numbers."""
    of, (off, error) = found["probabilities"], errors(found)
    gap = of["predicted"] - of["counted"]
    by_width = off.max(["n", "depth"])
    good = [int(width) for width in of["width"].values if bool((by_width.sel(width=slice(width, None)) < CLOSE).all())]
    one = of.sel(width=1)
    apart = float((abs(one["chain"] - one["counted"]) / (2**0.5 * error.sel(width=1))).max())
    chains_agree = apart < 4
    worst = ", ".join(f"{float(abs(gap).sel(width=w).max()):.3f} at width {w}" for w in of["width"].values)
    parts = found["parts"].attrs
    why = (
        f"The chain's joint law gives width 1: there the weights carry ln g down ({parts['mean_weights']:.0f} ± "
        f"{parts['weights'] ** 0.5:.0f}, the slopes {parts['mean_slopes']:+.0f} ± {parts['slopes'] ** 0.5:.0f}, "
        f"n = 2, {parts['depth']} layers). "
    )
    why += (
        f"A normal law of ln g² with the moments that theory gives at the width is enough from width {good[0]} on; "
        "below, its tail is too light." if good else "A normal law of ln g² is off at every width."
    )  # fmt: skip
    return [
        Verdict(
            "B17", "a probabilistic model of how often vanishing happens",
            verdict_of(chains_agree and len(good) == of.sizes["width"], imprecise=bool(good) and chains_agree),
            f"predicted and counted differ by at most {worst} (standard errors up to {float(error.max()):.3f}), chain "
            f"and networks of width 1 by {apart:.1f} standard errors",
            int(of.attrs["networks"]), why,
        )
    ]  # fmt: skip


def draw(figure: Figure, found: Found) -> None:
    """Probabilities over depth for each n, and both joint laws."""
    of = found["probabilities"]
    count = of.sizes["n"]
    figure.set_size_inches(3.1 * (count + 2), 4.4)
    panels = figure.subplots(1, count + 2)
    for axes, n in zip(panels, of["n"].values, strict=False):
        _draw_probabilities(axes, of.sel(n=n), errors(found)[1].sel(n=n))
    panels[0].set_ylabel(f"probability that the gradient vanishes (< {of.attrs['below']:g})")
    panels[1].legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 0.04))
    for axes, name in zip(panels[count:], ("x", "w"), strict=True):
        _draw_law(axes, found[f"law_{name}"], name)
    figure.suptitle("How often the gradient of tanh(nx) vanishes: counted (points), and if ln g² were normal (lines)")
    figure.tight_layout()


def _draw_probabilities(axes: Axes, of: xarray.Dataset, error: xarray.DataArray) -> None:
    for width, colour, marker in zip(of["width"].values, COLOURS, MARKERS, strict=False):
        one, e = of.sel(width=width), error.sel(width=width)
        axes.plot(one["depth"], one["predicted"], color=colour, linewidth=1.5)
        style = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 6}
        axes.errorbar(one["depth"], one["counted"], e, label=f"width {width}", **style)
    axes.set(xlabel="layers", ylim=(-0.03, 1.03))
    axes.set_title(
        f"tanh({float(of['n']):g}x), σ_w = 1" if float(of["n"]) != 1 else "tanh, σ_w = 1", fontsize=10, loc="left"
    )
    axes.grid(color="0.92", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_law(axes: Axes, law: xarray.Dataset, name: str) -> None:
    density = law["density"].transpose("log_g", name)
    axes.pcolormesh(density[name], density["log_g"] / math.log(10), density, cmap="Blues", norm="log", rasterized=True)
    axes.axhline(-2, color=COLOURS[0], linestyle="--", linewidth=1)
    axes.set(xlabel=f"{name} of layer {law.attrs['layer']}", ylabel="log₁₀ of the whole gradient g")
    axes.set_title(f"Joint law of ({name}, g): width 1, n = 2", fontsize=10, loc="left")


main = main_of("vanishing_probability", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
