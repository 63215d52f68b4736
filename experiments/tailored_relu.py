"""Does a tailored negative slope keep two inputs of a deep ReLU network apart?

Zhang, Botev and Martens, Deep learning without shortcuts: shaping the kernel with tailored rectifiers, 2022: a plain
ReLU network makes all inputs alike with depth. A leaky ReLU with the slope a on the left, 0 < a < 1, at which two
orthogonal inputs have the cosine 0.9 after L layers, C_L(0) = 0.9, keeps them apart, at any L.

    python -m experiments.tailored_relu

prints the verdict and writes tailored_relu.nc and tailored_relu.png, in a minute.

The slope is 0.181 for 20 layers and 0.570 for 100; the cosine of ReLU networks after 100 layers is 0.997.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

ETA, NEAR = 0.9, 0.02  # the cosine asked for, and what a finite width may add to it
COLOURS = ("#000000", "#d55e00", "#0072b2")


@dataclasses.dataclass(frozen=True)
class TailoredConfig:
    """Sizes of the networks."""

    width: int = 1000
    """Neurons per layer."""
    depths: tuple[int, int] = (20, 100)
    """Layers, L, for which slopes are tailored; networks have as many as the larger."""
    seeds: int = 32
    """Networks of each kind."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = TailoredConfig()
SMOKE = TailoredConfig(width=32, depths=(2, 4), seeds=2)


def cosine(slope: float, depth: int) -> float:
    """C_L(0) of leaky ReLU, in closed form: C(c) = c + (1 - a)² (√(1 - c²) - c arccos c) / (π (1 + a²))."""
    c, part = 0.0, (1 - slope) ** 2 / (math.pi * (1 + slope**2))
    for _ in range(depth):
        c = min(1.0, c + part * (math.sqrt(1 - c * c) - c * math.acos(c)))
    return c


def tailored(depth: int) -> float:
    """The slope from 0 to 1 at which orthogonal inputs end at `ETA`, by bisection; 0 where ReLU itself stays below."""
    low, high = 0.0, 1.0
    if cosine(0.0, depth) <= ETA:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cosine(middle, depth) > ETA else (low, middle)
    return (low + high) / 2


def run(config: TailoredConfig) -> dict[str, xarray.Dataset]:
    """Return cosines over layers of ReLU and of the leaky ReLU tailored to each depth, and those of theory."""
    slopes = [0.0, *(tailored(depth) for depth in config.depths)]
    sizes: dict[str, Any] = dict(width=config.width, depth=max(config.depths), seeds=config.seeds)
    measured, theory = [], []
    for slope in slopes:
        phi, gain = f"leaky_relu({slope!r})", math.sqrt(2 / (1 + slope**2))
        settings = jg.SweepConfig(phi, (gain,), input_correlation=0.0, statistics="correlation_h", **sizes)
        measured.append(jg.sweep(settings)["correlation_h"].squeeze(drop=True).transpose("seed", "layer").values)
        profile = jg.mean_field(phi, jg.Init(gain), depth=max(config.depths), correlation=0.0)
        theory.append(profile["correlation_h"].values)
    columns = {
        "cosine": (("tailored", "seed", "layer"), measured),
        "theory": (("tailored", "layer"), theory),
        "slope": ("tailored", slopes),
    }
    # 0 stands for ReLU, which is tailored to no depth.
    return {"cosines": xarray.Dataset(columns, {"tailored": [0, *config.depths]})}


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """By the cosines of networks at the depths that they are tailored to."""
    cosines = found["cosines"]
    words, kept, last = [], [], cosines.sizes["layer"] - 1
    for depth in cosines["tailored"].values[1:]:
        one = cosines.sel(tailored=depth)
        at = one["cosine"].isel(layer=int(depth))
        mean, error = float(at.mean()), float(at.std(ddof=1)) / at.size**0.5
        kept.append(abs(mean - ETA) < 4 * error + NEAR)
        words.append(f"a = {float(one['slope']):.6f} for L = {depth}: {mean:.4f} ± {error:.4f}")
    relu = float(cosines["cosine"].sel(tailored=0).isel(layer=-1).mean())
    alike = relu > 0.99
    why = "ReLU pushes every pair together; nearer to a linear map, as near as the depth needs, it does so slowly."
    if not (alike and all(kept)):
        why = "The cosines are others." if not all(kept) else "ReLU does not make inputs alike at this depth."
    says = "a leaky ReLU tailored to depth L keeps orthogonal inputs at cosine 0.9; ReLU makes them alike"
    number = f"cosine of orthogonal inputs after L layers: {'; '.join(words)}; ReLU, after {last}: {relu:.4f}"
    verdict = verdict_of(alike and all(kept), imprecise=any(kept))
    return [Verdict("Zhang et al. 2022", says, verdict, number, cosines.sizes["seed"], why)]


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Cosines of two orthogonal inputs over the layers."""
    figure.set_size_inches(8.5, 4.8)
    axes, cosines = figure.subplots(), found["cosines"]
    for depth, colour in zip(cosines["tailored"].values, COLOURS, strict=True):
        one = cosines.sel(tailored=depth)
        label = f"leaky ReLU, a = {float(one['slope']):.3f}, tailored to L = {depth}" if depth else "ReLU"
        axes.plot(one["cosine"].transpose("layer", "seed"), color=colour, linewidth=0.4, alpha=0.4)
        axes.plot(one["theory"], color=colour, linewidth=2.5, label=label)
        if depth:
            axes.plot(depth, ETA, "o", color=colour, markersize=9, clip_on=False, zorder=3)
    axes.axhline(ETA, color="0.5", linestyle=":", linewidth=1.2)
    axes.set(xlabel="layer", ylabel="cosine of two inputs that are orthogonal", ylim=(-0.1, 1.03))
    axes.set_title(
        "a tailored slope keeps inputs apart, ReLU makes them alike\n(thick: theory; thin: networks)", fontsize=11
    )
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    axes.grid(color="0.92", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()


main = main_of("tailored_relu", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
