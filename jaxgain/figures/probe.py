"""The figure of a probed model: signal and gradient at every linear operation, from the input at the top down."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

ROW, HEAD, FOOT, WIDTH = 0.165, 1.25, 1.0, 12.5  # inches
MOST_NAMES, LONGEST = 110, 38
COLUMNS = {"signal": (0.25, 0.535), "gradient": (0.565, 0.85)}
LOOKS = {  # by path: colour, marker, whether it is filled, and what it is
    "main": ("#222222", "o", True, "main path"),
    "branch": ("#2a78b8", "s", True, "inside a residual branch"),
    "branch end": ("#d97706", "D", False, "end of a branch: added to what entered it"),
}
BAD, PALE = "#c1121f", "0.4"
FORMATS = {  # powers of ten of the largest and the smallest normal number
    "float16": (4.82, -4.21),
    "bfloat16": (38.53, -37.93),
    "float32": (38.53, -37.93),
    "float64": (308.25, -307.65),
}
MARGIN = 1.5  # decades beside the data in which a format's end is still shown


def draw_probe(report: xarray.Dataset, figure: Figure | None = None) -> Figure:
    """Draw the report of `probe` and return the figure, which gets its size here.

    A row per site, the input at the top: left the rms of its output (with the largest magnitude behind it), right
    the rms of the loss's gradient there, both as powers of ten. Sites that play the same part at different depths are
    joined. Those on the main path, inside of residual branches and at the end of such differ in colour and shape. Red
    are sites that are not healthy, with their verdict. Dashed lines are where number formats end.

    Args:
        report: of `jaxgain.probe`, or read from a file that it was saved in.
        figure: an empty one, new by default; no pyplot state is touched.

    Raises TypeError where `report` is not one of `probe`.
    """
    if "log_grad_output" not in getattr(report, "variables", {}) or "verdict" not in report.variables:
        raise TypeError(f"draw_probe needs a report of jaxgain.probe, got {type(report).__name__}")
    figure = Figure() if figure is None else figure
    count = report.sizes["site"]
    rows = ROW * min(max(count, 8), MOST_NAMES + 10)
    height = HEAD + rows + FOOT
    figure.set_size_inches(WIDTH, height)
    axes = {
        what: figure.add_axes((left, FOOT / height, right - left, rows / height))
        for what, (left, right) in COLUMNS.items()
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        draw_rms(axes["signal"], report, np.log10(report["rms_out"].values), np.log10(report["max_out"].values))
        draw_rms(
            axes["gradient"],
            report,
            report["log_grad_output"].values / math.log(10),
            np.log10(report["max_grad"].values),
        )
    draw_names(axes["signal"], report)
    axes["gradient"].tick_params(labelleft=False)
    draw_verdicts(axes["gradient"], report)
    axes["signal"].set_title("signal: rms of each output ↓", loc="left", fontsize=10, fontweight="bold", pad=16)
    axes["gradient"].set_title("gradient: rms of ∂loss/∂output ↑", loc="left", fontsize=10, fontweight="bold", pad=16)
    _words(figure, report, height)
    return figure


def draw_rms(axes: Axes, report: xarray.Dataset, rms: np.ndarray, largest: np.ndarray) -> None:
    """Draw powers of ten over the sites, downwards; the largest magnitudes as thin bars to the right of the rms."""
    place, paths = np.arange(len(rms)), report["path"].values.astype(str)
    bad = _is_bad(report)
    finite = np.isfinite(rms)
    low, high = _range(rms[finite], largest[np.isfinite(largest)])
    tops = np.where(np.isfinite(largest), largest, np.where(np.isnan(largest), rms, high))
    axes.hlines(place[finite], rms[finite], tops[finite], color="0.82", linewidth=1.6, zorder=1)
    chains = report["chain"].values.astype(str)
    for chain in dict.fromkeys(chains):
        of = (chains == chain) & finite
        if np.sum(of) > 1:
            axes.plot(rms[of], place[of], color=LOOKS[paths[of][0]][0], linewidth=1.1, alpha=0.55, zorder=2)
    for path, (colour, marker, filled, _) in LOOKS.items():
        for is_bad in (False, True):
            of = (paths == path) & finite & (bad == is_bad)
            ink = BAD if is_bad else colour
            axes.plot(rms[of], place[of], marker, color=ink, markerfacecolor=ink if filled else "white", ms=4, zorder=3)
    for which, at, sign in ((rms == -np.inf, low, "◂"), (rms == np.inf, high, "▸")):
        for index in place[which]:
            word = f"{sign} 0" if sign == "◂" else f"∞ {sign}"
            axes.annotate(word, (at, index), color=BAD, fontsize=7, va="center", ha="left" if at == low else "right")
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(len(rms) - 0.3, -0.7)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_power))
    axes.grid(axis="x", color="0.93", linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="both", length=0, labelsize=8)
    _draw_formats(axes, low, high)


def _draw_formats(axes: Axes, low: float, high: float) -> None:
    """Draw where formats end, those that end at the same power under one name."""
    ends: dict[float, list[str]] = {}
    for name, powers in FORMATS.items():
        for power in powers:
            if low <= power <= high:
                ends.setdefault(power, []).append(name)
    for power, names in ends.items():
        axes.axvline(power, color="#7b2d8b", linewidth=1, linestyle="--", zorder=1)
        word = ", ".join(names) + (" overflows" if power > 0 else " underflows")
        at = {"xy": (power, 1), "xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        side = {"ha": "right", "xytext": (2, 3)} if power > 0 else {"ha": "left", "xytext": (-2, 3)}
        axes.annotate(word, fontsize=7, color="#7b2d8b", annotation_clip=False, **at, **side)


def draw_names(axes: Axes, report: xarray.Dataset) -> None:
    """Write the sites' names beside the rows, of very many only some; red where a site is not healthy."""
    names, bad = report["name"].values.astype(str), _is_bad(report)
    every = -(-len(names) // MOST_NAMES)
    shown = range(0, len(names), every)
    axes.set_yticks(list(shown), [_cut(names[index]) for index in shown], fontsize=7.5)
    paths = report["path"].values.astype(str)
    for label, index in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_color(BAD if bad[index] else LOOKS[paths[index]][0])


def draw_verdicts(axes: Axes, report: xarray.Dataset) -> None:
    """Write the verdict beside the first row of every run of sites that have the same, and how long the run is."""
    verdicts, names = report["verdict"].values.astype(str), report["name"].values.astype(str)
    causes = report["cause"].values.astype(str)
    words = [
        f"{verdict} ({cause})" if cause and verdict not in ("dead", "saturates") else verdict
        for verdict, cause in zip(verdicts, causes, strict=True)
    ]
    beside = axes.get_yaxis_transform()
    start = 0
    for index in range(1, len(names) + 1):
        if index < len(names) and words[index] == words[start]:
            continue
        if verdicts[start] != "healthy":
            ink = PALE if verdicts[start] == "not run" else BAD
            axes.plot([1.015, 1.015], [start - 0.35, index - 0.65], color=ink, lw=2, transform=beside, clip_on=False)
            run = f"{words[start]}" + (f"\n{index - start} sites" if index - start > 1 else "")
            axes.text(1.03, (start + index - 1) / 2, run, color=ink, fontsize=8, va="center", transform=beside)
        start = index


def _words(figure: Figure, report: xarray.Dataset, height: float) -> None:
    verdicts = Counter(str(verdict) for verdict in report["verdict"].values)
    healthy = set(verdicts) <= {"healthy", "not run"}
    title = "Where the signal and its gradient go"
    about = (
        f"All {verdicts['healthy']} linear operations are healthy."
        if healthy
        else f"It begins here: {report.attrs.get('summary', '')}"
    )
    figure.text(0.02, 1 - 0.3 / height, title, fontsize=15, fontweight="bold", va="center")
    figure.text(0.02, 1 - 0.62 / height, about, fontsize=10, va="center", color=PALE if healthy else BAD)
    paths = [path for path in LOOKS if path in report["path"].values]
    handles = [
        Line2D(
            [], [], color=colour, marker=marker, ms=5, lw=1, markerfacecolor=colour if filled else "white", label=word
        )
        for colour, marker, filled, word in (LOOKS[path] for path in paths)
    ]
    handles.append(Line2D([], [], color="0.82", lw=2, label="up to the largest magnitude"))
    if not healthy:
        handles.append(Line2D([], [], color=BAD, marker="o", lw=0, ms=5, label="not healthy"))
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.02, 0.02 / height), ncols=len(handles), frameon=False,
        fontsize=8.5, columnspacing=1.4, handlelength=1.6,
    )  # fmt: skip
    for line, words in enumerate(_growths(report)):
        figure.text(0.25, (0.62 - 0.16 * line) / height, words, fontsize=8.5, va="center", color=PALE)


