"""What becomes of two inputs, and of a circle of inputs, on their way through a random tanh network?

Poole, Lahiri, Raghu, Sohl-Dickstein and Ganguli, Exponential expressivity in deep neural networks through transient
chaos, 2016, claim of wide networks:

- the correlation of two inputs follows the map C to a fixed point: 1 in the ordered phase, c* < 1 in the chaotic one,
  from above and from below;
- in the chaotic phase the length of a curve grows by √χ⊥ per layer, exponentially, and shrinks so in the ordered one;
- in the chaotic phase its curvature κ converges, as κ² → 3χ₂/χ⊥² + κ²/χ⊥ with χ₂ = σ_w² E φ''²; in the ordered phase it
  grows.

    python -m experiments.transient_chaos

prints the verdicts and writes transient_chaos.nc and transient_chaos.png, in half a minute.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

COLOURS = {1.0: "#0072b2", 2.5: "#e69f00", 4.0: "#d55e00"}  # by σ_w
PAPER = "Poole et al. 2016"
NEAR = 0.02  # relative: what is of order 1/width adds to sampling errors


@dataclasses.dataclass(frozen=True)
class ChaosConfig:
    """Sizes of the networks; σ_b is 0.3, and σ_w 1, 2.5 and 4."""

    width: int = 1000
    """Neurons per layer."""
    depth: int = 10
    """Layers, for the circle."""
    further: int = 30
    """Layers, for pairs of inputs."""
    seeds: int = 16
    """Networks."""
    points: int = 64
    """Places of the circle at which it is measured."""
    drawn: int = 1200
    """Places of the circle that is drawn."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = ChaosConfig()
SMOKE = ChaosConfig(width=32, depth=4, further=4, seeds=2, points=8, drawn=8)


def run(config: ChaosConfig) -> dict[str, xarray.Dataset]:
    """Return correlations and the lengths and curvatures of circles, measured and of theory, and a circle to draw."""
    cosines = (-0.5, 0.0, 0.5, 0.9, 0.99)
    sizes: dict[str, Any] = dict(
        width=config.width, depth=config.further, seeds=config.seeds, sigma_b=0.3, statistics="correlation"
    )
    pairs = jg.sweep(jg.SweepConfig("tanh", tuple(COLOURS), input_correlation=cosines, **sizes)).isel(activation=0)
    inits = {sigma_w: jg.Init(sigma_w, 0.3) for sigma_w in COLOURS}
    predicted = [
        [jg.mean_field("tanh", init, depth=config.further, correlation=c)["correlation"].values for c in cosines]
        for init in inits.values()
    ]
    fixed = [jg.fixed_point("tanh", init) for init in inits.values()]
    measured = _measured(config, [point.q for point in fixed])
    curvature = [_curvatures(p.q, p.chi_perp, sigma_w, config.depth) for p, sigma_w in zip(fixed, COLOURS, strict=True)]
    names = {"sigma_w": list(COLOURS)}
    layers = np.arange(config.depth)
    length = [np.log(2 * np.pi * math.sqrt(p.q)) + layers * math.log(p.chi_perp) / 2 for p in fixed]
    correlation = pairs["correlation"].sel(gain=list(COLOURS), method="nearest").rename(gain="sigma_w")
    return {
        "pairs": xarray.Dataset({"correlation": correlation.reset_coords(drop=True).assign_coords(names)}).assign(
            theory=(("sigma_w", "input_correlation", "layer"), predicted), fixed=("sigma_w", [p.c for p in fixed])
        ),
        "circle": xarray.Dataset(
            {
                "log_length": (("sigma_w", "seed", "layer"), measured[0]),
                "log_curvature": (("sigma_w", "seed", "layer"), measured[1]),
                "length_theory": (("sigma_w", "layer"), length),
                "curvature_theory": (("sigma_w", "layer"), curvature),
                "chi_perp": ("sigma_w", [p.chi_perp for p in fixed]),
            },
            names | {"layer": layers + 1},
        ),
        "drawn": _projected(config, fixed[-1].q),
    }


def _layers(config: ChaosConfig, points: int, key: jax.Array, sigma_w: jax.Array, q: jax.Array) -> jax.Array:
    """Pre-activations of a circle, and their first two derivatives along it; (layer, 3, points, width)."""
    angle, width = jnp.linspace(0, 2 * jnp.pi, points, endpoint=False), config.width
    first, *keys = jax.random.split(key, config.depth)
    plane = jnp.linalg.qr(jax.random.normal(first, (width, 2)))[0].T * jnp.sqrt(width * q)
    circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1) @ plane
    ahead = jnp.stack([-jnp.sin(angle), jnp.cos(angle)], axis=1) @ plane

    def layer(z, key):
        place, speed, turning = z
        h = jnp.tanh(place)
        slope = 1 - h * h
        stacked = jnp.stack([h, slope * speed, slope * turning - 2 * h * slope * speed**2])
        weights, biases = jax.random.split(key)
        out = stacked @ (sigma_w * width**-0.5 * jax.random.normal(weights, (width, width)))
        out = out.at[0].add(0.3 * jax.random.normal(biases, (1, width)))
        return out, out

    start = jnp.stack([circle, ahead, -circle])
    return jnp.concatenate([start[None], jax.lax.scan(layer, start, jnp.stack(keys))[1]])


