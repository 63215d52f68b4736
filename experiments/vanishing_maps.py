"""From which initial weights do gradients vanish, and does training lead out of there?

Claim B18, from an answer to a question on tanh(nx) as an activation (Esmailian): one could "come up with a
deterministic model (map) that tells which initial points (initial values of weights) lead to gradient vanishing;
possibly accompanied by trajectories from initial to final values".

Two maps of tanh, 50 layers: of wide networks over (σ_w, σ_b), and of the chain of width 1 with the same w and b in all
layers, from x₀ = 1. On the second, paths of gradient descent: the chain is trained to return half of its input, for
x₀ = -1, -1/2, 1/2 and 1, by the mean squared error in w and b. The map tells if wide networks go from vanishing over
surviving to exploding as σ_w grows, with the edge of chaos where they survive; and it tells of the final weights too if
what begins vanished ends vanished and what begins surviving survives. Beside them, how often random chains vanish.

    python -m experiments.vanishing_maps

prints the verdict and writes vanishing_maps.png, in half a minute. The chain survives on 1.8% of the square; trained,
all 76 surviving chains and all but one of 501 vanished ones end vanished.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Found, Verdict, main_of, verdict_of

BELOW, ABOVE = 1e-3, 1e3
SCALES = (1.0, 2.0, 5.0)
COLOURS, DASHES = ("#0072b2", "#d55e00", "#009e73"), ("-", "--", "-.")
RATE, LONGEST = 0.05, 1.0  # of gradient descent, and the norm to which a gradient is cut


@dataclasses.dataclass(frozen=True)
class MapsConfig:
    """Sizes of the maps, the sample and the training."""

    depth: int = 50
    """Layers."""
    grid: int = 301
    """Points per axis of the maps."""
    networks: int = 10_000
    """Random chains per n."""
    starts: int = 16
    """Paths of training start at twice as many values of w as this, and as many of b, and where the chain survives."""
    steps: int = 2000
    """Steps of gradient descent."""
    out: Path = Path("experiments/figures")
    """Folder of the dataset and the figure."""


FULL = MapsConfig()
SMOKE = MapsConfig(depth=6, grid=7, networks=40, starts=3, steps=20)


def run(config: MapsConfig) -> Found:
    """Return the map over (sigma_w, sigma_b), that over (w, b), the paths on it, and probabilities over n and depth."""
    bounds = {"depth": config.depth, "below": BELOW, "above": ABOVE}
    across, up = np.linspace(0.5, 3.0, config.grid), np.linspace(0.0, 1.5, config.grid)
    w, b = np.linspace(-3.0, 3.0, config.grid), np.linspace(-1.5, 1.5, config.grid)
    weights = jg.initial_map("tanh", w, b, **bounds)
    return {
        "scales": jg.outcome_map("tanh", across, up, **bounds),
        "weights": weights,
        "paths": paths(weights, config),
        "chances": jg.chain_probabilities(
            jax.random.key(0), "tanh", jg.Init(1.0), scales=SCALES, networks=config.networks, **bounds
        ),
    }


def paths(weights: xarray.Dataset, config: MapsConfig) -> xarray.Dataset:
    """Gradient descent from a grid of (w, b), and from places where the chain survives; log gradients at both ends."""
    grid = np.meshgrid(np.linspace(-2.8, 2.8, 2 * config.starts), np.linspace(-1.4, 1.4, config.starts))
    survives = np.argwhere(weights["outcome"].transpose("w", "b").values == "survives")
    survives = survives[:: max(1, len(survives) // (4 * config.starts))]
    there = np.stack([weights[name].values[survives[:, place]] for place, name in enumerate(("w", "b"))], axis=1)
    starts = np.concatenate([np.stack([values.ravel() for values in grid], axis=1), there])
    with jax.enable_x64(True):
        one = jax.vmap(lambda start: descend(start, config.depth, config.steps))
        path, loss, gradient = jax.tree.map(np.asarray, jax.jit(one)(jnp.asarray(starts)))
    kept = np.unique(np.round(np.geomspace(1, config.steps, 60)).astype(int)) - 1
    return xarray.Dataset(
        {
            "path": (("start", "step", "parameter"), path[:, kept]),
            "loss": (("start", "step"), loss[:, kept]),
            "log_gradient": (("start", "end"), gradient),
        },
        coords={"step": kept, "parameter": ["w", "b"], "end": ["initial", "final"]},
    )


def descend(start: Array, depth: int, steps: int) -> Any:
    """The path (steps, 2) of (w, b), its losses, and ln |dx_L/dx_0| at x₀ = 1 before and after."""
    inputs = jnp.array([-1.0, -0.5, 0.5, 1.0])

    def output(parameters: Array, x: Array) -> Array:
        layer = lambda x, _: (jnp.tanh(parameters[0] * x + parameters[1]), None)
        return jax.lax.scan(layer, x, None, length=depth)[0]

    def step(parameters: Array, _: None) -> Any:
        error = lambda parameters: jnp.mean((output(parameters, inputs) - inputs / 2) ** 2)
        loss, slope = jax.value_and_grad(error)(parameters)
        moved = parameters - RATE * slope * jnp.minimum(1.0, LONGEST / (jnp.linalg.norm(slope) + 1e-300))
        return moved, (parameters, loss)

    final, (path, loss) = jax.lax.scan(step, start, None, length=steps)
    gradient = lambda parameters: jnp.log(jnp.abs(jax.grad(output, argnums=1)(parameters, jnp.array(1.0))))
    return path, loss, jnp.stack([gradient(start), gradient(final)])


def judge(found: Found) -> list[Verdict]:
    """Read the verdict off the maps and the paths."""
    wide, tied = (
        {name: float((found[which]["outcome"] == name).mean()) for name in ("vanishes", "survives", "explodes")}
        for which in ("scales", "weights")
    )
    low, high = math.log(BELOW), math.log(ABOVE)
    log_g = found["paths"]["log_gradient"]
    initial, final = (log_g.sel(end=end) for end in ("initial", "final"))
    vanished, survived = initial < low, (initial >= low) & (initial <= high)
    back = int((vanished & (final >= low)).sum())
    kept = int((survived & (final >= low) & (final <= high)).sum())
    stays = back <= 0.05 * int(vanished.sum()) and kept >= 0.95 * int(survived.sum())
    maps = min(wide.values()) > 0 and _in_order(found["scales"]) and 0 < tied["survives"] < 1
    why = (
        "Both maps are exact. Wide networks vanish below the edge of chaos and explode above it; the chain with one w "
        "and b survives only along thin curves. "
        if maps
        else "The maps do not tell vanishing, surviving and exploding apart. "
    )
    why += (
        "Training stays on the side where it began."
        if stays
        else "But it does not tell of the final weights: the last layers have their gradient whatever became of the "
        f"first, so training moves w and b far. It takes {int(survived.sum()) - kept} of the {int(survived.sum())} "
        f"surviving chains into the vanished region, and {back} of {int(vanished.sum())} out of it."
    )
    return [
        Verdict(
            "B18", "a deterministic map of which initial weights lead to vanishing",
            verdict_of(maps and stays, imprecise=maps),
            f"wide tanh, by area: {_parts(wide)}; tied chain: {_parts(tied)} (exact); after gradient descent {back} of "
            f"{int(vanished.sum())} vanished starts no longer are, and {kept} of {int(survived.sum())} surviving ones "
            "still survive",
            0, why,
        )
    ]  # fmt: skip


def _in_order(scales: xarray.Dataset) -> bool:
    """Whether each row goes from vanishing over surviving to exploding, and the edge of chaos survives."""
    names = scales["outcome"].transpose("sigma_w", "sigma_b").values
    grown = np.select([names == "vanishes", names == "survives", names == "explodes"], [0, 1, 2], default=-1)
    edges = {sigma_b: jg.edge_of_chaos("tanh", sigma_b=sigma_b).init.sigma_w for sigma_b in (0.1, 0.5, 1.0)}
    at_edge = [scales["outcome"].sel(sigma_w=w, sigma_b=b, method="nearest") == "survives" for b, w in edges.items()]
    return bool((grown >= 0).all() and (np.diff(grown, axis=0) >= 0).all() and all(at_edge))


def _parts(shares: dict[str, float]) -> str:
    return ", ".join(f"{100 * share:.1f}% {name}" for name, share in shares.items())


def draw(figure: Figure, found: Found) -> None:
    """Left and middle the maps, paths of training on the second, right the probabilities over depth."""
    figure.set_size_inches(14.5, 4.9)
    panels = figure.subplots(1, 3)
    jg.draw_outcomes(panels[0], found["scales"])
    jg.draw_outcomes(panels[1], found["weights"])
    _draw_paths(panels[1], found["paths"])
    _draw_chances(panels[2], found["chances"])
    figure.suptitle("Which initializations lose the gradient, where training takes them, and how often random ones do")
    figure.tight_layout()


def _draw_paths(axes: Axes, paths: xarray.Dataset) -> None:
    for start in range(0, paths.sizes["start"], 3):
        w, b = (paths["path"].isel(start=start).sel(parameter=name).values for name in ("w", "b"))
        axes.plot(w, b, color="black", linewidth=0.5, alpha=0.6)
        axes.plot(w[-1:], b[-1:], "o", color="#e69f00", markersize=4, mec="black", mew=0.4, zorder=5)
    axes.set(xlim=(-3, 3), ylim=(-1.5, 1.5))
    axes.set_title(axes.get_title(loc="left") + "\nlines: training, from its start to the dot", fontsize=10, loc="left")


def _draw_chances(axes: Axes, chances: xarray.Dataset) -> None:
    for n, colour, dash in zip(chances["scale"].values, COLOURS, DASHES, strict=True):
        one = chances.sel(scale=n)
        p, error = one["vanishing"].values, one["vanishing_error"].values
        axes.plot(one["layer"], p, color=colour, linestyle=dash, linewidth=2, label=f"n = {n:g}")
        axes.fill_between(one["layer"], p - error, p + error, color=colour, alpha=0.3, linewidth=0)
    axes.set(xlabel="layers", ylabel=f"P(r < {BELOW:g})", ylim=(-0.02, 1.02))
    title = "tanh(nx), width 1, fresh w ~ N(0, 1) in every layer\nhow often the gradient vanishes"
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, length=2)
    axes.legend(fontsize=9, loc="lower right")


main = main_of("vanishing_maps", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
