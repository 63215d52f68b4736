"""What `probe` returns: a dataset with one row per linear operation, which prints as a table."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray

from jaxgain.probing.measure import Statistics
from jaxgain.probing.names import Row, chains_of, rows_of
from jaxgain.probing.paths import paths_of
from jaxgain.probing.trace import Traced
from jaxgain.probing.verdicts import Limits, described, first_bad, judge, suggestion

LONG_NAMES = {
    "operation": "linear operation: matmul, convolution or product of two signals",
    "shape": "shape of the weights",
    "fan_in": "inputs that each output sums over",
    "weight_mean": "mean of the weights",
    "weight_rms": "rms of the weights",
    "sigma_w": "standard deviation of the weights × √fan_in",
    "mean_in": "mean of the input",
    "rms_in": "rms of the input",
    "max_in": "largest magnitude of the input",
    "nonfinite_in": "fraction of the input that is not finite",
    "mean_out": "mean of the output",
    "rms_out": "rms of the output",
    "max_out": "largest magnitude of the output",
    "nonfinite_out": "fraction of the output that is not finite",
    "log_grad_output": "log rms of ∂loss/∂output",
    "max_grad": "largest magnitude of ∂loss/∂output",
    "nonfinite_grad": "fraction of ∂loss/∂output that is not finite",
    "log_grad_parameter": "log rms of ∂loss/∂parameter",
    "correlation": "uncentred cosine of the outputs of the first two inputs",
    "effective_rank": "participation ratio of the outputs of up to 16 inputs",
    "activation": "activation that follows",
    "activation_scale": "factor in front of the activation",
    "saturated": "fraction of the activation's inputs where its slope is below 1% of the largest",
    "saturating": "whether the activation is flat on both sides",
    "dead": "fraction of units where that is so for every input",
    "growth_signal": "rms of the output over that of the chain's site before",
    "growth_gradient": "rms of the gradient over that of the chain's site behind",
    "chain": "sites that play the same part at other depths",
    "path": "main; branch: beside an identity; branch end: added to what entered the branch",
    "parents": "numbers of the sites that its operands were last computed from",
    "dtype": "type of the output",
    "format_largest": "largest number of that type",
    "format_smallest": "smallest normal number of that type",
    "executed": "whether the operation ran",
    "verdict": "verdict",
    "cause": "whether the verdict is on the signal or on the gradient",
    "reason": "why",
    "suggestion": "what theory would change",
}


class Report(xarray.Dataset):
    """The dataset of a probed model. Everything a Dataset does, it does; printed, it is a table.

    A subclass that adds no state and overrides nothing but how it is shown: what takes a Dataset takes a report.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Show the table, or the dataset where too much of it is gone."""
        from jaxgain.probing.table import text

        return text(self) if set(LONG_NAMES) <= set(self.variables) else super().__repr__()

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"


def report_of(traced: Traced, statistics: Statistics, limits: Limits, attributes: dict[str, Any]) -> Report:
    """Return the dataset of a traced model and its statistics, which are NumPy arrays."""
    rows = rows_of(traced)
    records = [_described(traced, row) for row in rows]
    columns = {name: [record[name] for record in records] for name in records[0]}
    columns |= {name: list(values) for name, values in statistics._asdict().items()}
    columns["chain"] = chains_of([row.name for row in rows])
    paths = paths_of(traced.sites)
    columns["path"] = [paths[row.site] for row in rows]
    _add_growth(columns)
    report = _dataset([row.name for row in rows], columns, attributes)
    judged = judge(report, limits)
    for name in ("verdict", "cause", "reason"):
        columns[name] = [getattr(found, name) for found in judged]
    shown = [{name: values[index] for name, values in columns.items()} for index in range(len(rows))]
    columns["suggestion"] = [suggestion(row, found) for row, found in zip(shown, judged, strict=True)]
    bad = first_bad(judged)
    more = {} if bad is None else {"first_bad": rows[bad].name, "summary": f"{rows[bad].name} {described(judged[bad])}"}
    columns = {name: columns[name] for name in LONG_NAMES}
    return _dataset([row.name for row in rows], columns, attributes | more)


def _dataset(names: list[str], columns: dict[str, list[Any]], attributes: dict[str, Any]) -> Report:
    found = {}
    for name, values in columns.items():
        texts = isinstance(values[0], str)
        found[name] = ("site", np.asarray(values, dtype=str if texts else None), {"long_name": LONG_NAMES[name]})
    coordinates = {"site": np.arange(len(names)), "name": ("site", np.asarray(names, dtype=str))}
    return Report(found, coords=coordinates, attrs=attributes)


def _described(traced: Traced, row: Row) -> dict[str, Any]:
    """Return what the program says of a site, before it runs."""
    site, activation, ends = traced.sites[row.site], traced.activations[row.site], traced.flat[row.site]
    known = jnp.finfo(site.dtype) if jnp.issubdtype(site.dtype, jnp.inexact) else None
    return {
        "operation": site.operation,
        "shape": "×".join(map(str, site.shape)),
        "fan_in": site.fan_in,
        "activation": "" if activation is None else activation.name,
        "activation_scale": math.nan if activation is None else activation.scale,
        "saturating": ends is not None and ends.low > -math.inf and ends.high < math.inf,
        "parents": " ".join(map(str, row.parents)),
        "dtype": str(jnp.dtype(site.dtype)),
        "format_largest": float(known.max) if known else math.inf,
        "format_smallest": float(known.tiny) if known else 0.0,
    }


def _add_growth(columns: dict[str, list[Any]]) -> None:
    """Add what one site of a chain does to the rms of the one before it, and going back to the gradient's."""
    count = len(columns["chain"])
    columns["growth_signal"], columns["growth_gradient"] = [math.nan] * count, [math.nan] * count
    before: dict[str, int] = {}
    for index, chain in enumerate(columns["chain"]):
        if not columns["executed"][index]:
            continue
        if chain in before:
            other = before[chain]
            if columns["rms_out"][other] > 0:
                columns["growth_signal"][index] = columns["rms_out"][index] / columns["rms_out"][other]
            nearer, farther = columns["log_grad_output"][index], columns["log_grad_output"][other]
            if math.isfinite(nearer) and not math.isnan(farther):
                columns["growth_gradient"][other] = math.exp(min(farther - nearer, 700.0))
        before[chain] = index
