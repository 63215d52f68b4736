"""Where does a product of random matrices end, and is it saved by dividing the weights by 16?

A note on exploding and vanishing gradients claims, of layers x ← W x of width 256:

C1  "if W's elements are slightly over 1, outputs could explode"; slightly below 1 they vanish.
C2  W of standard normal numbers: x.norm() is not a number at i = 31, counting from 0.
C3  one such layer has mean 0, variance 256 and standard deviation 16.
C4  "33.3% of y will lie outside of [-16, 16]".
C5  W / 16: "problem solved, right? It seems so!", after 100 layers with the same W, as nothing is NaN.

    python -m experiments.exploding_at_layer_31

prints the verdicts and writes exploding_at_layer_31.nc and exploding_at_layer_31.png, in half a minute.

NaN comes at i = 31 in 78% of 200 networks and at 32 in the others; the norm is infinite from i = 14 or 15 on. Powers of
one W / 16 end at 5.8 times the start in the median network, and at 0.4 to 150 times in 90% of them.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

NORMAL = math.erfc(2**-0.5)  # of a normal law, outside of one standard deviation
EVENTS = ["norm is inf", "x has inf", "x has NaN"]
COLOURS = {"fixed": "#d55e00", "fresh": "#0072b2"}


@dataclasses.dataclass(frozen=True)
class ExplodingConfig:
    """Sizes of the networks."""

    width: int = 256
    """Neurons per layer."""
    depth: int = 100
    """Layers of weights / √width."""
    loops: int = 200
    """Networks of standard normal weights, that run until they are not numbers."""
    layers: int = 1000
    """Single layers whose outputs are counted."""
    seeds: int = 256
    """Networks of weights / √width."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = ExplodingConfig()
SMOKE = ExplodingConfig(width=64, depth=10, loops=4, layers=4, seeds=8)


def run(config: ExplodingConfig) -> dict[str, xarray.Dataset]:
    """Return growth per product, where the loop ends, what one layer does, and the rms under weights / √width."""
    keys = jax.random.split(jax.random.key(0), config.loops)
    ends = [np.asarray(jax.lax.map(lambda key, w=weights: _loop(key, w, config.width), keys)) for weights in COLOURS]
    keys = jax.random.split(jax.random.key(1), config.layers)
    one = np.asarray(jax.lax.map(lambda key: _layer(key, config.width), keys))
    sizes: dict[str, Any] = dict(
        width=config.width, depth=config.depth, seeds=config.seeds, inputs=1, statistics="second_moment"
    )
    fresh = jg.sweep(jg.SweepConfig("identity", (0.99, 1.0, 1.01), **sizes))
    fixed = jg.sweep(jg.SweepConfig("identity", (1.0,), weights="dense", tied=True, **sizes))
    rms = [_log10_rms(fixed, 1.0), _log10_rms(fresh, 1.0)]
    slopes = [_log10_rms(fresh, gain)[:, -1] / config.depth for gain in (0.99, 1.01)]
    equal = [[_growth(np.full((n, n), entry)) for entry in (0.99, 1.01)] for n in (1, config.width)]
    names = {"weights": list(COLOURS)}
    return {
        "products": xarray.Dataset(
            {"equal": (("width", "entry"), equal), "log10_random": (("entry", "seed"), slopes)},
            coords={"width": [1, config.width], "entry": [0.99, 1.01]},
        ),
        "loop": xarray.Dataset({"first": (("weights", "seed", "event"), ends)}, names | {"event": EVENTS}),
        "layer": xarray.Dataset({name: ("seed", one[:, i]) for i, name in enumerate(("mean", "square", "outside"))}),
        "divided": xarray.Dataset({"log10_rms": (("weights", "seed", "layer"), rms)}, names),
    }


def _loop(key: jax.Array, weights: str, width: int) -> jax.Array:
    """The index, from 0, of the product after which each of `EVENTS` is first true."""
    first, second = jax.random.split(key)

    def product(x, i):
        x = jax.random.normal(second if weights == "fixed" else jax.random.fold_in(second, i), (width, width)) @ x
        nan, finite = jnp.isnan(x).any(), jnp.isfinite(x).all()
        return x, jnp.stack([~jnp.isfinite(jnp.sqrt(jnp.sum(x * x))), ~finite, nan])

    seen = jax.lax.scan(product, jax.random.normal(first, (width,)), jnp.arange(80))[1]
    return jnp.argmax(seen, axis=0)


