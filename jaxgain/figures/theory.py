"""The figure of a theory: phases, the maps of length and correlation, and what happens over depth."""

import math
from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

WIDTH, HEIGHT = 14.5, 8.6  # inches
PLACES = {  # left, bottom, width, height as fractions
    "phases": (0.05, 0.255, 0.36, 0.56),
    "length": (0.475, 0.54, 0.2, 0.275),
    "correlation": (0.475, 0.15, 0.2, 0.265),
    "signal": (0.755, 0.54, 0.225, 0.275),
    "gradient": (0.755, 0.15, 0.225, 0.265),
}
GROWTH = 4.0  # of the mean squared gradient per layer, where the colours end
DEPTHS = (3, 10, 30, 100)  # of the contours, layers
MEASURED = 12  # layers at most at which measurements are drawn
_CHANGE = "RdBu_r"
_PALE, _PATH, _BAND, _MEASURED, _STAR = "0.35", "#d55e00", "#0072b2", "black", "#f0e442"
_FILL = {"stable": "black", "unstable": "white", "half-stable": "0.6", "neutral": "0.6"}
_TITLES = {
    "phases": ("Phases", "at the length reached from 1: blue, inputs merge; red, inputs part"),
    "length": ("Length map", "mean square q of the pre-activations"),
    "correlation": ("Correlation map", "cosine c of two inputs' pre-activations"),
    "signal": ("Signal: q over depth", "mean square of the pre-activations of a layer"),
    "gradient": ("Gradient: mean square over depth", "output = 1; from right to left, the way it travels"),
}


def draw_theory(figure: Figure, dataset: xarray.Dataset) -> None:
    """Draw the dataset of `portrait` on an empty figure, and give the figure its size.

    The phase diagram with the edge of chaos and contours of the depth to which correlations are told apart; the
    maps of length and correlation with their cobwebs; length and gradient over depth, predicted and, where the
    dataset has them, measured.

    Args:
        figure: e.g. `matplotlib.figure.Figure()`; no pyplot state is touched.
        dataset: of `jaxgain.portrait`, with or without what `jaxgain.disagreement` adds.
    """
    figure.set_size_inches(WIDTH, HEIGHT)
    panels = {name: figure.add_axes(place) for name, place in PLACES.items()}
    draw_phases(panels["phases"], dataset)
    draw_length_map(panels["length"], dataset)
    draw_correlation_map(panels["correlation"], dataset)
    draw_band(panels["signal"], dataset, "log_q")
    draw_band(panels["gradient"], dataset, "log_grad")
    for name, (what, how) in _TITLES.items():
        inch = 1 / (PLACES[name][3] * HEIGHT)
        panels[name].text(0, 1 + 0.26 * inch, what, fontsize=11, weight="bold", transform=panels[name].transAxes)
        panels[name].text(0, 1 + 0.08 * inch, how, fontsize=8.5, color=_PALE, transform=panels[name].transAxes)
        panels[name].tick_params(labelsize=8, length=2)
        if name != "phases":
            panels[name].spines[["top", "right"]].set_visible(False)
    _head(figure, dataset)
    _foot(figure, dataset)


def draw_phases(axes: Axes, dataset: xarray.Dataset) -> None:
    """Draw the phase diagram: colours for χ⊥, contours for ξ_c, the edge of chaos, critical and chosen points."""
    sigma_w, sigma_b = (dataset[name].values for name in ("sigma_w", "sigma_b"))
    with np.errstate(divide="ignore"):
        growth = np.log(dataset["grid_chi_perp"].transpose("sigma_b", "sigma_w").values)
    limit = math.log(GROWTH)
    axes.pcolormesh(
        sigma_w, sigma_b, growth.clip(-limit, limit), cmap=_CHANGE, vmin=-limit, vmax=limit, rasterized=True
    )
    diverging = (dataset["grid_phase"] == "diverging").transpose("sigma_b", "sigma_w").values
    if diverging.any() and min(diverging.shape) > 1:
        axes.contourf(sigma_w, sigma_b, diverging, levels=[0.5, 1.5], colors="none", hatches=["////"])
    if np.isposinf(growth).all():
        words = "χ⊥ is infinite: the activation jumps.\nTwo inputs, however near, are told apart at once."
        axes.text(0.5, 0.5, words, color="white", fontsize=11, ha="center", transform=axes.transAxes)
    _draw_depths(axes, dataset)
    for stability, style in (("stable", "-"), ("unstable", "--")):
        shown = np.isin(dataset["curve_stability"].values, [stability, "half-stable", "neutral"])
        across, up = (np.where(shown, dataset[f"curve_{name}"].values, np.nan) for name in ("sigma_w", "sigma_b"))
        axes.plot(across, up, style, color="black", linewidth=2.2)
    critical = dataset.attrs["critical_sigma_w"], dataset.attrs["critical_sigma_b"]
    if dataset.attrs["critical_kind"] != "none":
        axes.plot(*critical, "*", markersize=15, color=_STAR, markeredgecolor="black", clip_on=False, zorder=5)
    chosen = dataset.attrs["init_sigma_w"], dataset.attrs["init_sigma_b"]
    for colour, edge in (("white", 5.0), (_PATH, 2.5)):
        axes.plot(*chosen, "o", ms=19, mfc="none", color=colour, markeredgewidth=edge, clip_on=False, zorder=6)
    axes.set_xlim(0, sigma_w[-1] + sigma_w[0])
    axes.set_ylim(0, sigma_b[-1] + sigma_b[0])
    axes.set_xlabel("$\\sigma_w$  (std of a weight × √fan_in)", fontsize=9, labelpad=2)
    axes.set_ylabel("$\\sigma_b$  (std of a bias)", fontsize=9, labelpad=2)


