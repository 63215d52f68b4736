"""What is special about 1.7159 tanh(2x/3)?

Claim B19, from a comment on a question on tanh(nx) as an activation (Slater): many sources suggest "1.7159 tanh(2x/3) …
about creating closer to ideal distribution of features in hidden layers, including the effect on gradients". The source
behind it (LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998) names three properties: φ(±1) = ±1, the second
derivative is largest at ±1, and the effective gain is close to 1.

Here φ at 1 and the place of the largest |φ''| exactly; the second moment of what comes out for normal numbers of unit
variance; and, in networks with σ_w = 1 and no biases, how signal and gradient go on over 50 layers, beside tanh with
σ_w = 1 and with σ_w = 1.7159 · 2/3 = 1.1439, which is the same network in other units.

    python -m experiments.scaled_tanh

prints the verdict and writes scaled_tanh.png, in half a minute. φ(1) is 1 - 3e-6, |φ''| is largest at 0.9877, and what
comes out for unit variance has a second moment of 0.750; with σ_w = 1 the gradient changes by 1% per layer.
"""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Found, Verdict, main_of, verdict_of

HEIGHT, SLOPE = 1.7159, 2 / 3
LINES = (("lecun_tanh", 1.0, "#d55e00", "-"), ("tanh", 1.0, "#0072b2", "--"), ("tanh", HEIGHT * SLOPE, "#009e73", ":"))
NAMES = ("1.7159 tanh(2x/3), σ_w = 1", "tanh, σ_w = 1", "tanh, σ_w = 1.1439")


@dataclasses.dataclass(frozen=True)
class ScaledConfig:
    """Sizes of the networks."""

    width: int = 1000
    """Neurons per layer."""
    depth: int = 50
    """Layers."""
    seeds: int = 16
    """Networks per activation and gain."""
    out: Path = Path("experiments/figures")
    """Folder of the dataset and the figure."""


FULL = ScaledConfig()
SMOKE = ScaledConfig(width=64, depth=8, seeds=3)


def run(config: ScaledConfig) -> Found:
    """Return the function with its second derivative, its criteria, and the networks."""
    gains = tuple(sorted({gain for _, gain, *_ in LINES}))
    wide = jg.sweep(
        jg.SweepConfig(
            ("lecun_tanh", "tanh"), gains, width=config.width, depth=config.depth, seeds=config.seeds, inputs=1,
            statistics=("std", "log_grad_rms"),
        )
    )  # fmt: skip
    wide = wide[["std", "log_grad_rms"]].reset_coords(drop=True).astype(np.float64)
    point = jg.fixed_point("lecun_tanh", jg.Init(1.0))
    exact = {
        f"{kind}_{phi}": jg.gain(phi, kind=kind) for phi in ("lecun_tanh", "tanh") for kind in ("forward", "critical")
    }
    exact |= {"q": point.q, "chi_perp": point.chi_perp, "at_one": _function(np.array([1.0]))[0].item(), "bend": _bend()}
    sizes = {"depth": config.depth, "width": config.width, "seeds": config.seeds}
    return {"function": _curves().assign_attrs(exact), "wide": wide.assign_attrs(sizes)}


