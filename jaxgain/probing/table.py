"""A report as a table that fits into 100 columns and below it, what the network does as a whole."""

import math
from collections import Counter

import numpy as np
import xarray

from jaxgain.probing.verdicts import rows_in

COLUMNS = 100
MOST_ROWS = 60
MISSING = "–"


def text(report: xarray.Dataset) -> str:
    """Return the table of a report, its growth per chain, and the verdicts with what to change."""
    opaque = report.attrs.get("opaque", "")
    unseen = [f"Not looked into: {opaque}, with linear operations inside."] if opaque else []
    return "\n".join([*_table(report), "", *_chains(report), *unseen, *_verdicts(report)])


def _table(report: xarray.Dataset) -> list[str]:
    headers = ["site", "σ_w", "rms in", "rms out", "×", "grad", "× back", "then", "verdict"]
    rows, found = [headers], rows_in(report)
    for index in _shown(report):
        if index is None:
            rows.append(["…"] + [""] * (len(headers) - 1))
            continue
        row = found[index]
        gradient = row["log_grad_output"]
        rows.append(
            [
                _cut(str(row["name"]), 36),
                _number(row["sigma_w"]),
                _number(row["rms_in"]),
                _number(row["rms_out"]),
                _number(row["growth_signal"]),
                _exponential(gradient),
                _number(row["growth_gradient"]),
                _cut(str(row["activation"]), 9),
                str(row["verdict"]),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(headers))]
    left = (0, 7, 8)
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _shown(report: xarray.Dataset) -> list[int | None]:
    """Return the rows to show; of many the first and last, and those around where it goes wrong."""
    count = report.sizes["site"]
    if count <= MOST_ROWS:
        return list(range(count))
    keep = set(range(MOST_ROWS // 3)) | set(range(count - MOST_ROWS // 3, count))
    verdicts = report["verdict"].values
    changes = [index for index in range(1, count) if verdicts[index] != verdicts[index - 1]]
    for index in changes[: MOST_ROWS // 12]:
        keep |= set(range(max(0, index - 2), min(count, index + 2)))
    shown: list[int | None] = []
    for index in sorted(keep):
        if shown and shown[-1] is not None and index != shown[-1] + 1:
            shown.append(None)
        shown.append(index)
    return shown


def _chains(report: xarray.Dataset) -> list[str]:
    """Return the growth per site of every chain: the geometric mean over it."""
    chains = Counter(str(chain) for chain in report["chain"].values)
    lines = []
    for chain, count in chains.items():
        if count < 3:
            continue
        rows = report["chain"].values == chain
        signal, gradient = (_geometric_mean(report[name].values[rows]) for name in ("growth_signal", "growth_gradient"))
        lines.append(f"{_cut(chain, 40)}: signal × {signal} per site, gradient × {gradient} per site going back")
    return lines


def _geometric_mean(values: np.ndarray) -> str:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values[~np.isnan(values)])
    return f"{math.exp(np.mean(logs)):.3f}" if len(logs) and np.all(np.isfinite(logs)) else MISSING


def _verdicts(report: xarray.Dataset) -> list[str]:
    verdicts = [str(verdict) for verdict in report["verdict"].values]
    counts = Counter(verdicts)
    if set(counts) <= {"healthy", "not run"}:
        return [f"All {counts['healthy']} sites are healthy."]
    lines = [", ".join(f"{count} × {verdict}" for verdict, count in counts.most_common())]
    lines.append(f"It begins at {report.attrs.get('summary', '')}".rstrip())
    seen: set[str] = set()
    for name, advice in zip(report["name"].values, report["suggestion"].values, strict=True):
        kind = str(advice).split(" (")[0]
        if kind and kind not in seen and len(seen) < 6:
            seen.add(kind)
            lines.append(f"  {name}: {advice}")
    return lines


def _number(value: float) -> str:
    if math.isnan(value):
        return MISSING
    if value == 0 or 0.001 <= abs(value) < 10000:
        return f"{value:.3g}"
    return f"{value:.1e}"


def _exponential(log: float) -> str:
    if math.isnan(log):
        return MISSING
    if log == -math.inf:
        return "0"
    if abs(log) < 690:
        return _number(math.exp(log))
    exponent = math.floor(log / math.log(10))
    return f"{math.exp(log - exponent * math.log(10)):.1f}e{exponent:+d}"


def _cut(name: str, width: int) -> str:
    """Shorten a name in the middle: its beginning says where, its end says what."""
    if len(name) <= width:
        return name
    begin = (width - 1) // 2
    return f"{name[:begin]}…{name[len(name) - (width - 1 - begin) :]}"
