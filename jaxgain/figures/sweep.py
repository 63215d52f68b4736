"""The figure of a sweep: a row per activation; lines over depth for selected gains, maps over all gains."""

import json
from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from jaxgain.propagation.summary import (
    by_gains,
    complete,
    gains_to_show,
    in_rows,
    mean_and_error,
    missing_bias,
    summarize,
)

DECADES = {"std": 3.0, "gradient": 8.0}  # where the maps' colours end, and the lines' panels at most
MOST_LINES = 8
MOST_LAYERS = 2000  # several per pixel of a panel
ROW, HEAD, FOOT, WIDTH = 1.75, 1.4, 1.05, 14.5  # inches
COLUMNS = {  # left and right edges, as fractions of the width
    "list": (0.02, 0.262),
    "std": (0.295, 0.44),
    "gradient": (0.48, 0.625),
    "std map": (0.662, 0.797),
    "gradient map": (0.812, 0.947),
}
FORMATS = {  # where a format ends, as powers of ten; those of float32 are beyond all panels
    "float32": {},
    "bfloat16": {"largest": 38.53, "smallest normal": -37.93},
    "float16": {"largest": 4.82, "smallest normal": -4.21, "smallest": -7.22},
}
RECORDED = {"std": "std", "gradient": "log_grad_rms"}
_LINES = LinearSegmentedColormap.from_list("lines", ["#440154", "#3b528b", "#21918c", "#4fb84a", "#d0a800"])
_CHANGE = "RdBu_r"
_LOST = "0.2"
SHRINKS, GROWS, _PALE = "#2166ac", "#b2182b", "0.35"
_INK = {"vanishes": SHRINKS, "merges": SHRINKS, "explodes": GROWS, "saturates": GROWS, "unknown": _PALE}
_CELLS = {"gain": 0.0, "its name": 0.16, "signal": 0.66, "gradient": 0.85}
_TITLES = {
    "std": ("std of the activations", "flat: the signal survives"),
    "gradient": ("gradient rms, output = 1", "from right to left, the way it travels"),
    "std map": ("std, input = 1", "every gain; marks: the lines'"),
    "gradient map": ("gradient rms, output = 1", "from right to left"),
}


def draw_sweep(figure: Figure, dataset: xarray.Dataset) -> None:
    """Draw a sweep's dataset on an empty figure, and give the figure its size.

    A row per activation: the named gains and those given as numbers, with their verdicts; std and gradient
    over depth for them, with bands of one standard error over seeds; both as maps over depth and every gain,
    blue where they shrink and red where they grow. All rows share their scales.

    Args:
        figure: e.g. `matplotlib.figure.Figure()`; no pyplot state is touched.
        dataset: of `jaxgain.sweep`; without `std` or `log_grad_rms` the panels of that one stay empty.
    """
    dataset = in_rows(dataset)
    settings = json.loads(dataset.attrs["config"])
    ends = FORMATS[settings.get("dtype", "float32")]
    summary, powers = summarize(dataset), _some_layers(in_decades(dataset))
    shown = {name: _thin(gains_to_show(dataset, name)) for name in dataset["activation"].values}
    lines = {name: powers.sel(activation=name).sel(gain=list(gains)) for name, gains in shown.items()}
    limits = {
        what: _limits([one[what].values for one in lines.values()], max([decades, *map(abs, ends.values())]))
        for what, decades in DECADES.items()
    }
    height = HEAD + ROW * len(shown) + FOOT
    figure.set_size_inches(WIDTH, height)
    panels = {column: _panels(figure, column, len(shown)) for column in COLUMNS}

    for row, (name, gains) in enumerate(shown.items()):
        at = {column: axes[row] for column, axes in panels.items()}
        colours = _LINES(np.linspace(0, 1, len(gains) + 1)[:-1] if len(gains) > 1 else [0.0])
        draw_verdicts(at["list"], name, gains, summary.sel(activation=name).sel(gain=list(gains)), colours)
        for what, statistic in RECORDED.items():
            draw_lines(at[what], lines[name][what], lines[name][f"{what}_error"], colours, limits[what])
            draw_ends(at[what], ends, label=row == 0)
            if statistic not in dataset:
                at[what].text(0.5, 0.5, "not recorded", ha="center", transform=at[what].transAxes)
        of_all = powers.sel(activation=name)
        draw_map(at["std map"], of_all["std"] - powers.attrs["input_std"], DECADES["std"])
        draw_map(at["gradient map"], of_all["gradient"], DECADES["gradient"])
        mark_gains(at["gradient map"], list(gains), colours, label=True)
        mark_gains(at["std map"], list(gains), colours, label=False)
        at["std map"].set_ylabel("gain", labelpad=1)
        at["gradient map"].tick_params(labelleft=False)
    for column, axes in panels.items():
        for axis in axes[:-1]:
            axis.tick_params(labelbottom=False)
        axes[-1].set_xlabel("layer" if column != "list" else "", labelpad=2)
    _head(figure, panels, settings)
    _foot(figure, missing_bias(dataset), settings.get("dtype", "float32"))


