"""Does a product of derivatives of tanh(nx) vanish, and where must the x be to prevent it?

Claims, from the answers to a question on tanh(nx) as an activation, f(x) = tanh(nx), g a product of K derivatives f':
B2 for tanh "we cannot prevent" the vanishing of g "because each derivative is smaller than one". B7 at n = 2 and K = 50
"a couple of x's around 5-10 … cancel out the majority of good x's". B8 "around half or more of x_i's need to be inside
[-0.658, 0.658]". B10 "around half or more … should be outside of [-0.441, 0.441] to have g around O(1)". B12 "tanh(x)
does not have the exploding gradient problem". B13 "K mentioned pairs of derivatives for n > 1 is as problematic as K
derivatives for n = 1". B20 "multiplying the argument by bigger n will make things worse".

Each is looked at twice: in a scalar chain x ← w f(x) with w ~ N(0, 1), as in the answers, its slopes f' apart from its
gradient, the product of all w f'; and in wide networks, whose gradient adds up over paths and grows by √χ⊥ per layer.

    python -m experiments.tanh_nx_products

prints the verdicts and writes tanh_nx_products.png, in half a minute. None is right as it stands: B7, B8, B13 and B20
under a condition, B2, B10 and B12 wrong. In a chain of tanh the slopes' product is below 1e-3 in 2% after 50 layers and
the gradient in 99.99%: the weights lose it. A wide network explodes as soon as n σ_w > 1, at σ_w = 10 with 5% of the x
inside ±0.658.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Found, Verdict, main_of, verdict_of

BELOW, ABOVE = 1e-3, 1e3
STEEP, ONE = math.acosh(2) / 2, math.acosh(2**0.5) / 2  # |x| up to which tanh(2x) has slopes above 1/2, above 1
BLUE, RED, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "0.55"
_ERF = np.vectorize(math.erf)


@dataclasses.dataclass(frozen=True)
class ProductsConfig:
    """Sizes of the samples."""

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
    """n of the chains; 1 and 2 must be among them."""
    depth: int = 50
    """Layers, K."""
    networks: int = 10_000
    """Random chains per n."""
    width: int = 1000
    """Neurons per layer of the wide networks."""
    seeds: int = 16
    """Wide networks per n and σ_w."""
    out: Path = Path("experiments/figures")
    """Folder of the dataset and the figure."""


FULL = ProductsConfig()
SMOKE = ProductsConfig(scales=(1.0, 2.0, 5.0), depth=20, networks=500, width=64, seeds=4)


def run(config: ProductsConfig) -> Found:
    """Return what becomes of random chains, of wide networks over σ_w, and of normal x over their spread."""
    spread = np.linspace(0.05, 2, 400)
    normal = {"slope": mean_log_slope(2.0, spread), "inside": within(STEEP, spread), "outside": 1 - within(ONE, spread)}
    names = [f"tanh({n:g}x)" if n != 1 else "tanh" for n in (1, 2, 5)]
    gains = (0.5, 1.0, 5 / 3, 3.0, 10.0)
    wide = jg.sweep(
        jg.SweepConfig(names, gains, width=config.width, depth=config.depth, seeds=config.seeds, inputs=1, seed=1,
                       statistics=("q", "log_grad_rms"))
    )  # fmt: skip
    return {
        "chains": chains(config),
        "wide": wide[["q", "log_grad_rms"]].reset_coords(drop=True).assign_attrs(attrs_of(config)),
        "normal": xarray.Dataset({name: ("spread", of) for name, of in normal.items()}, coords={"spread": spread}),
        "pairs": pairs((2.0, 3.0, 5.0)),
    }


def attrs_of(config: ProductsConfig) -> dict[str, int]:
    """The sizes, in the place of the attributes of a sweep."""
    return {"depth": config.depth, "width": config.width, "seeds": config.seeds}


def chains(config: ProductsConfig) -> xarray.Dataset:
    """Logs of both products at the end of each chain, the share of x in both intervals, and the largest |x|."""
    found = []
    for n in config.scales:
        one = jg.sample_chain(jax.random.key(0), "tanh", jg.Init(1.0), depth=config.depth, networks=config.networks,
                              scale=n)  # fmt: skip
        x = np.abs(one["x"].values[:, :-1] * one["w"].values[:, 1:])
        ends = {name: ("network", one[name].values[:, -1]) for name in ("log_slopes", "log_gradient")}
        shares = {"inside": (x < STEEP).mean(1), "outside": (x > ONE).mean(1), "largest": x.max(1)}
        found.append(xarray.Dataset(ends | {name: ("network", share) for name, share in shares.items()}))
    return xarray.concat(found, dim=xarray.IndexVariable("n", np.array(config.scales))).assign_attrs(depth=config.depth)


def log_slope(n: float, x: np.ndarray) -> np.ndarray:
    """Ln of the derivative of tanh(nx)."""
    y = np.abs(n * x)
    return np.log(n) + 2 * (np.log(2) - y - np.log1p(np.exp(-2 * y)))


def mean_log_slope(n: float, spread: np.ndarray) -> np.ndarray:
    """Mean of ln f'(x) for normal x of that standard deviation."""
    z = np.linspace(-10, 10, 4001)
    weights = np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    return log_slope(n, spread[:, None] * z) @ weights