def _measured(config: ChaosConfig, lengths: Sequence[float]) -> list[np.ndarray]:
    """Logarithms of length / √width and of rms curvature × √width; (σ_w, seed, layer)."""

    def measure(given):
        z = _layers(config, config.points, *given)
        vv, aa, va = ((z[:, i] * z[:, j]).mean(axis=-1) for i, j in ((1, 1), (2, 2), (1, 2)))
        squared = ((vv * aa - va**2) / vv**3).mean(axis=-1)
        return jnp.log(2 * jnp.pi * jnp.sqrt(vv).mean(axis=-1)), jnp.log(squared) / 2

    count = len(lengths) * config.seeds
    pairs = np.repeat(np.array([[*COLOURS], lengths]), config.seeds, axis=1)
    found = jax.lax.map(measure, (jax.random.split(jax.random.key(1), count), *jnp.asarray(pairs, jnp.float32)))
    return [np.asarray(values).reshape(len(lengths), config.seeds, -1) for values in found]


def _curvatures(q: float, chi_perp: float, sigma_w: float, depth: int) -> list[float]:
    """Logarithms of κ of theory over the layers, from a circle of squared radius q."""
    z = np.linspace(-9, 9, 4001)
    slopes = -2 * np.tanh(q**0.5 * z) / np.cosh(q**0.5 * z) ** 2
    chi_2 = sigma_w**2 * float(np.sum(slopes**2 * np.exp(-z * z / 2)) / np.sum(np.exp(-z * z / 2)))
    squares = [1 / q]
    for _ in range(depth - 1):
        squares.append(3 * chi_2 / chi_perp**2 + squares[-1] / chi_perp)
    return [math.log(square) / 2 for square in squares]


def _projected(config: ChaosConfig, q: float) -> xarray.Dataset:
    """A circle in one network of the largest σ_w, in the plane of each layer in which it extends furthest."""
    z = np.asarray(_layers(config, config.drawn, jax.random.key(2), jnp.float32(max(COLOURS)), jnp.float32(q))[:, 0])
    shown = sorted({0, min(3, config.depth - 1), min(6, config.depth - 1)})
    flat = []
    for layer in shown:
        flat.append(z[layer] @ np.linalg.eigh(np.cov(z[layer].T))[1][:, -2:])
    return xarray.Dataset(
        {"place": (("layer", "point", "axis"), np.array(flat, np.float32))}, {"layer": np.array(shown) + 1}
    )


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """Correlations, lengths and curvatures."""
    return [_correlations(found["pairs"]), _lengths(found["circle"]), _bent(found["circle"])]


def _correlations(pairs: xarray.Dataset) -> Verdict:
    mean, error = _over_seeds(pairs["correlation"])
    off = abs(mean - pairs["theory"])  # NaN at layer 0
    follows = float((off - 4 * error).max()) < NEAR
    last, fixed, depth = mean.isel(layer=-1), pairs["fixed"], pairs.sizes["layer"] - 1
    settled = bool((abs(last - fixed) < 0.1).all())
    apart = bool((fixed[0] > 0.999) & (fixed[1:] < 0.9).all())
    rows = zip(pairs["sigma_w"].values, last.transpose("sigma_w", ...).values, fixed.values, strict=True)
    words = [f"σ_w = {s:g}: {row.min():.3f} to {row.max():.3f}, c* = {c:.3f}" for s, row, c in rows]
    number = (
        f"cosines of -0.5 to 0.99 after {depth} layers: {'; '.join(words)}; never farther from C than {off.max():.3f}"
    )
    right = follows and settled and apart
    why = (
        "Order makes inputs alike; chaos makes them unlike, all pairs to one angle, however near they begin."
        if right
        else "The correlations are not those of the map."
    )
    says = "correlations follow the map C to 1 in the ordered phase, to c* < 1 in the chaotic one"
    return Verdict(PAPER, says, verdict_of(right, imprecise=follows), number, pairs.sizes["seed"], why)


