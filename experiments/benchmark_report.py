"""What the benchmark's dataset says: its limits, its tables and its figure."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from jaxgain.experiments import console, save_dataset, save_figure

UNIT, TANGENT, ALL = "tanh alone", "tanh, forward + tangent", "tanh, all statistics"
FORUM, TORCH, DENSE = "the forum's loop in PyTorch", "dense in PyTorch", "dense in jaxgain"
FEW_GAINS = 4  # of the scaling over width and depth
MOST_SECONDS = {"tanh": 5, "any": 15}  # of a phase diagram
MOST_MEMORY = 0.5  # GB, at the largest width and the largest depth
DENSE_FLOORS = {256: 25, 1024: 50, 2048: 60}  # per cent of the machine's matmul rate, by stacked rows
NO_TORCH = "PyTorch is not installed: pip install torch"
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "0.4"  # of Okabe and Ito


# Judge


class Row(NamedTuple):
    """One claim: its value in each round, the value of the shortest times, its unit, and its limits."""

    section: str
    claim: str
    values: np.ndarray
    of_shortest: float
    unit: str
    least: float = -np.inf
    most: float = np.inf

    @property
    def met(self) -> bool | None:
        """Whether the median is where it must be; None without a limit or a value."""
        if not self.values.size or np.isinf([self.least, self.most]).all():
            return None
        return bool(self.least <= np.median(self.values) <= self.most)

    @property
    def limit(self) -> str:
        """The limit in words."""
        if np.isfinite([self.least, self.most]).all():
            return f"{self.least:g} – {self.most:g}"
        limits = {"≥": self.least, "≤": self.most}
        return "".join(f"{sign} {limit:,g}" for sign, limit in limits.items() if np.isfinite(limit))


def judge(dataset: xarray.Dataset) -> Iterator[Row]:
    """Everything that was measured, beside its limit."""
    config = json.loads(dataset.attrs["config"])
    parts = {"job": judge_job, "dense": judge_dense, "trivial": judge_growth}
    for group, judge_part in parts.items():
        if group in dataset["group"].values:
            yield from judge_part(dataset, config)
    if "diagram_seconds" in dataset:
        yield from judge_diagrams(dataset, config)


def judge_job(dataset: xarray.Dataset, config: dict[str, Any]) -> Iterator[Row]:
    """What a neuron costs, and what the same job costs by other means."""
    section, unit = "Cost per neuron, layer, gain and seed, in units of one tanh on all cores", cost(dataset, UNIT)
    yield Row(section, "one tanh, in place, per element", 1e9 * unit, 1e9 * unit.min(), "ns")
    yield Row(section, TANGENT, *ratio(dataset, TANGENT, UNIT), "", most=3.5)
    yield Row(section, ALL, *ratio(dataset, ALL, UNIT), "", most=6.5)
    for name in (f"{phi}{what}" for phi in config["activations"] for what in (" alone", ", all statistics")):
        yield Row(section, name, *ratio(dataset, name, UNIT), "")
    engine, whole = (dataset[name].sel(measure=ALL).values for name in ("seconds", "wall_seconds"))
    around, best = whole / engine - 1, whole.min() / engine.min() - 1
    yield Row(section, "what sweep adds around its engine", 100 * around, 100 * best, "%", most=10)

    section = f"The same job by other means, over {ALL}"
    networks = f" (scaled from {config['forum_networks']} of {config['gains'] * config['seeds']:,} networks)"
    for name, note, floor in ((FORUM, networks, 5000), (TORCH, "", 40), (DENSE, "", 40)):
        if name in dataset["measure"]:
            yield Row(section, name + note, *ratio(dataset, name, ALL), "×", least=floor)
        else:
            yield Row(section, f"{name}: {NO_TORCH}", np.array([]), np.nan, "×", least=floor)


def judge_dense(dataset: xarray.Dataset, config: dict[str, Any]) -> Iterator[Row]:
    """How much of a matmul's rate is reached."""
    section = "Dense, forward + reverse with its random numbers, of the machine's own matmul rate"
    for rows in config["dense_rows"]:
        share, best = ratio(dataset, f"matmul, {rows:,} rows", f"dense, {rows:,} rows")
        claim, floor = f"{rows:,} stacked rows, width {config['width']:,}", DENSE_FLOORS.get(rows, -np.inf)
        yield Row(section, claim, 100 * share, 100 * best, "%", least=floor)