def _function(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """φ and φ'' by automatic differentiation."""
    with jax.enable_x64(True):
        phi = jg.activation("lecun_tanh")
        second = jax.vmap(jax.grad(jax.grad(phi)))
        return np.asarray(phi(jnp.asarray(x))), np.asarray(second(jnp.asarray(x)))


def _curves() -> xarray.Dataset:
    x = np.linspace(-3, 3, 601)
    value, second = _function(x)
    return xarray.Dataset({"phi": ("x", value), "second": ("x", second), "tanh": ("x", np.tanh(x))}, coords={"x": x})


def _bend() -> float:
    """Where |φ''| is largest, x > 0: from the finest of three grids."""
    low, high, best = 0.0, 3.0, 0.0
    for _ in range(3):
        x = np.linspace(low, high, 1001)
        best = x[np.abs(_function(x)[1]).argmax()]
        low, high = best - (high - low) / 1000, best + (high - low) / 1000
    return float(best)


def growth(wide: xarray.Dataset, phi: str, gain: float) -> tuple[float, float]:
    """Growth of the gradient per layer going back, in its logarithm, over the second half: mean and standard error."""
    log_g = wide["log_grad_rms"].sel(activation=phi).sel(gain=gain, method="nearest")
    half = int(wide.attrs["depth"]) // 2
    each = (log_g.sel(layer=half) - log_g.isel(layer=-1)) / (int(wide.attrs["depth"]) - half)
    return float(each.mean("seed")), float(each.std("seed", ddof=1)) / math.sqrt(each.sizes["seed"])


def judge(found: Found) -> list[Verdict]:
    """Read the verdict off the numbers."""
    of, wide = found["function"].attrs, found["wide"]
    second_moment = of["forward_lecun_tanh"] ** -2
    rate, error = growth(wide, "lecun_tanh", 1.0)
    of_tanh = of["forward_tanh"] ** -2
    at_one, bend = abs(of["at_one"] - 1), abs(of["bend"] - 1)
    exactly = at_one < 1e-4 and bend < 1e-3 and abs(second_moment - 1) < 0.05
    roughly = at_one < 1e-4 and bend < 0.02 and abs(rate) < 0.05
    scaled = f"{HEIGHT * SLOPE:.4f}"
    why = (
        f"{'A' if exactly else 'Only φ(1) = 1 is exact, as 1.7159 = 1/tanh(2/3); a'} φ of this kind has |φ''| largest "
        f"exactly at ±1 if it is √3 tanh({math.atanh(3**-0.5):.4f} x). The gain is "
        f"{'near' if abs(second_moment - 1) < 0.05 else 'not'} 1 for unit variance, as it squashes, but at σ_w = 1 a "
        f"length of {of['q']:.3f} keeps itself (tanh's goes to 0) and χ⊥ = {of['chi_perp']:.4f}. As a network it is "
        f"tanh with a gain of {scaled}, a little above the edge of chaos: a choice of gain, no other kind of function."
    )
    return [
        Verdict(
            "B19", "1.7159 tanh(2x/3): φ(±1) = ±1, |φ''| largest at ±1, effective gain near 1",
            verdict_of(exactly, imprecise=roughly),
            f"φ(1) - 1 = {of['at_one'] - 1:.0e}; |φ''| largest at ±{of['bend']:.4f}; E φ(z)² = {second_moment:.3f}, "
            f"tanh {of_tanh:.3f} (exact); gradient at σ_w = 1: e^({rate:+.4f} ± {error:.4f}) per layer",
            int(wide.attrs["seeds"]), why,
        )
    ]  # fmt: skip


def draw(figure: Figure, found: Found) -> None:
    """Left the function, then signal and gradient over the layers."""
    figure.set_size_inches(13.5, 4.4)
    panels = figure.subplots(1, 3)
    _draw_function(panels[0], found["function"])
    wide = found["wide"]
    for (phi, gain, colour, dash), name in zip(LINES, NAMES, strict=True):
        one = wide.sel(activation=phi).sel(gain=gain, method="nearest")
        log_g = (one["log_grad_rms"] - one["log_grad_rms"].isel(layer=-1)) / math.log(10)
        for axes, values in ((panels[1], one["std"]), (panels[2], log_g)):
            axes.plot(values["layer"], values.mean("seed"), color=colour, linestyle=dash, linewidth=2.2, label=name)
            axes.fill_between(values["layer"], values.min("seed"), values.max("seed"), color=colour, alpha=0.15, lw=0)
    panels[1].set(xlabel="layer", ylabel="standard deviation of the activations", ylim=(0, None))
    panels[1].set_title(f"Signal, width {wide.attrs['width']} (bands: all networks)", fontsize=10, loc="left")
    panels[1].legend(frameon=False, fontsize=9)
    panels[2].set(xlabel="layer", ylabel="log₁₀ of the rms gradient, output = 0")
    panels[2].set_title("Gradient, from the output back to the input", fontsize=10, loc="left")
    for axes in panels:
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("1.7159 tanh(2x/3) is tanh with a gain of 1.1439, a little above the edge of chaos")
    figure.tight_layout()


def _draw_function(axes: Axes, of: xarray.Dataset) -> None:
    axes.plot(of["x"], of["phi"], color=LINES[0][2], linewidth=2.2, label="φ = 1.7159 tanh(2x/3)")
    axes.plot(of["x"], of["tanh"], color=LINES[1][2], linestyle="--", linewidth=1.5, label="tanh")
    axes.plot(of["x"], of["second"], color="0.4", linestyle="-.", linewidth=1.5, label="φ''")
    bend, lowest = of.attrs["bend"], float(of["second"].min())
    axes.plot([1, -1], [1, -1], "o", color="black", markersize=5)
    axes.annotate("φ(1) = 1", (1, 1), (1.35, 0.55), fontsize=9, arrowprops={"arrowstyle": "-", "lw": 0.6})
    axes.plot([bend], [lowest], "v", color="0.4", markersize=6)
    axes.annotate(f"|φ''| largest at {bend:.4f}", (bend, lowest), (0.3, -1.25), fontsize=9, color="0.3")
    axes.set(xlabel="x", ylabel="φ, φ''")
    axes.set_title("The function, and where it bends most", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=9, loc="upper left")


main = main_of("scaled_tanh", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