def _some_layers(powers: xarray.Dataset) -> xarray.Dataset:
    """As many layers, evenly from the first to the last, as a panel can show."""
    last = powers.sizes["layer"] - 1
    return powers.isel(layer=np.linspace(0, last, MOST_LAYERS).round().astype(int)) if last >= MOST_LAYERS else powers


def in_decades(dataset: xarray.Dataset) -> xarray.Dataset:
    """Seed means and standard errors as powers of ten, dims (activation, gain, layer).

    `std` and `std_error`; `gradient` and `gradient_error` are of the gradient's rms over that at the output.
    The attribute `input_std` is the power of ten of the inputs' std.
    """
    powers = by_gains(_in_decades, dataset)
    return powers.assign_attrs(input_std=float(powers["std"].isel(layer=0).mean()))


def _in_decades(dataset: xarray.Dataset) -> xarray.Dataset:
    over = complete(dataset)
    std, std_error = mean_and_error(over["std"])
    gradient, gradient_error = mean_and_error(over["log_grad_rms"] - over["log_grad_rms"].isel(layer=-1, drop=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = {
            "std": np.log10(std),
            "std_error": std_error / std / np.log(10),
            "gradient": gradient / np.log(10),
            "gradient_error": gradient_error / np.log(10),
        }
    return xarray.Dataset(powers)


def draw_lines(
    axes: Axes,
    mean: xarray.DataArray,
    error: xarray.DataArray,
    colours: np.ndarray,
    limits: tuple[float, float],
) -> None:
    """Draw powers of ten over layers, dims (gain, layer): a line per gain, a band of one standard error."""
    layer = mean["layer"].values
    for y, e, colour in zip(mean.values, np.nan_to_num(error.values), colours, strict=True):
        axes.plot(layer, y, color=colour, linewidth=1.5)
        axes.fill_between(layer, y - e, y + e, color=colour, alpha=0.25, linewidth=0)
    axes.set_xlim(layer[0], layer[-1])
    axes.set_ylim(*limits)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_power))
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, length=2)


def draw_ends(axes: Axes, ends: dict[str, float], *, label: bool) -> None:
    """Draw where a number format ends, powers of ten by name, as far as the axes reach."""
    low, high = axes.get_ylim()
    for name, power in ends.items():
        if low <= power <= high:
            axes.axhline(power, color=_LOST, linewidth=0.9, linestyle="--")
            if label:
                axes.text(0.98, power, name, transform=axes.get_yaxis_transform(), fontsize=7, ha="right", va="bottom")


def draw_map(axes: Axes, powers: xarray.DataArray, decades: float) -> None:
    """Draw powers of ten as colours over layer and gain, white where unchanged, ending at +-`decades`.

    The gain axis is logarithmic, with a place for 0 below the smallest positive gain.
    """
    layers, gains = powers["layer"].values, powers["gain"].values
    positive = gains[gains > 0]
    values = np.ma.masked_invalid(powers.transpose("gain", "layer").clip(-decades, decades).values)
    edges = np.exp(cell_edges(np.log(positive))) if positive.size else np.array([1.0])
    if gains[0] == 0:
        edges = np.concatenate([[-0.5 * edges[0], 0.5 * edges[0]], edges[1:]])
    axes.set_facecolor(_LOST)
    axes.pcolormesh(cell_edges(layers), edges, values, cmap=_CHANGE, vmin=-decades, vmax=decades, rasterized=True)
    axes.set_yscale("symlog", linthresh=abs(edges[0]), linscale=0.3)
    axes.yaxis.set_major_locator(FixedLocator(_round_gains(gains)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda gain, _: f"{gain:.3g}"))
    axes.set_ylim(edges[0], edges[-1])
    axes.set_xlim(layers[0], layers[-1])
    axes.tick_params(labelsize=8, length=2)


