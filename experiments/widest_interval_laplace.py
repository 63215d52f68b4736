"""Where is tanh(nx) steep, and at which n is that interval widest?

Claims, from a question on tanh(nx) as an activation and its answers (Esmailian, Zephyr), f(x) = tanh(nx):
B1 "the maximum possible gradient is n". B3 |f'| < 1/n beyond t₁(n) = atanh(√(1 - 1/n²))/n. B4 "the largest interval is
achieved at n = 2 … [-0.658, 0.658]", over whole n. B5 "a slightly larger interval is achievable if n is allowed to be
continuous". B6 "for depth K = 50 and n = 2, a value outside [-9.0, 9.0] produces a derivative < 1/2⁴⁹". B9 |f'| > 1
only within atanh(√(1 - 1/n))/n, 0.441 at n = 2. B11 the product of K derivatives is "potentially up to n^K".

    python -m experiments.widest_interval_laplace

prints the verdicts and writes widest_interval_laplace.png, in seconds. All numbers are closed forms in float64, nothing
is random. All are right, to the digits given; the widest interval over continuous n is the Laplace limit of Kepler's
equation, 0.66274, at n = 1.81017, where n = cosh u and u tanh u = 1.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Found, Verdict, main_of, root, verdict_of

BLUE, RED, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "0.55"
POINTER = {"arrowstyle": "-", "lw": 0.6}


@dataclasses.dataclass(frozen=True)
class IntervalConfig:
    """What is computed; every number is exact whatever the sizes."""

    largest: int = 10
    """Whole n from 1 to this."""
    points: int = 10_000
    """Points x on each side of 0, up to 3, at which the derivative is taken."""
    depth: int = 50
    """Factors in the product of derivatives, K."""
    out: Path = Path("experiments/figures")
    """Folder of the dataset and the figure."""


FULL = IntervalConfig()
SMOKE = IntervalConfig(largest=3, points=300)


def run(config: IntervalConfig) -> Found:
    """Return slopes and thresholds at whole n, the thresholds over continuous n, and the chain that starts near 0."""
    whole = np.arange(1, config.largest + 1.0)
    x = 3 * np.arange(-config.points, config.points + 1) / config.points
    slopes = np.stack([slope(n, x) for n in whole])
    slopes_found = xarray.Dataset(
        {"slope": (("n", "x"), slopes), "narrow": ("n", narrow(whole)), "one": ("n", one(whole))},
        coords={"n": whole, "x": x},
    )
    continuous = np.linspace(1, config.largest, 901)
    curves = {"narrow": ("n", narrow(continuous)), "one": ("n", one(continuous))}
    u = root(lambda u: u * np.tanh(u) - 1, 1.0, 1.5)
    kepler = lambda e: e * np.exp(np.hypot(1, e)) / (1 + np.hypot(1, e)) - 1
    widest = {"n": float(np.cosh(u)), "t": float(u / np.cosh(u)), "laplace_limit": root(kepler, 0.5, 0.8)}
    depth = config.depth
    # f'(x) = n / cosh²(nx) < n^(1-K) from there on.
    far = {"far_x": float(np.arccosh(2 ** (depth / 2)) / 2), "far_log2_at_9": float(log2_slope(2.0, 9.0))}
    start = np.logspace(-20, 0, 401)
    chain = xarray.Dataset({"log2_g": ("x0", product(2.0, start, depth))}, coords={"x0": start}, attrs={"depth": depth})
    return {
        "slopes": slopes_found,
        "thresholds": xarray.Dataset(curves, coords={"n": continuous}, attrs=widest | far | {"depth": depth}),
        "chain": chain,
    }


def slope(n: float, x: np.ndarray) -> np.ndarray:
    """The derivative of tanh(nx), by automatic differentiation."""
    with jax.enable_x64(True):
        phi = jg.activation(f"tanh({n:g}x)")
        return np.asarray(jax.jvp(phi, (jnp.asarray(x),), (jnp.ones(len(x)),))[1])


def narrow(n: np.ndarray) -> np.ndarray:
    """t₁(n), the |x| from which the slope is below 1/n, as the source has it."""
    return np.arctanh(np.sqrt(1 - 1 / n**2)) / n


def one(n: np.ndarray) -> np.ndarray:
    """The |x| from which the slope is below 1, as the source has it."""
    return np.arctanh(np.sqrt(1 - 1 / n)) / n


def log2_slope(n: float, x: np.ndarray | float) -> np.ndarray:
    """Log2 of the derivative of tanh(nx), right where 1 - tanh² has no digit left."""
    y = np.abs(n * np.asarray(x))
    return (np.log(n) + 2 * (np.log(2) - y - np.log1p(np.exp(-2 * y)))) / np.log(2)


def product(n: float, start: np.ndarray, depth: int) -> np.ndarray:
    """Log2 of the product of slopes of x -> tanh(nx), depth times."""
    x, total = start, np.zeros(len(start))
    for _ in range(depth):
        x, total = np.tanh(n * x), total + log2_slope(n, x)
    return total


def judge(found: Found) -> list[Verdict]:
    """Read the verdicts off the numbers."""
    at, over, chain = found["slopes"], found["thresholds"], found["chain"]
    n, x, slopes = at["n"].values, np.abs(at["x"].values), at["slope"].values
    largest = abs(slopes.max(1) / n - 1).max()
    wrong_n, wrong_1 = (int(np.sum((slopes < bound) != (x > t[:, None]))) for bound, t in _bounds(at))
    t = at["narrow"].values
    best = int(np.argmax(t))
    gained = over.attrs["t"] - t[best]
    agree = abs(over.attrs["t"] - over.attrs["laplace_limit"])
    far, excess = over.attrs["far_x"], 2 ** (over.attrs["far_log2_at_9"] + over.attrs["depth"] - 1)
    two = float(at["one"].sel(n=2.0))
    depth, g = int(chain.attrs["depth"]), chain["log2_g"].values
    reach = chain["x0"].values[g >= depth - 1].max(initial=0.0)
    grid = f"{slopes.size} slopes at n = 1 … {n[-1]:g}"
    return [
        Verdict(
            "B1", "the largest derivative of tanh(nx) is n", verdict_of(largest < 1e-12),
            f"largest of {grid}: n to a relative {largest:.0e} (exact)", 0,
            "The derivative is n/cosh²(nx): n at x = 0 and smaller everywhere else. It is the activation's slope; the "
            "gradient of a network has the weights beside it.",
        ),
        Verdict(
            "B3", "|f'| < 1/n beyond atanh(√(1 - 1/n²))/n", verdict_of(wrong_n == 0),
            f"{wrong_n} of {grid} on the other side of 1/n (exact)", 0,
            "cosh²(nx) = n² there, so the threshold is arccosh(n)/n, for n ≥ 1; a scale below 1 has no slope above 1.",
        ),
        Verdict(
            "B4", "over whole n that interval is widest at n = 2, ±0.658",
            verdict_of(n[best] == 2 and round(t[best], 3) == 0.658, imprecise=bool(n[best] == 2)),
            f"n = {n[best]:g}: ±{t[best]:.6f}, next ±{np.sort(t)[-2]:.4f} (exact)", 0,
            f"arccosh(2)/2 = {np.arccosh(2) / 2:.6f}; the width first rises with n and then falls as ln(2n)/n.",
        ),
        Verdict(
            "B5", "slightly wider for a continuous n", verdict_of(0 < gained < 0.05 * t[best], imprecise=gained > 0),
            f"±{over.attrs['t']:.6f} at n = {over.attrs['n']:.6f}, {gained / t[best]:.2%} wider (exact)", 0,
            "The maximum of arccosh(n)/n is at n = cosh u with u tanh u = 1. It is the Laplace limit, the eccentricity "
            f"up to which Lagrange's series solves Kepler's equation (they agree to {agree:.0e})."
            if agree < 1e-12
            else f"It is not the Laplace limit: {agree:.1e} apart.",
        ),
        Verdict(
            "B6", "for K = 50 and n = 2, |x| > 9.0 gives f' < 2⁻⁴⁹",
            verdict_of(round(far, 1) == 9.0, imprecise=abs(far - 9) < 0.5),
            f"from |x| = {far:.4f} on; at 9 the slope is {excess:.3f} × 2⁻⁴⁹ (exact)", 0,
            "The threshold is arccosh(2²⁵)/2 ≈ 13 ln 2, which is 9.0 to the digits given. One factor as small as that "
            "outweighs the largest that 49 others can be.",
        ),
        Verdict(
            "B9", "|f'| > 1 only for |x| < 0.441 at n = 2",
            verdict_of(wrong_1 == 0 and round(two, 3) == 0.441, imprecise=wrong_1 == 0),
            f"±{two:.6f}; {wrong_1} of {grid} on the other side of 1 (exact)", 0,
            "cosh²(nx) = n there, so atanh(√(1 - 1/n))/n = arccosh(√n)/n, at n = 2 ln(1 + √2)/2; the root holds 1/n "
            "here, not 1/n² as for the other threshold.",
        ),
        Verdict(
            "B11", "the product of K derivatives is up to n^K", verdict_of(bool(abs(g.max() - depth) < 1e-6)),
            f"largest product 2^{g.max():.6f} of {depth} at n = 2; half of it needs |x₀| < {reach:.0e} (exact)", 0,
            "It bounds the product and is reached only where every x is 0. With weights of 1 what starts at x₀ doubles "
            f"per layer until it saturates: from x₀ = 1 the product is 2^{g[-1]:.0f}. The gradient itself is the "
            "product of all w f', for which n^K is no bound.",
        ),
    ]  # fmt: skip


def _bounds(at: xarray.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the slope is compared with at each n, and the |x| from which it is below; a column and a row."""
    n = at["n"].values
    return [(1 / n[:, None], at["narrow"].values), (np.ones((len(n), 1)), at["one"].values)]