def _draw_depths(axes: Axes, dataset: xarray.Dataset) -> None:
    """Contours of 1/ξ_c, with a sign that makes it smooth across the edge, where ξ_c itself is infinite."""
    one = dataset.transpose("sigma_b", "sigma_w", ...)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(one["grid_chi_perp"].values > 1, -1, 1) / one["grid_xi_c"].values
    if not np.isfinite(rate).any() or min(rate.shape) < 2:
        return
    levels = sorted(sign / depth for depth in DEPTHS for sign in (1, -1))
    lines = axes.contour(
        one["sigma_w"].values,
        one["sigma_b"].values,
        np.ma.masked_invalid(rate),
        levels=levels,
        colors="0.25",
        linewidths=0.9,
        linestyles=":",
    )
    axes.clabel(lines, fmt={level: f"{1 / abs(level):.0f}" for level in levels}, fontsize=7.5)


def draw_length_map(axes: Axes, dataset: xarray.Dataset) -> None:
    """Draw the length map, the diagonal, the path from the first layer's length, and the fixed points."""
    length = dataset["length"].values
    _draw_map(axes, length, dataset["length_map"].values, dataset["length_path"].values)
    columns = (dataset[f"fixed_{name}"].values for name in ("q", "stability", "reached"))
    for q, stability, reached in zip(*columns, strict=True):
        neutral_elsewhere = str(stability) == "neutral" and not reached
        if q <= length[-1] and not neutral_elsewhere:
            fill = _FILL[str(stability)]
            axes.plot(q, q, "o", markersize=7, color=fill, markeredgecolor="black", clip_on=False, zorder=4)
    axes.set_xlim(0, length[-1])
    axes.set_ylim(0, length[-1])
    axes.set_xlabel("q of this layer", fontsize=9, labelpad=2)
    axes.set_ylabel("q of the next", fontsize=9, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def draw_correlation_map(axes: Axes, dataset: xarray.Dataset) -> None:
    """Draw the correlation map at one length, the diagonal, the path of two inputs, and where it ends."""
    correlation, path = dataset["correlation"].values, dataset["correlation_path"].values
    if np.isnan(path).all():
        axes.text(0.5, 0.5, "no length to draw it at", ha="center", transform=axes.transAxes)
    else:
        _draw_map(axes, correlation, dataset["correlation_map"].values, path)
        q, fixed = dataset.attrs["map_q"], 0 < dataset.attrs["q"] < math.inf
        where = f"at q = {q:.4g}, {'the fixed point' if fixed else 'of the last layer'}"
        axes.text(0.03, 0.92, where, fontsize=8, transform=axes.transAxes)
    c = 1 - dataset.attrs["one_minus_c"]
    if c < 1:  # equal inputs stay equal, but near ones part
        axes.plot(1, 1, "o", markersize=7, color="white", markeredgecolor="black", clip_on=False, zorder=4)
    if math.isfinite(c):
        axes.plot(c, c, "o", markersize=7, color="black", clip_on=False, zorder=4)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("c of this layer", fontsize=9, labelpad=2)
    axes.set_ylabel("c of the next", fontsize=9, labelpad=2)


def _draw_map(axes: Axes, x: np.ndarray, y: np.ndarray, path: np.ndarray) -> None:
    axes.plot(x, x, color="0.6", linewidth=1)
    axes.plot(x, y, color=_BAND, linewidth=2)
    corners = np.repeat(path, 2)
    axes.plot(corners[:-1], np.concatenate([[0.0], corners[2:]]), color=_PATH, linewidth=1)
    axes.plot(path[0], 0, "^", color=_PATH, markersize=7, clip_on=False)


def draw_band(axes: Axes, dataset: xarray.Dataset, name: str) -> None:
    """Draw `name`_mean over depth with two standard deviations on either side, and measurements where there are."""
    layer = dataset["layer"].values
    mean = dataset[f"{name}_mean"].values / math.log(10)
    spread = np.zeros_like(mean)
    if f"{name}_var" in dataset:
        spread = 2 * np.sqrt(dataset[f"{name}_var"].values) / math.log(10)
    limits = [mean - spread, mean + spread]
    axes.fill_between(layer, mean - spread, mean + spread, color=_BAND, alpha=0.25, linewidth=0)
    axes.plot(layer, mean, color=_BAND, linewidth=2)
    if f"measured_{name}_mean" in dataset and np.isfinite(mean).any():
        limits += _draw_measured(axes, dataset, name)
    if not np.isfinite(mean).any() or not np.isfinite(mean[1:-1]).any():
        jumps = name == "log_grad" and math.isinf(dataset.attrs["chi_perp"])
        words = "no gradient: the activation jumps" if jumps else "no finite value"
        axes.text(0.5, 0.6, words, ha="center", transform=axes.transAxes)
    axes.set_xlim(layer[0], layer[-1])
    _powers(axes, np.concatenate(limits))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_xlabel("layer", fontsize=9, labelpad=2)


def _draw_measured(axes: Axes, dataset: xarray.Dataset, name: str) -> list[np.ndarray]:
    layers = np.unique(np.linspace(0, dataset.sizes["layer"] - 1, MEASURED).round().astype(int))
    one = dataset.isel(layer=layers)
    mean = one[f"measured_{name}_mean"].values / math.log(10)
    spread = 2 * np.sqrt(one[f"measured_{name}_var"].values) / math.log(10)
    axes.errorbar(one["layer"], mean, spread, fmt="o", color=_MEASURED, markersize=3.5, linewidth=1, capsize=2)
    return [mean - spread, mean + spread]


def _powers(axes: Axes, powers: np.ndarray) -> None:
    """Limits around the finite powers of ten, at least a factor of 4, and ticks as fine as they need."""
    finite = powers[np.isfinite(powers)]
    low, high = (finite.min(), finite.max()) if finite.size else (-1.0, 1.0)
    middle, half = (low + high) / 2, max(0.55 * (high - low), 0.3)
    low, high = middle - half, middle + half
    axes.set_ylim(low, high)
    if high - low < 2.5:
        decades = 10.0 ** np.arange(math.floor(low), math.ceil(high) + 1)
        ticks = np.log10((decades[:, None] * np.array([1, 2, 5] if high - low > 1 else [1, 1.5, 2, 3, 5, 7])).ravel())
        axes.yaxis.set_major_locator(FixedLocator(ticks[(ticks >= low) & (ticks <= high)].tolist()))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda power, _: f"{10**power:.3g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(_power))


def _power(exponent: float, _: Any = None) -> str:
    return {0: "1", 1: "10"}.get(int(exponent), f"$10^{{{exponent:g}}}$")


def _head(figure: Figure, dataset: xarray.Dataset) -> None:
    about = dataset.attrs
    title = f"{about['activation']}: phases, critical point, and what {about['depth']:,} layers do"
    chosen = f"Chosen: σ_w = {about['init_sigma_w']:.6g}, σ_b = {about['init_sigma_b']:.6g} — {verdict(about)}"
    figure.text(0.02, 0.96, title, fontsize=17, fontweight="bold", va="center")
    figure.text(0.02, 0.922, chosen, fontsize=10.5, va="center", color=_PALE)
    kind, scales = about["critical_kind"], (about["critical_sigma_w"], about["critical_sigma_b"])
    critical = (
        f"No critical initialization{'' if math.isnan(scales[0]) else ', where χ∥ = χ⊥ = 1; the best substitute has'}"
        if kind == "none"
        else f"Critical initialization, where χ∥ = χ⊥ = 1 ({kind}):"
    )
    if not math.isnan(scales[0]):
        critical += f" σ_w = {scales[0]:.6g}, σ_b = {scales[1]:.6g}, q = {about['critical_q']:.6g}"
    figure.text(0.02, 0.893, critical, fontsize=10.5, va="center", color=_PALE)


def verdict(about: dict[str, Any]) -> str:
    """What the phase of the chosen initialization does to signal and gradient, in a clause.

    >>> verdict({"phase": "chaotic", "q": 4.0, "chi_perp": 2.0, "xi_grad": -1.44})
    'chaotic: length 4, gradients grow by e every 1.4 layers going back'
    """
    depth = abs(about["xi_grad"])
    if about["phase"] == "diverging":
        return "diverging: the length grows without end"
    length = "every length is kept" if about["phase"] == "scale-invariant" else f"length {about['q']:.4g}"
    if math.isinf(about["chi_perp"]):
        return f"{about['phase']}: {length}, χ⊥ is infinite, since the activation jumps"
    if math.isinf(depth):
        return f"{about['phase']}: {length}, gradients neither grow nor shrink exponentially"
    if depth == 0:
        return f"{about['phase']}: {length}, gradients vanish at once"
    return f"{about['phase']}: {length}, gradients {'grow' if about['chi_perp'] > 1 else 'shrink'} by e every " + (
        f"{depth:.3g} layers going back" if depth >= 10 else f"{depth:.1f} layers going back"
    )


def _foot(figure: Figure, dataset: xarray.Dataset) -> None:
    left, _, width, _ = PLACES["phases"]
    scale = ScalarMappable(Normalize(-math.log(GROWTH), math.log(GROWTH)), _CHANGE)
    bar = figure.colorbar(
        scale, cax=figure.add_axes((left, 0.165, width, 0.014)), orientation="horizontal", extend="both"
    )
    ticks = (1 / 4, 1 / 2, 1, 2, 4)
    bar.set_ticks([math.log(tick) for tick in ticks], labels=[f"{tick:g}" for tick in ticks])
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label("χ⊥, growth of the mean squared gradient per layer, going back", fontsize=9)
    legends = {
        "phases": (_phase_keys, 0.115, 2),
        "correlation": (_map_keys, 0.1, 1),
        "gradient": (_depth_keys, 0.1, 1),
    }
    for name, (keys, height, columns) in legends.items():
        place = {"loc": "upper left", "bbox_to_anchor": (PLACES[name][0] - 0.012, height)}
        figure.legend(handles=keys(dataset), fontsize=8.5, frameon=False, ncols=columns, **place)


def _phase_keys(dataset: xarray.Dataset) -> list[Any]:
    stability = set(dataset["curve_stability"].values.tolist())
    keys: list[Any] = [_mark("o", _PATH, "chosen", markersize=11, markerfacecolor="none", markeredgewidth=2.5)]
    if dataset.attrs["critical_kind"] != "none":
        keys.append(_mark("*", "black", "critical, χ∥ = χ⊥ = 1", markersize=12, markerfacecolor=_STAR))
    if "stable" in stability:
        keys.append(Line2D([], [], color="black", linewidth=2.2, label="edge of chaos, χ⊥ = 1"))
    if "unstable" in stability:
        keys.append(
            Line2D([], [], color="black", linestyle="--", linewidth=2.2, label="χ⊥ = 1 where the length is unstable")
        )
    depth = dataset["grid_xi_c"].values[np.isfinite(dataset["grid_xi_c"].values)]
    if depth.size and depth.max() >= DEPTHS[0]:
        keys.append(
            Line2D([], [], color="0.25", linestyle=":", linewidth=1, label="ξ_c, layers that tell inputs apart")
        )
    if (dataset["grid_phase"] == "diverging").any():
        keys.append(Patch(facecolor="none", hatch="////", label="the length diverges"))
    return keys


def _map_keys(dataset: xarray.Dataset) -> list[Any]:
    start = f"layer by layer, from inputs of mean square 1 and c = {dataset.attrs['input_correlation']:g}"
    words = {
        "stable": "stable fixed point",
        "unstable": "unstable fixed point",
        "half-stable": "half-stable or neutral",
    }
    found = ["half-stable" if each == "neutral" else each for each in dataset["fixed_stability"].values.tolist()]
    return [
        Line2D([], [], color=_PATH, marker="^", markersize=6, linewidth=1, label=start),
        *(_mark("o", "black", what, markerfacecolor=_FILL[key]) for key, what in words.items() if key in found),
    ]


def _depth_keys(dataset: xarray.Dataset) -> list[Any]:
    keys: list[Any] = [Line2D([], [], color=_BAND, linewidth=2, label="predicted: mean field")]
    if "log_q_var" in dataset:
        keys[0].set_label("predicted, mean of the logarithm")
        keys.append(Patch(color=_BAND, alpha=0.25, label=f"± 2 std over networks, width {dataset.attrs['width']:,}"))
    if "measured_log_q_mean" in dataset:
        words = f"mean ± 2 std of {dataset.attrs['seeds']:,} sampled networks"
        keys.append(_mark("o", _MEASURED, words, markersize=4))
    return keys


def _mark(marker: str, colour: str, label: str, **options: Any) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=colour, label=label, **options)