def _layer(key: jax.Array, width: int) -> jax.Array:
    """Mean, mean square and share outside one standard deviation, √width, of y = W x, all standard normal."""
    first, second = jax.random.split(key)
    y = jax.random.normal(second, (width, width)) @ jax.random.normal(first, (width,))
    return jnp.stack([y.mean(), jnp.square(y).mean(), (jnp.abs(y) > width**0.5).mean()])


def _log10_rms(dataset: xarray.Dataset, gain: float) -> np.ndarray:
    return np.log10(dataset["second_moment"].sel(gain=gain, method="nearest").values[0]) / 2


def _growth(matrix: np.ndarray, products: int = 20) -> float:
    """By what the norm of a vector is multiplied in each of some products with one matrix."""
    x = np.linspace(1.0, 2.0, len(matrix))
    return float((np.linalg.norm(np.linalg.matrix_power(matrix, products) @ x) / np.linalg.norm(x)) ** (1 / products))


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """C1 to C5."""
    return [_products(found["products"]), _ends(found["loop"]), *_one_layer(found["layer"]), _saved(found["divided"])]


def _products(products: xarray.Dataset) -> Verdict:
    (low, high), (wide_low, wide_high) = products["equal"].values
    slopes, n = products["log10_random"].values, int(products["width"][-1])
    random = 10 ** slopes.mean(axis=1)
    error = random * math.log(10) * slopes.std(axis=1, ddof=1) / slopes.shape[1] ** 0.5
    scalar, wide = low < 1 < high, wide_low < 1 < wide_high
    number = (
        f"elements 0.99 and 1.01: × {low:.2f} and × {high:.2f} per layer at width 1, × {wide_low:.1f} and "
        f"× {wide_high:.1f} at width {n}; random ones of std 0.99/√{n} and 1.01/√{n}: × {random[0]:.4f} ± "
        f"{error[0]:.4f} and × {random[1]:.4f} ± {error[1]:.4f}"
    )
    why = "The elements alone say whether products grow."
    if scalar and not wide:
        why = (
            "It is so for numbers. Of a matrix the elements say it only together with the width: what counts is "
            "what becomes of a typical vector, with random elements of mean 0 about their std × √width."
        )
    says = "products of W explode if its elements are above 1 and vanish if below"
    return Verdict("C1", says, verdict_of(scalar and wide, imprecise=scalar), number, slopes.shape[1], why)


def _ends(loop: xarray.Dataset) -> Verdict:
    low, high = (getattr(loop["first"], end)("seed").transpose("event", "weights").values for end in ("min", "max"))
    span = [[f"{a}–{b}" for a, b in zip(*each, strict=True)] for each in zip(low, high, strict=True)]
    fixed = loop["first"].sel(event="x has NaN", weights="fixed")
    share, near = float((fixed == 31).mean()), float((abs(fixed - 31) <= 1).mean())
    number = (
        f"first NaN at i = 31 in {share:.0%} of networks and at 30 to 32 in {near:.0%}; at {span[2][0]} with one W for "
        f"all layers, as in the note, and at {span[2][1]} with a fresh W per layer"
    )
    early = "long before" if high[0, 0] < low[2, 0] - 5 else "no earlier than that"
    why = (
        f"Counted from 0: product {float(fixed.median()) + 1:g}. A layer multiplies by 16 = 2⁴, and float32 ends at "
        f"2¹²⁸. The norm, a root of a sum of squares, overflowed {early}, at i = {span[0][0]}, to an infinity that "
        f"isnan does not see; x itself has its first infinity at i = {span[1][0]}."
    )
    says = "N(0, 1) weights, width 256: not a number at layer 31"
    return Verdict("C2", says, verdict_of(share > 0.5, imprecise=near > 0.5), number, int(fixed.size), why)


def _one_layer(layer: xarray.Dataset) -> list[Verdict]:
    seeds, names = layer.sizes["seed"], ("mean", "square", "outside")
    mean, square, outside = (float(layer[name].mean()) for name in names)
    error = [float(layer[name].std(ddof=1)) / seeds**0.5 for name in names]
    fits = abs(mean) < 4 * error[0] and abs(square - 256) < 4 * error[1]
    number = f"mean {mean:.3f} ± {error[0]:.3f}, variance {square:.1f} ± {error[1]:.1f}, std {square**0.5:.2f}"
    why = (
        "Each output is a sum of 256 products of variance 1." if fits else "An output has not the moments of that sum."
    )
    third, normal = (abs(outside - share) < 4 * error[2] for share in (0.333, NORMAL))
    of_normal = f"{NORMAL:.2%} of a normal law lie more than one standard deviation from its mean"
    share = f"{of_normal}, and the outputs are as good as normal." if normal else f"{of_normal}; not of this one."
    return [
        Verdict("C3", "one layer: mean 0, variance 256, std 16", verdict_of(fits), number, seeds, why),
        Verdict("C4", "33.3% outside ±16", verdict_of(third), f"{outside:.2%} ± {error[2]:.2%} outside", seeds, share),
    ]