def judge_growth(dataset: xarray.Dataset, config: dict[str, Any]) -> Iterator[Row]:
    """How time and memory grow with width, depth and gains."""
    section = f"Growth of {ALL}, one seed"
    for axis in ("width", "depth"):
        sizes, seconds, _ = scaling(dataset, axis)
        powers, best = exponent(sizes, seconds), exponent(sizes, seconds.min(axis=1, keepdims=True))
        claim = f"exponent in {axis}, {sizes[0]:,.0f} to {sizes[-1]:,.0f}"
        yield Row(section, claim, powers, best[0], "", least=0.9, most=1.1)
    counts, seconds, _ = scaling(dataset, "gains")
    off = 100 * np.array([affine(counts, each)[2] for each in (*seconds.T, seconds.min(axis=1))])
    yield Row(section, "farthest number of gains from a line", off[:-1], off[-1], "%")
    for axis, limit in (("width", MOST_MEMORY), ("depth", MOST_MEMORY), ("gains", np.inf)):
        sizes, seconds, memory = scaling(dataset, axis)
        largest = f"{worded(axis, int(sizes[-1]))}, {fixed_sizes(config, axis)}"
        yield Row(section, f"time at {largest}", seconds[-1], seconds[-1].min(), "s")
        whole = f"whole process at {largest}, with JAX and its compiler"
        yield Row(section, whole, memory[-1:], memory[-1], "GB", most=limit)
        beyond = memory[-1] - trivial_memory(dataset)
        yield Row(section, f"memory at {largest}, beyond a trivial sweep", np.array([beyond]), beyond, "GB")


def judge_diagrams(dataset: xarray.Dataset, config: dict[str, Any]) -> Iterator[Row]:
    """How long a phase diagram takes, for tanh and for the slowest activation."""
    points, seconds = config["diagram_points"], dataset["diagram_seconds"]
    section = f"Phase diagram of {points} × {points} points, compiling included"
    slowest = str(seconds.median("diagram_repeat").idxmax("diagram").values)
    claims = {
        "tanh": ("tanh", "tanh"),
        f"slowest of {seconds.sizes['diagram']} activations: {slowest}": (slowest, "any"),
    }
    for claim, (phi, limit) in claims.items():
        values = seconds.sel(diagram=phi).values
        yield Row(section, claim, values, values.min(), "s", most=MOST_SECONDS[limit])


def cost(dataset: xarray.Dataset, name: str) -> np.ndarray:
    """Seconds per piece of work in each round."""
    one = dataset.sel(measure=name)
    return (one["seconds"] / one["work"]).values


def ratio(dataset: xarray.Dataset, name: str, over: str) -> tuple[np.ndarray, float]:
    """Ratio of costs in each round, and that of the least costs."""
    costs, others = cost(dataset, name), cost(dataset, over)
    return costs / others, costs.min() / others.min()