def _growths(report: xarray.Dataset, most: int = 2) -> list[str]:
    """Say what the longest chains do per site: geometric means."""
    chains = Counter(str(chain) for chain in report["chain"].values)
    lines = []
    for chain, count in chains.most_common():
        rows = report["chain"].values == chain
        if count < 5 or len(lines) == most:
            break
        parts = []
        for name, word in (("growth_signal", "signal"), ("growth_gradient", "gradient, going up,")):
            values = report[name].values[rows]
            values = values[~np.isnan(values)]
            with np.errstate(divide="ignore"):
                logs = np.log(values)
            if len(logs) and np.all(np.isfinite(logs)):
                parts.append(f"{word} × {math.exp(np.mean(logs)):.3f}")
        if parts:
            lines.append(f"{_cut(chain)}, per site: {'; '.join(parts)}")
    return lines


def draw_drift(drift: xarray.Dataset, figure: Figure | None = None) -> Figure:
    """Draw what `Monitor.dataset` returns: how the signal and the gradient of each site change over the steps.

    Left the rms of every output, right that of the gradient, as powers of ten relative to the first step measured;
    blue has become smaller and red larger. Sites go down, from the input at the top.

    Raises TypeError where `drift` is no such dataset.
    """
    if not {"rms_out", "log_grad_output", "step"} <= set(getattr(drift, "variables", {})):
        raise TypeError(f"draw_drift needs the dataset of a monitor, got {type(drift).__name__}")
    figure = Figure() if figure is None else figure
    count = drift.sizes["site"]
    rows = ROW * min(max(count, 12), MOST_NAMES + 10)
    height = 0.95 + rows + 0.55
    figure.set_size_inches(WIDTH, height)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = {
            "signal": np.log10(drift["rms_out"].values),
            "gradient": drift["log_grad_output"].values / math.log(10),
        }
    for what, (left, right) in COLUMNS.items():
        axes = figure.add_axes((left, 0.55 / height, right - left, rows / height))
        with np.errstate(invalid="ignore"):
            change = parts[what] - parts[what][0]
        limit = max(0.3, min(4.0, float(np.max(np.abs(change[np.isfinite(change)]), initial=0))))
        steps, edges = _edges(drift["step"].values), np.arange(count + 1) - 0.5
        image = axes.pcolormesh(steps, edges, change.T, cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=True)
        axes.set_facecolor("0.2")
        axes.invert_yaxis()
        axes.set_title(f"{what}: rms over that at step {drift['step'].values[0]}", loc="left", fontsize=10)
        axes.set_xlabel("step")
        bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05, format=FuncFormatter(_fine_power))
        bar.ax.tick_params(labelsize=7)
        names = drift["name"].values.astype(str)
        shown = range(0, count, -(-count // MOST_NAMES))
        labels = [_cut(names[index]) for index in shown] if what == "signal" else [""] * len(shown)
        axes.set_yticks(list(shown), labels, fontsize=7.5)
        axes.tick_params(length=0)
    figure.text(0.02, 1 - 0.3 / height, "How signal and gradient drift in training", fontsize=15, fontweight="bold")
    return figure


def _edges(steps: np.ndarray) -> np.ndarray:
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    between = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[1.5 * steps[0] - 0.5 * steps[1]], between, [1.5 * steps[-1] - 0.5 * steps[-2]]])


def _is_bad(report: xarray.Dataset) -> np.ndarray:
    return ~np.isin(report["verdict"].values.astype(str), ["healthy", "not run"])


def _range(rms: np.ndarray, largest: np.ndarray) -> tuple[float, float]:
    """Return at least two decades around the data and 1, wide enough for a format's end that is near."""
    values: Sequence[float] = [*rms, *largest, 0.0]
    low, high = min(values), max(values)
    for power in (power for powers in FORMATS.values() for power in powers):
        if power > 0 and high < power < high + MARGIN:
            high = power
        if power < 0 and low - MARGIN < power < low:
            low = power
    pad = max(0.25, 0.04 * (high - low))
    return min(low - pad, -1.0), max(high + pad, 1.0)


def _power(exponent: float, _: Any = None) -> str:
    return {0: "1", 1: "10"}.get(int(exponent), f"$10^{{{exponent:g}}}$")


def _fine_power(exponent: float, _: Any = None) -> str:
    return f"×{10**exponent:.2g}"


def _cut(name: str) -> str:
    if len(name) <= LONGEST:
        return name
    begin = (LONGEST - 1) // 2
    return f"{name[:begin]}…{name[len(name) - (LONGEST - 1 - begin) :]}"
