"""How often do gradients vanish, and from which initial weights?

Claim: in wide tanh networks of 50 layers the gradient vanishes, survives and explodes, in this order, as σ_w grows, at
every σ_b; the edge of chaos lies where it survives. In a chain of width 1 with the same w and b in all 50 layers, from
x₀ = 1, it explodes at no point of the grid, survives on under a tenth of it, in thin curves, and vanishes elsewhere.
And with fresh weights in every layer, σ_w = 1, it vanishes in over 90% of chains of tanh(nx) for n = 1, 2 and 5; n = 2
lasts longest, and n = 5 is there within 5 layers.

    python -m experiments.vanishing_maps

prints its table, says whether the claim holds, and writes vanishing_maps.png, in seconds.
"""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import tyro
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.cli.arguments import one_line
from jaxgain.figures.outcomes import draw_outcomes
from jaxgain.runs.files import output_folder, save_figure

PROGRAM = "python -m experiments.vanishing_maps"
BELOW, ABOVE = 1e-3, 1e3
SCALES = (1.0, 2.0, 5.0)
COLOURS, DASHES = ("#0072b2", "#d55e00", "#009e73"), ("-", "--", "-.")


@dataclasses.dataclass(frozen=True)
class MapsConfig:
    """Sizes of the maps and the sample; the claim is about the defaults."""

    depth: int = 50
    """Layers."""
    grid: int = 301
    """Points per axis of the maps."""
    networks: int = 10_000
    """Random chains per n."""
    out: Path = Path("experiments/figures")
    """Folder for vanishing_maps.png, made where missing."""


SMOKE = MapsConfig(depth=6, grid=7, networks=40)


def run(config: MapsConfig) -> dict[str, xarray.Dataset]:
    """Return the map over (sigma_w, sigma_b), the map over (w, b), and the probabilities over n and depth."""
    bounds = {"depth": config.depth, "below": BELOW, "above": ABOVE}
    across, up = np.linspace(0.5, 3.0, config.grid), np.linspace(0.0, 1.5, config.grid)
    w, b = np.linspace(-3.0, 3.0, config.grid), np.linspace(-1.5, 1.5, config.grid)
    key, init = jax.random.key(0), jg.Init(1.0)
    return {
        "scales": jg.outcome_map("tanh", across, up, **bounds),
        "weights": jg.initial_map("tanh", w, b, **bounds),
        "chances": jg.chain_probabilities(key, "tanh", init, scales=SCALES, networks=config.networks, **bounds),
    }


def judge(found: dict[str, xarray.Dataset]) -> list[tuple[str, bool]]:
    """Return what was found, and whether it is as claimed."""
    wide, tied = (
        {name: float((found[which]["outcome"] == name).mean()) for name in ("vanishes", "survives", "explodes")}
        for which in ("scales", "weights")
    )
    judged = [
        (f"wide tanh, by area: {_parts(wide)}", min(wide.values()) > 0 and _in_order(found["scales"])),
        (f"tied chain, by area: {_parts(tied)}", tied["explodes"] == 0.0 and 0.0 < tied["survives"] < 0.1),
    ]
    chances = found["chances"]
    last = chances.isel(layer=-1)
    for n in chances["scale"].values:
        one, early = last.sel(scale=n), float(chances["vanishing"].sel(scale=n, layer=5))
        chance, error = float(one["vanishing"]), float(one["vanishing_error"])
        words = f"tanh({n:g}x), random chain: P(vanish) {early:.4f} by layer 5, {chance:.4f} ± {error:.4f} at the end"
        lasts = chance == float(last["vanishing"].min())
        judged.append((words, chance > 0.9 and lasts == (n == 2) and (early > 0.9) == (n == 5)))
    return judged


def _in_order(scales: xarray.Dataset) -> bool:
    """Whether each row goes from vanishing over surviving to exploding, and the edge of chaos survives."""
    names = scales["outcome"].transpose("sigma_w", "sigma_b").values
    grown = np.select([names == "vanishes", names == "survives", names == "explodes"], [0, 1, 2], default=-1)
    edges = {sigma_b: jg.edge_of_chaos("tanh", sigma_b=sigma_b).init.sigma_w for sigma_b in (0.1, 0.5, 1.0)}
    at_edge = [scales["outcome"].sel(sigma_w=w, sigma_b=b, method="nearest") == "survives" for b, w in edges.items()]
    return bool((grown >= 0).all() and (np.diff(grown, axis=0) >= 0).all() and all(at_edge))


def _parts(shares: dict[str, float]) -> str:
    return ", ".join(f"{100 * share:.1f}% {name}" for name, share in shares.items())


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Left and middle the maps, right the probabilities over depth."""
    figure.set_size_inches(14.5, 4.9)
    panels = figure.subplots(1, 3)
    draw_outcomes(panels[0], found["scales"])
    draw_outcomes(panels[1], found["weights"])
    _draw_chances(panels[2], found["chances"])
    figure.suptitle("Which initializations lose the gradient, and how often random ones do", fontsize=12)
    figure.tight_layout()


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


def main(words: Sequence[str] | None = None, default: MapsConfig = MapsConfig()) -> None:
    """Run with the options in `words`, of the process by default; one line and exit code 2 for a bad one."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config = tyro.cli(MapsConfig, prog=PROGRAM, args=words, default=default)
            folder = output_folder(config.out)
            found = run(config)
    except (SystemExit, ValueError) as stop:
        if isinstance(stop, SystemExit) and not stop.code:
            raise
        sentence = (one_line(complaint.getvalue()) or str(stop)).rstrip(".")
        print(f"vanishing_maps: {sentence}. See {PROGRAM} --help", file=sys.stderr)
        raise SystemExit(2) from None
    judged = judge(found)
    print("\n".join(f"{words}: {'as claimed' if holds else 'NOT as claimed'}" for words, holds in judged))
    failed = sum(not holds for _, holds in judged)
    print(f"{config.networks} chains each. The claim {f'FAILS in {failed} cases' if failed else 'holds'}.")
    figure = Figure()
    draw(figure, found)
    print(f"Figure: {save_figure(figure, folder / 'vanishing_maps.png')}")


if __name__ == "__main__":
    main()