def mark_gains(axes: Axes, gains: list[float], colours: np.ndarray, *, label: bool) -> None:
    """Mark gains at a map's right edge, and write their values beside it, moved apart where they'd touch."""
    across = axes.get_yaxis_transform()
    for gain, colour in zip(gains, colours, strict=True):
        axes.plot([0.975, 1], [gain, gain], color=colour, linewidth=2.5, transform=across, solid_capstyle="butt")
    if not label:
        return
    heights = (axes.transScale + axes.transLimits).transform([(0, gain) for gain in gains])[:, 1]
    for gain, colour, low, height in zip(gains, colours, heights, spread(heights, gap=0.115), strict=True):
        axes.plot([1.0, 1.07], [low, height], color=colour, linewidth=1, transform=axes.transAxes, clip_on=False)
        axes.text(1.09, height, _number(gain), color=colour, fontsize=8, va="center", transform=axes.transAxes)


def draw_verdicts(
    axes: Axes, activation: str, gains: dict[float, str], summary: xarray.Dataset, colours: np.ndarray
) -> None:
    """Write the activation's name, and below it its gains, highest first, with their names and verdicts."""
    axes.set_axis_off()
    axes.text(0, 1.02, activation, fontsize=14, fontweight="bold", va="top", transform=axes.transAxes)
    for line, (gain, colour) in enumerate(reversed(list(zip(gains, colours, strict=True)))):
        one = summary.sel(gain=gain)
        words = [str(one[word].values) for word in ("signal", "gradient")]
        cells = [_number(gain), _short(gains[gain]), *words]
        inks = [colour, "black", *(_INK.get(word, "black") for word in words)]
        for x, text, ink in zip(_CELLS.values(), cells, inks, strict=True):
            weight = "bold" if text is cells[0] else "normal"
            axes.text(x, 0.77 - 0.11 * line, text, color=ink, weight=weight, fontsize=8.5, transform=axes.transAxes)


def spread(heights: np.ndarray, *, gap: float) -> np.ndarray:
    """Move rising heights in [0, 1] as little as possible (least squares) until they lie `gap` apart.

    >>> spread(np.array([0.5, 0.5, 0.9]), gap=0.1).round(3).tolist()
    [0.45, 0.55, 0.9]
    """
    steps = gap * np.arange(len(heights))
    blocks: list[list[float]] = []
    for target in heights - steps:
        blocks.append([target])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    return level.clip(0, max(0.0, 1 - steps[-1])) + steps


def _panels(figure: Figure, column: str, rows: int) -> list[Axes]:
    left, right = COLUMNS[column]
    height = figure.get_figheight()
    grid = figure.add_gridspec(
        rows, 1, left=left, right=right, top=1 - HEAD / height, bottom=FOOT / height, hspace=0.16
    )
    return [figure.add_subplot(grid[row]) for row in range(rows)]


def _thin(gains: dict[float, str]) -> dict[float, str]:
    """As many gains as can be told apart, evenly chosen."""
    keys = list(gains)
    chosen = np.linspace(0, len(keys) - 1, min(len(keys), MOST_LINES)).round().astype(int)
    return {keys[index]: gains[keys[index]] for index in chosen}


def _limits(powers: list[np.ndarray], decades: float) -> tuple[float, float]:
    """Whole decades that hold the finite values, at least one and at most `decades` each way."""
    values = np.concatenate([each.ravel() for each in powers])
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (-1.0, 1.0)
    return max(-decades, min(-1.0, np.floor(low))) - 0.1, min(decades, max(1.0, np.ceil(high))) + 0.1


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells around sorted centres, halfway between neighbours."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[1.5 * centres[0] - 0.5 * centres[1]], between, [1.5 * centres[-1] - 0.5 * centres[-2]]])


def _round_gains(gains: np.ndarray) -> list[float]:
    """Ticks for a logarithmic axis of gains: round numbers, or powers of a hundred where it is long."""
    least = gains[gains > 0].min(initial=np.inf)
    wide = gains[-1] > 100 * least
    ticks = [
        0.0,
        *(10.0 ** np.arange(-6, 8, 2) if wide else (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)),
    ]
    return [float(tick) for tick in ticks if tick in gains or least <= tick <= gains[-1]] or [float(gains[0])]


def _power(exponent: float, _: Any = None) -> str:
    return {0: "1", 1: "10"}.get(int(exponent), f"$10^{{{exponent:g}}}$")


def _number(gain: float) -> str:
    return f"{gain:.3f}" if 0.01 <= gain < 1000 else f"{gain:.3g}"


def _short(names: str) -> str:
    """At most two names, and how many more."""
    each = names.split(", ")
    return names if len(each) <= 2 else f"{each[0]}, {each[1]} +{len(each) - 2}"