def draw(figure: Figure, found: Found) -> None:
    """Left slopes, middle both thresholds over n, right the chain of 50 layers."""
    figure.set_size_inches(13.5, 4.4)
    panels = figure.subplots(1, 3)
    _draw_slopes(panels[0], found["slopes"])
    _draw_thresholds(panels[1], found["thresholds"], found["slopes"])
    _draw_chain(panels[2], found["chain"])
    for axes in panels:
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set(fontsize=10, ha="left", x=0)
    t, n = found["thresholds"].attrs["t"], found["thresholds"].attrs["n"]
    figure.suptitle(f"tanh(nx) is steep only near 0: steeper than 1/n at most for |x| < {t:.4f}, at n = {n:.3f}")
    figure.tight_layout()


def _draw_slopes(axes: Axes, at: xarray.Dataset) -> None:
    for n, colour, dash in ((1.0, GREY, ":"), (2.0, BLUE, "-"), (3.0, RED, "--")):
        if n in at["n"]:
            axes.plot(at["x"], at["slope"].sel(n=n), color=colour, linestyle=dash, linewidth=2, label=f"n = {n:g}")
    t, one = float(at["narrow"].sel(n=2.0)), float(at["one"].sel(n=2.0))
    for x, y, words in ((t, 0.5, f"1/2 at {t:.3f}"), (one, 1.0, f"1 at {one:.3f}")):
        axes.plot([-x, x], [y, y], "o", color=BLUE, markersize=5)
        axes.annotate(words, (x, y), (x + 0.3, y + 0.25), fontsize=9, color=BLUE, arrowprops=POINTER | {"color": BLUE})
    axes.set(xlabel="x", ylabel="derivative of tanh(nx)", xlim=(-2, 2), title="The slope is n at 0 and soon below 1")
    axes.legend(frameon=False, loc="upper left")