def within(bound: float, spread: np.ndarray) -> np.ndarray:
    """Probability that |x| of a normal x of that standard deviation is below a bound."""
    return _ERF(bound / (spread * math.sqrt(2)))


def pairs(scales: Sequence[float]) -> xarray.Dataset:
    """Mean ln of f'(x₁) f'(x₂), x₂ beyond the threshold, for x ~ N(0, 1); of one f' at n = 1; and the largest pair."""
    z = np.linspace(-12, 12, 480_001)
    density = np.exp(-(z**2) / 2)
    mean = lambda n, among: float(np.average(log_slope(n, z), weights=density * among))
    beyond = [np.abs(z) > math.acosh(n) / n for n in scales]
    both = list(zip(scales, beyond, strict=True))
    variables = {
        "mean": ("n", [mean(n, z < np.inf) + mean(n, far) for n, far in both]),
        "largest": ("n", [np.exp(log_slope(n, z).max() + log_slope(n, z[far]).max()) for n, far in both]),
    }
    return xarray.Dataset(variables, coords={"n": np.array(scales)}, attrs={"single": mean(1.0, z < np.inf)})


def growth(wide: xarray.Dataset) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Growth of the log gradient per layer going back, over (activation, gain): mean and standard error over seeds."""
    log_g = wide["log_grad_rms"].astype(np.float64)
    each = (log_g.isel(layer=0) - log_g.isel(layer=-1)) / wide.attrs["depth"]
    return each.mean("seed"), each.std("seed", ddof=1) / math.sqrt(each.sizes["seed"])


def share_of(wide: xarray.Dataset, bound: float) -> xarray.DataArray:
    """Share of the pre-activations with |x| below a bound, over (activation, gain): they are normal given the layer."""
    spread = wide["q"].isel(layer=slice(1, None)).astype(np.float64) ** 0.5
    return xarray.apply_ufunc(lambda s: within(bound, s), spread).mean(["seed", "layer"])


def at(values: xarray.DataArray, phi: str, gain: float) -> float:
    """The number of one activation and gain."""
    return float(values.sel(activation=phi).sel(gain=gain, method="nearest"))


def judge(found: Found) -> list[Verdict]:
    """Read the verdicts off the numbers."""
    one, two = (found["chains"].sel(n=n) for n in (1.0, 2.0))
    wide, networks = found["wide"], one.sizes["network"]
    depth, seeds = int(found["chains"].attrs["depth"]), int(wide.attrs["seeds"])
    (mean, error), inside, within_one = growth(wide), share_of(wide, STEEP), share_of(wide, ONE)
    grown = lambda phi, gain: f"e^({at(mean, phi, gain):+.3f} ± {at(error, phi, gain):.3f}) per layer"
    explodes = lambda phi, gain: at(mean, phi, gain) > 4 * at(error, phi, gain) + 0.01
    low, high = math.log(BELOW), math.log(ABOVE)
    lost = {name: float((one[name] < low).mean()) for name in ("log_slopes", "log_gradient")}
    return [
        Verdict(
            "B2", "for tanh the product of derivatives must vanish",
            verdict_of(lost["log_slopes"] > 0.99 and not explodes("tanh", 5 / 3), lost["log_slopes"] > 0.99),
            f"tanh, {depth} layers: {_percent(lost['log_slopes'], networks)} of products of slopes below {BELOW:g}, "
            f"and {_percent(lost['log_gradient'], networks)} of gradients; wide at σ_w = 5/3: {grown('tanh', 5 / 3)}",
            networks,
            "Factors below 1 need not vanish: x shrinks along a chain and the slopes go to 1. What the chain loses it "
            "loses to its weights, as the mean of ln|w| is -0.635; and in a wide network, where the gradient adds up "
            "over paths, it grows by √χ⊥, above 1 for every σ_w > 1.",
        ),
        _couple(two, depth, networks),
        _half_inside(found, mean, inside, grown, explodes),
        _half_outside(found, two, within_one, (low, high), grown, explodes),
        Verdict(
            "B12", "tanh has no exploding-gradient problem", verdict_of(not explodes("tanh", 5 / 3)),
            f"width {wide.attrs['width']}: {grown('tanh', 5 / 3)} at σ_w = 5/3, {grown('tanh', 3)} at 3",
            seeds,
            "A slope of at most 1 bounds nothing: the weights multiply too. Above σ_w = 1 (no biases) χ⊥ = σ_w² E φ'² "
            "is above 1, the phase called chaotic, and the gradient grows exponentially going back.",
        ),
        _as_bad(found["pairs"]),
        _worse(found, mean, grown, low),
    ]  # fmt: skip


def _percent(share: float, networks: int) -> str:
    likely = (share * networks + 1) / (networks + 2)  # so that the error of none and of all is not 0
    return f"{100 * share:.2f} ± {100 * math.sqrt(likely * (1 - likely) / networks):.2f}%"


def _couple(two: xarray.Dataset, depth: int, networks: int) -> Verdict:
    good = 50 * math.log(2)
    needed = {x: math.ceil(good / (math.log(2) - float(log_slope(2.0, np.array(x))))) for x in (5.0, 10.0)}
    met = float((two["largest"] > 5).mean())
    vanished = two["log_gradient"] < math.log(BELOW)
    return Verdict(
        "B7", "a couple of x around 5 to 10 cancel the majority of good ones",
        verdict_of(max(needed.values()) <= 3 and met > 0.1, imprecise=max(needed.values()) <= 3),
        f"of 50 factors at n = 2, {needed[5.0]} at x = 5 or {needed[10.0]} at x = 10 cancel the rest at its best; "
        f"chains with any |x| > 5: {_percent(met, networks)}; of those that vanish the largest |x| is "
        f"{float(two['largest'].where(vanished).mean()):.2f} on average",
        networks,
        "The arithmetic is right, but it is not how gradients vanish: |x| is at most |w|, so with weights of unit "
        f"variance an x of 5 is a rare event, and {100 * float(vanished.mean()):.0f}% of the chains vanish within "
        f"{depth} layers without one.",
    )  # fmt: skip


def _half_inside(found: Found, mean: xarray.DataArray, inside: xarray.DataArray, grown, explodes) -> Verdict:
    two, phi = found["chains"].sel(n=2.0), "tanh(2x)"
    kept = two["inside"].where(two["log_slopes"] >= 0)
    necessary = float(kept.min()) >= 0.5
    balanced = _balanced(found["normal"], "inside")
    against = explodes(phi, 10.0) and at(inside, phi, 10.0) < 0.5
    why = (
        f"For the slopes alone it is needed (each one outside is below 1/2, each one inside at most 2) but not enough: "
        f"with normal x {100 * balanced:.0f}% must be inside. For a network's gradient it is "
    )
    return Verdict(
        "B8", "around half or more of the x must be inside ±0.658",
        verdict_of(necessary and balanced < 0.6 and not against, imprecise=necessary),
        f"n = 2: at least {100 * float(kept.min()):.0f}% inside in all {int(kept.notnull().sum())} chains whose slopes "
        f"multiply to 1 or more; in balance {100 * balanced:.1f}% (normal x, exact); wide, σ_w = 10: "
        f"{100 * at(inside, phi, 10.0):.1f}% inside, {grown(phi, 10.0)}",
        two.sizes["network"],
        why + ("not needed: large weights make up for flat slopes, and it explodes with few x inside." if against
               else "needed here too."),
    )  # fmt: skip


def _half_outside(found: Found, two: xarray.Dataset, within_one: xarray.DataArray, order, grown, explodes) -> Verdict:
    phi, log_g = "tanh(2x)", two["log_slopes"]
    moderate = two["outside"].where((log_g > order[0]) & (log_g < order[1]))
    half = float((moderate >= 0.5).sum() / moderate.notnull().sum())
    balanced = _balanced(found["normal"], "outside")
    outside = 1 - at(within_one, phi, 1.0)
    explodes_so = outside >= 0.5 and explodes(phi, 1.0)
    return Verdict(
        "B10", "around half or more outside ±0.441 keep g of order 1",
        verdict_of(half > 0.5 and not explodes_so, imprecise=half > 0.5 or not explodes_so),
        f"n = 2: of {int(moderate.notnull().sum())} chains whose slopes multiply to {BELOW:g} … {ABOVE:g}, "
        f"{100 * half:.1f}% have half outside, on average {100 * float(moderate.mean()):.0f}%; in balance "
        f"{100 * balanced:.1f}% (normal x, exact); wide, σ_w = 1: {100 * outside:.0f}% outside, {grown(phi, 1.0)}",
        two.sizes["network"],
        "Factors are not of two sizes: one far outside undoes many inside, so about a third is enough for the slopes. "
        + ("A wide network explodes with more than half outside, as its weights multiply too." if explodes_so
           else "A wide network does not explode with so many outside."),
    )  # fmt: skip


def _balanced(normal: xarray.Dataset, name: str) -> float:
    """The share at the spread of normal x at which the mean ln slope is 0."""
    return float(np.interp(0, normal["slope"].values[::-1], normal[name].values[::-1]))


def _as_bad(pairs: xarray.Dataset) -> Verdict:
    single, bound = pairs.attrs["single"], float(abs(pairs["largest"] - 1).max())
    ratio = pairs["mean"] / single
    each = ", ".join(f"{float(of):.2f} at n = {n:g}" for n, of in zip(pairs["n"].values, pairs["mean"], strict=True))
    return Verdict(
        "B13", "K pairs for n > 1 are as problematic as K singles for n = 1",
        verdict_of(bool(abs(ratio - 1).max() < 0.1) and bound < 1e-3, imprecise=bound < 1e-3),
        f"mean ln of a pair, x ~ N(0, 1): {each}; of a single {single:.2f} (exact)", 0,
        "Both are bounded by 1 and nothing more is shown. How fast they vanish depends on where the x are: at the same "
        f"x a pair loses {float(ratio.min()):.1f} to {float(ratio.max()):.0f} times as many powers of ten.",
    )  # fmt: skip


def _worse(found: Found, mean: xarray.DataArray, grown, low: float) -> Verdict:
    lost = (found["chains"]["log_gradient"] < low).mean("network").sel(n=slice(1, None))
    best, networks = float(lost["n"][int(lost.argmin("n"))]), found["chains"].sizes["network"]
    rates = [at(mean, phi, 1.0) for phi in ("tanh", "tanh(2x)", "tanh(5x)")]
    in_wide, in_chains = rates[0] > rates[1] > rates[2], best == 1.0
    in_part = float(lost[-1]) > float(lost.min())
    some = [n for n in lost["n"].values if n in (1.0, best, lost["n"][-1])]
    chances = ", ".join(f"{_percent(float(lost.sel(n=n)), networks)} at n = {n:g}" for n in some)
    return Verdict(
        "B20", "a larger n makes vanishing worse, the tails being flatter",
        verdict_of(in_chains and in_wide, imprecise=in_chains or in_wide or in_part),
        f"chains that vanish: {chances}; wide, σ_w = 1: {grown('tanh', 1)} at n = 1, {grown('tanh(2x)', 1)} at 2, "
        f"{grown('tanh(5x)', 1)} at 5",
        networks,
        f"So it is only in scalar chains beyond n = {best:g}, where vanishing is rarest. In a wide network a larger n "
        f"means {'smaller' if in_wide else 'larger'} gradients, up to exploding: n σ_w is what counts, as for a gain.",
    )  # fmt: skip


def draw(figure: Figure, found: Found) -> None:
    """Left growth per layer over the share of x inside, middle gradients of wide networks, right chains over n."""
    figure.set_size_inches(14, 4.6)
    panels = figure.subplots(1, 3)
    _draw_shares(panels[0], found)
    _draw_wide(panels[1], found["wide"])
    _draw_chains(panels[2], found["chains"])
    for axes in panels:
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Slopes below 1 are not what makes gradients of tanh(nx) vanish: the weights multiply too")
    figure.tight_layout()


def _draw_shares(axes: Axes, found: Found) -> None:
    wide, normal = found["wide"], found["normal"]
    (mean, error), inside = growth(wide), share_of(wide, STEEP)
    axes.plot(100 * normal["inside"], normal["slope"], color=BLUE, linewidth=2, label="mean ln slope, normal x")
    one = {"activation": "tanh(2x)"}
    x, y, e = (each.sel(one).values for each in (100 * inside, mean, error))
    axes.errorbar(x, y, e, color=RED, marker="o", linewidth=1.5, label="ln gradient of a wide network")
    for share, rate, gain in zip(x, y, wide["gain"].values, strict=True):
        words = f"σ_w = {gain:.3g}"
        axes.annotate(words, (share, rate), (3, 6), textcoords="offset points", fontsize=8, color=RED)
    axes.axhline(0, color="0.6", linewidth=1)
    axes.axvline(50, color=GREY, linestyle=":", linewidth=1.2)
    axes.annotate("“half”", (50, -1.9), (52, -1.9), fontsize=9, color="0.35")
    axes.set(xlabel="share of x inside ±0.658 (%)", ylabel="growth per layer (ln)", ylim=(-2, 1.7), xlim=(-2, 119))
    axes.set_title("tanh(2x): how many x must be in the steep part?", fontsize=10, loc="left")
    axes.legend(frameon=False, loc="upper right", fontsize=9)


def _draw_wide(axes: Axes, wide: xarray.Dataset) -> None:
    log_g = wide["log_grad_rms"].astype(np.float64) / math.log(10)
    lines = [("tanh", 1.0, GREEN, "-"), ("tanh", 5 / 3, BLUE, "-")]
    lines += [("tanh(2x)", 1.0, RED, "--"), ("tanh(5x)", 1.0, "#cc79a7", "-.")]
    for phi, gain, colour, dash in lines:
        one = log_g.sel(activation=phi).sel(gain=gain, method="nearest")
        one = one - one.isel(layer=-1)
        back = one["layer"].values[-1] - one["layer"].values
        words = f"{phi}, σ_w = {'5/3' if gain > 1 else '1'}"
        axes.plot(back, one.mean("seed"), color=colour, linestyle=dash, linewidth=2, label=words)
        axes.fill_between(back, one.min("seed"), one.max("seed"), color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="layers back from the output", ylabel="log₁₀ of the rms gradient, output = 0")
    title = f"Wide networks (width {wide.attrs['width']}): a larger n explodes"
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=9)


def _draw_chains(axes: Axes, chains: xarray.Dataset) -> None:
    lines = [("log_slopes", BLUE, "-", "slopes alone"), ("log_gradient", RED, "--", "gradient: slopes × weights")]
    for name, colour, dash, words in lines:
        p = (chains[name] < math.log(BELOW)).mean("network")
        axes.plot(p["n"], 100 * p, color=colour, linestyle=dash, marker="o", linewidth=2, label=words)
    axes.set(xlabel="n", ylabel=f"product below {BELOW:g} (%)", ylim=(-3, 103))
    title = f"Scalar chains, {chains.attrs['depth']} layers, w ~ N(0, 1)"
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 0.3))


main = main_of("tanh_nx_products", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