def _head(figure: Figure, panels: dict[str, list[Axes]], settings: dict[str, Any]) -> None:
    height = figure.get_figheight()
    title = f"Does the signal, and does its gradient, survive {settings['depth']:,} layers?"
    seeds = f"{settings['seeds']} seeds" if settings["seeds"] > 1 else "1 seed"
    size = f"width {_listed(settings.get('widths') or settings['width'])}, depth {settings['depth']:,}, {seeds}"
    about = (
        f"Random networks, {size}; bands: standard errors over seeds; "
        f"cotangent at the output: {settings['cotangent']}; bias std: {_listed(settings['sigma_b'])}; "
        f"input rms: {settings['input_scale']:g}"
    )
    if special := _special(settings):
        figure.text(0.02, 1 - 0.85 / height, special, fontsize=10, va="center", color=_PALE)
    figure.text(0.02, 1 - 0.32 / height, title, fontsize=17, fontweight="bold", va="center")
    figure.text(0.02, 1 - 0.62 / height, about, fontsize=10, va="center", color=_PALE)
    for column, (what, how) in _TITLES.items():
        first = panels[column][0]
        first.text(0, 1.19, what, fontsize=11, fontweight="bold", transform=first.transAxes)
        first.text(0, 1.06, how, fontsize=9, color=_PALE, transform=first.transAxes)
    for cell, x in _CELLS.items():
        panels["list"][0].text(x, 1.13, cell, fontsize=9, color=_PALE, transform=panels["list"][0].transAxes)


def _special(settings: dict[str, Any]) -> str:
    """What of the settings makes these other networks than plain Gaussian ones, in words."""
    usual = {"block": "plain", "branch": "one_layer", "distribution": "normal", "mode": "fan_in", "dtype": "float32"}
    usual |= {"draw_dtype": "float32", "tied": False, "dropout": 0.0, "first_gain": None, "readout_gain": None}
    usual |= {"layer_gains": [], "input_correlation": None}
    kept = {name: settings[name] for name, value in usual.items() if settings.get(name, value) != value}
    normed = settings.get("block") in ("prenorm", "postnorm")
    kept |= {"norm": settings["norm"]} if normed else {}
    kept |= {"alpha": settings["alpha"]} if normed or settings.get("block") == "residual" else {}
    return "; ".join(f"{name.replace('_', ' ')}: {_listed(value)}" for name, value in kept.items())


def _listed(value: Any) -> str:
    """Numbers in a few digits, and no more than four of them.

    >>> _listed(1000), _listed([0.0, 0.1]), _listed([1, 2, 3, 4, 5])
    ('1,000', '0, 0.1', '1, 2 … 5')
    """
    if isinstance(value, list):
        words = [_listed(each) for each in value]
        return ", ".join(words) if len(words) <= 4 else f"{words[0]}, {words[1]} … {words[-1]}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _foot(figure: Figure, missing: dict[str, float], dtype: str) -> None:
    """Colour bars below the columns they explain, and what the words of the list mean."""
    height = figure.get_figheight()
    for column, name in (("std map", "std"), ("gradient map", "gradient")):
        left, right = COLUMNS[column]
        place = (left + 0.005, 0.5 / height, right - left - 0.01, 0.11 / height)
        scale = ScalarMappable(Normalize(-DECADES[name], DECADES[name]), _CHANGE)
        bar = figure.colorbar(scale, cax=figure.add_axes(place), orientation="horizontal", extend="both")
        bar.ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        bar.ax.xaxis.set_major_formatter(FuncFormatter(_power))
        bar.ax.tick_params(labelsize=8, length=2)
        bar.set_label("vanishes   |   explodes", fontsize=9)
    lost = [Patch(color=_LOST, label=f"no finite value in {dtype}")]
    figure.legend(handles=lost, loc="lower center", bbox_to_anchor=(0.552, 0.3 / height), fontsize=9, frameon=False)
    words = (
        "survives: within a factor 10 over the depth   vanishes, explodes: beyond it\n"
        "saturates: most neurons where phi is flat   merges: all inputs give one output"
    )
    if FORMATS[dtype]:
        words += f"\ndashed: where {dtype} ends"
    if missing:
        needed = ", ".join(f"{activation} {sigma_b:.3f}" for activation, sigma_b in missing.items())
        words += f"\n*critical only with its bias std, absent here: {needed}"
    figure.text(0.02, 0.45 / height, words, fontsize=9, color=_PALE, va="center")