def _draw_thresholds(axes: Axes, over: xarray.Dataset, at: xarray.Dataset) -> None:
    for name, colour, dash, words in (("narrow", BLUE, "-", "1/n"), ("one", RED, "--", "1")):
        axes.plot(over["n"], over[name], color=colour, linestyle=dash, linewidth=2, label=f"where the slope is {words}")
        axes.plot(at["n"], at[name], "o", color=colour, markersize=4)
    n, t = over.attrs["n"], over.attrs["t"]
    axes.plot([n], [t], "*", color="black", markersize=9)
    words = f"Laplace limit {t:.5f} at n = {n:.5f}\n(n = 2: {float(at['narrow'].sel(n=2.0)):.5f})"
    axes.annotate(words, (n, t), (n + 0.6, t + 0.03), fontsize=9, arrowprops=POINTER)
    axes.set(xlabel="n (dots: whole numbers)", ylabel="|x|", ylim=(0, 0.76), title="How far from 0 the slope is large")
    axes.legend(frameon=False, loc="lower right")


def _draw_chain(axes: Axes, chain: xarray.Dataset) -> None:
    depth = int(chain.attrs["depth"])
    axes.semilogx(chain["x0"], chain["log2_g"], color=GREEN, linewidth=2)
    axes.axhline(depth, color=GREY, linestyle=":", linewidth=1.5)
    axes.annotate(f"bound n^K = 2^{depth}", (1e-3, depth), (3e-9, depth - 10), fontsize=9, color="0.35")
    axes.axhline(0, color="0.8", linewidth=1)
    axes.set(xlabel="input x₀", ylabel=f"log₂ of the product of {depth} slopes")
    axes.set_title(f"x → tanh(2x), {depth} layers: the bound needs x₀ near 0")


main = main_of("widest_interval_laplace", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