def scaling(dataset: xarray.Dataset, axis: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes along an axis, seconds (size, repeat), and peak memory of the process in GB."""
    some = dataset.isel(measure=dataset["group"].values == axis)
    return some["size"].values, some["seconds"].values, some["peak_bytes"].values / 1e9


def trivial_memory(dataset: xarray.Dataset) -> float:
    """Peak memory in GB of a process that runs a trivial sweep: Python, JAX and its compiler."""
    return dataset["peak_bytes"].values[dataset["group"].values == "trivial"].item() / 1e9


def fixed_sizes(config: dict[str, Any], axis: str) -> str:
    """Return the sizes that stay while the one along `axis` grows."""
    return ", ".join(worded(name, size) for name, size in start_of(config, axis).items() if name != axis)


def start_of(config: dict[str, Any], axis: str) -> dict[str, int]:
    """Return the sizes from which the scaling along `axis` starts."""
    depth = config["gains_depth"] if axis == "gains" else config["depths"][0]
    return {"width": config["widths"][0], "depth": depth, "gains": FEW_GAINS}


def worded(axis: str, size: int) -> str:
    """Write a size along an axis.

    >>> worded("width", 1000), worded("gains", 4), worded("gains", 1)
    ('width 1,000', '4 gains', '1 gain')
    """
    return f"{size:,} gain{'s' * (size != 1)}" if axis == "gains" else f"{axis} {size:,}"


def exponent(sizes: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The p of seconds ~ sizes^p in each column, by least squares in the logarithms."""
    return np.polyfit(np.log(sizes), np.log(seconds), 1)[0]


def affine(sizes: np.ndarray, seconds: np.ndarray) -> tuple[float, float, float]:
    """The a and b of seconds ~ a + b sizes, by least squares in relative terms, and the largest relative residual."""
    slope, start = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    return start, slope, np.max(np.abs((start + slope * sizes) / seconds - 1))


# Show


def tables_of_rows(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Every claim: its median over the rounds with quartiles, its value of the shortest times, its limit."""
    widths = {"": 46, "median": 11, "quartiles": 15, "of shortest": 11, "limit": 9, "met": 3}
    for section in dict.fromkeys(row.section for row in rows):
        table = _table(widths, header=section == rows[0].section)
        for row in (row for row in rows if row.section == section):
            met = {True: "[green]yes", False: "[red]no", None: ""}[row.met]
            table.add_row(row.claim, *spread(row.values, row.unit), short(row.of_shortest), row.limit, met)
        yield from (Text(f"\n{section}", style="bold"), table)


def table_of_times(dataset: xarray.Dataset) -> Table:
    """Seconds of each measure and of compiling it, and of phase diagrams, which cannot do without."""
    table = _table({"seconds": 34, "median": 12, "quartiles": 20, "shortest": 12, "compiling": 12})
    for name in dataset["measure"].values:
        seconds, compiling = (dataset[what].sel(measure=name).values for what in ("seconds", "compile_seconds"))
        table.add_row(str(name), *spread(seconds), short(seconds.min()), short(float(compiling)))
    for name in dataset["diagram"].values if "diagram" in dataset else ():
        seconds = dataset["diagram_seconds"].sel(diagram=name).values
        table.add_row(f"phase diagram, {name}", *spread(seconds), short(seconds.min()), "included")
    return table


def _table(widths: dict[str, int], *, header: bool = True) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=header, header_style="dim")
    for place, (name, width) in enumerate(widths.items()):
        table.add_column(name, width=width, justify="right" if place else "left")
    return table


def spread(values: np.ndarray, unit: str = "") -> tuple[str, str]:
    """Write the median with its unit, and the quartiles of more than one value.

    >>> spread(np.array([1.0, 2.0, 3.0]), "s")
    ('2 s', '1.5 – 2.5')
    """
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]) if values.size else [np.nan] * 3
    return f"{short(median)} {unit}".strip(), f"{short(low)} – {short(high)}" if values.size > 1 else ""


def short(number: float) -> str:
    """Three digits, or what is before the point if that is more; a dash for nothing.

    >>> short(0.012345), short(12345.6), short(float("nan"))
    ('0.0123', '12,346', '–')
    """
    return "–" if np.isnan(number) else f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def draw(figure: Figure, dataset: xarray.Dataset) -> None:
    """Draw the job by every means, beside time and memory over width, depth and gains."""
    config = json.loads(dataset.attrs["config"])
    figure.set_size_inches(15, 7.2)
    grid = figure.add_gridspec(2, 4, left=0.09, right=0.985, top=0.8, bottom=0.08, wspace=0.3, hspace=0.1)
    grid.set_height_ratios((2, 1))
    about = (
        "tanh, Gaussian weights, statistics of activations and gradients in every layer; medians, bars: quartiles; "
        f"{dataset.attrs['cores']} CPU cores, jax {dataset.attrs['jax']}"
    )
    figure.text(0.012, 0.94, "Random deep networks without their weight matrices", size=17, weight="bold")
    figure.text(0.012, 0.9, about, color=GREY)
    draw_programs(figure.add_subplot(grid[:, 0]), dataset, config)
    for column, axis in enumerate(("width", "depth", "gains"), start=1):
        above, below = (figure.add_subplot(grid[row, column]) for row in (0, 1))
        draw_scaling(above, below, dataset, axis)
        title = f"Without matrices: time over {axis}\n{fixed_sizes(config, axis)}, 1 seed"
        above.set_title(title, loc="left", size=11)
        if column == 1:
            above.set_ylabel("seconds", labelpad=1)
            below.set_ylabel("peak memory of\nthe process, GB")


def draw_programs(axes: Axes, dataset: xarray.Dataset, config: dict[str, Any]) -> None:
    """Draw a point per program that does the job, over seconds, and how many times as long it takes as ours."""
    labels = {ALL: "no matrices", DENSE: "dense", TORCH: "dense,\nPyTorch", FORUM: "a network at\na time, PyTorch"}
    there = [name for name in labels if name in dataset["measure"]]
    for place, name in enumerate(there):
        seconds = float(dataset["work"].sel(measure=ALL)) * cost(dataset, name)
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
        colour = ORANGE if name == ALL else BLUE
        axes.errorbar(median, place, xerr=[[median - low], [high - median]], fmt="o", color=colour, capsize=4, ms=9)
        over = "" if name == ALL else f"{short(float(np.median(ratio(dataset, name, ALL)[0])))} times as long\n"
        axes.text(median, place + 0.1, f"{over}{short(median)} s", ha="center", va="bottom", color=colour)
    axes.set_yticks(range(len(there)), [labels[name] for name in there])
    axes.set_ylim(-0.5, len(there) - 0.5)
    axes.set_xscale("log")
    axes.margins(x=0.45)
    axes.set_xlabel("seconds")
    size = f"{config['gains']} gains, {config['seeds']} seeds,\nwidth {config['width']:,}, depth {config['depth']:,}"
    axes.set_title(f"One job: {size}", loc="left", size=11)
    _plain(axes)


def draw_scaling(above: Axes, below: Axes, dataset: xarray.Dataset, axis: str) -> None:
    """Draw time, with the line fitted to it, above memory."""
    sizes, seconds, memory = scaling(dataset, axis)
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75], axis=1)
    line = np.geomspace(sizes[0], sizes[-1], 100)
    if axis == "gains":
        start, slope, _ = affine(sizes, median)
        above.plot(
            line, start + slope * line, color=GREY, label=f"{1e3 * start:.3g} + {1e3 * slope:.2g} × gains, in ms"
        )
    above.plot(line, median[-1] * line / sizes[-1], "--", color=GREY, label=f"proportional to {axis}")
    power = "" if axis == "gains" else f", grows as {axis}$^{{{exponent(sizes, median):.2f}}}$"
    bars = np.array([median - low, high - median])
    above.errorbar(sizes, median, yerr=bars, fmt="o", color=ORANGE, capsize=3, label=f"measured{power}")
    above.set_yscale("log")
    above.legend(loc="lower right", edgecolor="none", framealpha=0.9, fontsize=9)
    above.tick_params(labelbottom=False)
    below.plot(sizes, memory, "o-", color=ORANGE)
    trivial = trivial_memory(dataset)
    below.axhline(trivial, color=GREY, linestyle=":", label="JAX, its compiler and a trivial sweep")
    below.legend(loc="lower right", edgecolor="none", framealpha=0.9, fontsize=9)
    below.set_ylim(0, 1.4 * max(trivial, memory.max()))
    below.set_xlabel("number of gains" if axis == "gains" else axis)
    for axes in (above, below):
        axes.set_xscale("log")
        axes.margins(x=0.06)
        _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def report(dataset: xarray.Dataset, folder: Path, *, whole: bool = True) -> None:
    """Write the dataset and the figure of a whole benchmark, and print the tables."""
    files = "Only a part of the benchmark: no dataset and no figure are written."
    if whole:
        save_dataset(dataset, folder / "benchmark.nc")
        figure = Figure(dpi=150)
        draw(figure, dataset)
        save_figure(figure, folder / "benchmark.png")
        files = f"Dataset: {folder / 'benchmark.nc'}\nFigure:  {folder / 'benchmark.png'}"
    rows = list(judge(dataset))
    limited = [row.met for row in rows if row.met is not None]
    out = console()
    for part in (table_of_times(dataset), *tables_of_rows(rows)):
        out.print(part)
    load = dataset.attrs["load_before"]
    out.print(f"\n{sum(limited)} of {len(limited)} limits are met. Other programs kept {load:.1f} cores busy before.")
    out.print(files, soft_wrap=True)