def _lengths(circle: xarray.Dataset) -> Verdict:
    layers = circle.sizes["layer"] - 1
    slope, error = _over_seeds((circle["log_length"][..., -1] - circle["log_length"][..., 0]) / layers)
    growth: Any = np.exp(slope)
    root: Any = np.sqrt(circle["chi_perp"])
    near, grows = bool((abs(slope - np.log(root)) < 4 * error + NEAR).all()), bool(((growth > 1) == (root > 1)).all())
    rows = zip(circle["sigma_w"].values, growth.values, (growth * error).values, root.values, strict=True)
    number = "; ".join(f"σ_w = {s:g}: × {g:.4f} ± {e:.4f} per layer, √χ⊥ = {r:.4f}" for s, g, e, r in rows)
    total = float(growth[-1] ** layers)
    why = (
        f"Each layer stretches a piece of the curve by √χ⊥: the most chaotic network by {total:.0f} in {layers} layers."
        if near
        else "The growth is not √χ⊥."
    )
    says = "the length of a curve grows by √χ⊥ per layer, exponentially in the chaotic phase"
    return Verdict(PAPER, says, verdict_of(near and grows, imprecise=grows), number, circle.sizes["seed"], why)


def _bent(circle: xarray.Dataset) -> Verdict:
    mean, error = _over_seeds(circle["log_curvature"])
    follows = bool((abs(mean - circle["curvature_theory"]) < 4 * error + 2 * NEAR).all())
    change, chaotic = (mean[:, -1] - mean[:, -2]).values, circle["chi_perp"].values > 1
    shape = bool((abs(change[chaotic]) < 0.1).all() and (change[~chaotic] > 0.05).all())
    last: Any = np.exp(mean[:, -1])
    theory: Any = np.exp(circle["curvature_theory"][:, -1])
    rows = zip(circle["sigma_w"].values, last.values, (last * error[:, -1]).values, theory.values, strict=True)
    number = f"κ√n in layer {circle.sizes['layer']}: "
    number += "; ".join(f"σ_w = {s:g}: {k:.3g} ± {e:.2g}, theory {t:.3g}" for s, k, e, t in rows)
    why = (
        "In chaos stretching undoes the bends that tanh makes: a long curve, equally bent everywhere. In order the "
        "curve shrinks, and so bends more sharply."
        if follows and shape
        else "The curvatures do not follow the recursion."
    )
    says = "the curvature of a curve converges in the chaotic phase and grows in the ordered one"
    return Verdict(PAPER, says, verdict_of(follows and shape, imprecise=shape), number, circle.sizes["seed"], why)


def _over_seeds(values: xarray.DataArray) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Mean and its standard error."""
    return values.mean("seed"), values.std("seed", ddof=1) / values.sizes["seed"] ** 0.5


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Above correlations, lengths and curvatures; below a circle on its way."""
    figure.set_size_inches(13, 8)
    panels = figure.subplots(2, 3)
    pairs, circle, drawn = found["pairs"], found["circle"], found["drawn"]
    for s, colour in zip(pairs["sigma_w"].values, COLOURS.values(), strict=True):
        one = pairs.sel(sigma_w=s)
        panels[0, 0].plot(
            one["layer"], one["theory"].transpose("layer", "input_correlation"), color=colour, linewidth=1.5
        )
        panels[0, 0].plot(
            one["layer"],
            one["correlation"].mean("seed").transpose("layer", "input_correlation"),
            "o",
            color=colour,
            markersize=3.5,
        )
        for axes, name in zip(panels[0, 1:], ("length", "curvature"), strict=True):
            label = f"σ_w = {s:g}, χ⊥ = {float(circle['chi_perp'].sel(sigma_w=s)):.2f}"
            axes.plot(
                circle["layer"],
                np.exp(circle[f"{name}_theory"].sel(sigma_w=s)),
                color=colour,
                linewidth=1.5,
                label=label,
            )
            mean = circle[f"log_{name}"].sel(sigma_w=s).mean("seed")
            axes.plot(circle["layer"], np.exp(mean), "o", color=colour, markersize=4)
    panels[0, 0].set(xlabel="layer", ylabel="cosine of two inputs")
    panels[0, 0].set_title("order makes inputs alike, chaos unlike")
    panels[0, 1].set(xlabel="layer", ylabel="length of the curve / √width", yscale="log")
    panels[0, 1].set_title("a circle's length grows by √χ⊥ per layer,")
    panels[0, 2].set(xlabel="layer", ylabel="rms curvature × √width", yscale="log")
    panels[0, 2].set_title("and its curvature settles, in chaos")
    for axes in panels[0]:
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 1].legend(fontsize=9, frameon=False, title="lines: theory; dots: networks", title_fontsize=9)
    for axes, layer in zip(panels[1], drawn["layer"].values, strict=False):
        place = drawn["place"].sel(layer=layer).values
        closed = np.concatenate([place, place[:1]])
        axes.plot(closed[:, 1], closed[:, 0], color=COLOURS[4.0], linewidth=0.7)
        axes.set_aspect("equal", "datalim")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("0.8")
        axes.set_title(f"the circle in layer {layer}, σ_w = 4")
    figure.suptitle(
        "Transient chaos in tanh networks, σ_b = 0.3 (below: the plane in which the curve extends furthest)",
        fontsize=12,
    )
    figure.tight_layout()


main = main_of("transient_chaos", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