def _saved(divided: xarray.Dataset) -> Verdict:
    rms = divided["log10_rms"].isel(layer=-1)
    ends = 10 ** rms.quantile([0.5, 0.05, 0.95], "seed").transpose("weights", "quantile").values
    fixed, fresh = (float((abs(rms.sel(weights=name)) < 1).mean()) for name in COLOURS)
    words = ["× {:.3g} in the median network, × {:.3g} to × {:.3g} in 90% of them".format(*each) for each in ends]
    number = (
        f"rms of x after {divided.sizes['layer'] - 1} layers with one W: {words[0]}; with a fresh W per layer: "
        f"{words[1]}; kept within a factor of 10: {fixed:.0%} and {fresh:.0%}"
    )
    why = "One W for all layers keeps the signal as fresh ones do."
    if fixed <= 0.95:
        why = (
            "Not to be NaN is little. Powers of one random matrix grow as its largest eigenvalue, at width 256 mostly "
            "a few percent above 1; a network, with another W in every layer, is kept."
        )
    says = "weights / 16, one W for all layers: problem solved over 100 layers"
    return Verdict("C5", says, verdict_of(fixed > 0.95, imprecise=fresh > 0.95), number, rms.sizes["seed"], why)


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Left the way to NaN, then the rms under weights / 16 over depth, and where it ends."""
    figure.set_size_inches(13.5, 4.8)
    way, depth, ends = figure.subplots(1, 3, width_ratios=(1.25, 1.4, 0.7))
    first = found["loop"]["first"]
    last = int(first.max())
    way.plot(range(last + 1), [(i + 1) * math.log10(16) for i in range(last + 1)], color="black", linewidth=2)
    way.axhline(math.log10(3.4e38), color="0.5", linewidth=1, linestyle="--")
    way.text(0, math.log10(3.4e38) + 0.6, "float32 ends, 3.4 × 10³⁸", fontsize=9, color="0.3")
    for event, colour, height in zip(EVENTS, ("#e69f00", "#d55e00", "#0072b2"), (31, 24, 14), strict=True):
        low, high = int(first.sel(event=event).min()), int(first.sel(event=event).max())
        way.axvspan(low - 0.4, high + 0.4, color=colour, alpha=0.45, linewidth=0)
        way.text(min(low, 30) - 0.8, height, f"{event}\ni = {low}–{high}", color="black", fontsize=9, ha="right")
    way.set(xlabel="i, products counted from 0", ylabel="log₁₀ of the rms of x", ylim=(0, 43))
    way.set_title("weights N(0, 1): × 16 per layer until float32 ends;\nthe norm, a sum of squares, ends at half way")
    rms = found["divided"]["log10_rms"]
    bins = np.linspace(float(rms.isel(layer=-1).min()) - 0.01, float(rms.isel(layer=-1).max()) + 0.01, 41)
    for weights, label in {"fixed": "one W for all layers", "fresh": "a fresh W per layer"}.items():
        values = rms.sel(weights=weights).transpose("layer", "seed").values
        depth.plot(values[:, :60], color=COLOURS[weights], linewidth=0.5, alpha=0.6)
        depth.plot(np.median(values, axis=1), color=COLOURS[weights], linewidth=3, label=f"{label}, median")
        ends.hist(values[-1], bins, orientation="horizontal", color=COLOURS[weights], alpha=0.65)
    depth.legend(fontsize=9, loc="upper left", frameon=False)
    depth.set(xlabel="layer", ylabel="log₁₀ of the rms of x")
    depth.set_title("weights / 16: never NaN, but with one W\nfor all layers the signal mostly grows")
    ends.set(xlabel="networks", ylim=depth.get_ylim())
    ends.set_title(f"where {rms.sizes['seed']} of each end")
    for axes in (way, depth, ends):
        axes.title.set_fontsize(11)
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()


main = main_of("exploding_at_layer_31", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
