"""The state of a calibration: a traced model, what is wanted of each row, and the passes that reach it."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgain.probing.measure import Statistics, finish
from jaxgain.probing.models import Model
from jaxgain.probing.names import chains_of, rows_of
from jaxgain.probing.paths import paths_of
from jaxgain.probing.prepared import Prepared
from jaxgain.probing.probe import once_only
from jaxgain.probing.report import Report, report_of
from jaxgain.probing.scaling import Group, groups_of, log_scale, scaled_arrays, scaled_run
from jaxgain.probing.statistics import working
from jaxgain.probing.verdicts import Limits

NEAR = 0.01  # as a logarithm: how far from its target a site may be when the passes end

Leave = Sequence[str] | Callable[[str], bool]


class Measured(NamedTuple):
    """Of every row of a pass: the rms of its output before it was scaled and of its weights; can a scale reach it."""

    rms: np.ndarray
    weights: np.ndarray
    reached: np.ndarray


class Tried(NamedTuple):
    """An rms on the main path: the arrays it leads to, each row's target (NaN: left), and the gradient's spread."""

    rms: float
    arrays: list[Any]
    targets: np.ndarray
    statistics: Statistics
    spread: float


class Calibration:
    """A traced model whose weights are to be rescaled. Methods return what they find; nothing here changes."""

    def __init__(self, given: Any, ready: Prepared, leave: Leave):
        self.given, self.ready, self.traced = given, ready, ready.traced
        self.rows = rows_of(self.traced)
        self.names = [row.name for row in self.rows]
        self._same = _same_objects(given, ready.model)
        every = groups_of(self.traced, self.rows, self._same)
        stay = _stay(self.names, leave)
        self.parameters = {ready.model.places[group.leaf] for group in every if group.leaf < len(ready.model.arrays)}
        self.groups = [
            group
            for group in every
            if group.leaf < len(ready.model.arrays) and not any(stay[row] for row in group.rows)
        ]
        if not self.groups:
            raise ValueError(
                "no weight is left to rescale: they are closed over by the function, or told to stay; pass parameters "
                "as arguments"
            )
        self.shares = self._shares()
        self._chains = self._levels()
        options = once_only()  # a few runs at most
        self._statistics = jax.jit(lambda arrays: ready.probed(arrays)[1], compiler_options=options)
        self._pass = jax.jit(lambda arrays, wishes: scaled_run(self.traced, arrays, wishes), compiler_options=options)

    def _shares(self) -> np.ndarray:
        """Return each row's target where that of the main path is 1: for the n ends of branches 1/√n."""
        paths = paths_of(self.traced.sites)
        ends = [
            self.traced.sites[row.site].output.shape if paths[row.site] == "branch end" else None for row in self.rows
        ]
        counts = Counter(ends)
        return np.array([1.0 if end is None else counts[end] ** -0.5 for end in ends])

    def _levels(self) -> list[list[int]]:
        """Return the rows that play the same part at different depths and have outputs of the same shape."""
        found = defaultdict(list)
        for number, (chain, row) in enumerate(zip(chains_of(self.names), self.rows, strict=True)):
            site = self.traced.sites[row.site]
            found[chain, site.output.shape, site.operation].append(number)
        return [rows for rows in found.values() if len(rows) > 1]

    def statistics(self, arrays: Sequence[Any]) -> Statistics:
        """Return the statistics of the rows with these arrays, in float64."""
        return finish(self.traced, jax.tree.map(np.asarray, self._statistics(list(arrays))), np)

    def spread(self, statistics: Statistics) -> float:
        """Return the largest ratio of gradients at different depths; infinite where some vanish and others do not."""
        logs = np.where(statistics.nonfinite_grad > 0, np.inf, statistics.log_grad_output)
        widest = 0.0
        for rows in self._chains:
            these = logs[rows][~np.isnan(logs[rows])]
            if len(these) and not np.all(these == -np.inf):
                with np.errstate(invalid="ignore"):
                    step = float(np.max(these) - np.min(these))
                widest = max(widest, math.inf if math.isnan(step) else step)
        return math.exp(min(widest, 700.0)) if math.isfinite(widest) else math.inf

    def at(self, rms: float, passes: int) -> Tried:
        """Return the model with which the sites have their targets, for this rms on the main path."""
        targets = rms * self.shares
        arrays, active = list(self.traced.arrays), list(range(len(self.groups)))
        totals = np.zeros(len(self.groups))
        first: Measured | None = None
        for _ in range(passes):
            measured = self._measured(arrays, targets, [self.groups[number] for number in active])
            if first is None:
                first = measured
                active = [number for number in active if self._can_be_scaled(self.groups[number], measured)]
            elif len(answering := self._answering(active, totals, first, measured)) < len(active):
                totals[[number for number in active if number not in answering]] = 0
                active = answering
                arrays = self._with(totals)
                continue
            logs = {number: self._short(self.groups[number], targets, measured) for number in active}
            if all(abs(log) < NEAR for log in logs.values()):
                break
            for number, log in logs.items():
                totals[number] += log
            arrays = self._with(totals)
        scaled = {row for number in active for row in self.groups[number].rows}
        statistics = self.statistics(arrays)
        wanted = np.array([targets[row] if row in scaled else math.nan for row in range(len(self.rows))])
        return Tried(rms, arrays, wanted, statistics, self.spread(statistics))

    def _with(self, totals: np.ndarray) -> list[Any]:
        arrays = scaled_arrays(self.traced.arrays, self.groups, np.exp(totals).tolist())
        return [arrays[self._same(leaf)] for leaf in range(len(arrays))]

    def _can_be_scaled(self, group: Group, measured: Measured) -> bool:
        rows = list(group.rows)
        rms = measured.rms[rows]
        return bool(np.all(measured.reached[rows] != 0) and np.any((rms > 0) & np.isfinite(rms)))

    def _answering(self, active: list[int], totals: np.ndarray, first: Measured, now: Measured) -> list[int]:
        """Return those whose weights, as they are used, have followed their scale: not if they are normalized."""
        found = []
        for number in active:
            row = self.groups[number].rows[0]
            change = math.log(now.weights[row] / first.weights[row])
            if abs(change - totals[number]) <= NEAR + 0.1 * abs(totals[number]):
                found.append(number)
        return found

    def _short(self, group: Group, targets: np.ndarray, measured: Measured) -> float:
        """Return the logarithm of the scale that a group's weights lack."""
        rows = [row for row in group.rows if measured.rms[row] > 0 and math.isfinite(measured.rms[row])]
        return log_scale([math.log(targets[row] / measured.rms[row]) for row in rows]) if rows else 0.0

    def _measured(self, arrays: Sequence[Any], targets: np.ndarray, groups: Sequence[Group]) -> Measured:
        """Run a pass in which the rows whose weights are theirs alone are scaled as it goes on."""
        alone = {group.rows[0] for group in groups if len(group.rows) == 1}
        wishes = {
            site.index: np.zeros((*(loop.length for loop in site.loops), 2), working(site.dtype))
            for site in self.traced.sites
        }
        for number, row in enumerate(self.rows):
            wishes[row.site][row.turns] = targets[number], number in alone
        found = jax.tree.map(np.asarray, self._pass(list(arrays), jax.tree.map(jnp.asarray, wishes)))
        columns = zip(*([part[row.turns] for part in found[row.site][:3]] for row in self.rows), strict=True)
        return Measured(*(np.array(column, np.float64) for column in columns))

    def report(self, statistics: Statistics, targets: np.ndarray) -> Report:
        """Return the report of `probe` with each row's target, NaN where the row was left."""
        report = report_of(self.traced, statistics, Limits(), self.ready.attributes)
        report["target"] = ("site", targets, {"long_name": "rms of the output that was wanted"})
        return report

    def rebuilt(self, arrays: Sequence[Any]) -> Any:
        """Return what held the parameters, with these arrays in it."""
        model = self.ready.model
        arguments = model.arguments(arrays[: len(model.arrays)])
        if _is_nnx(self.given):
            from flax import nnx

            copy = nnx.clone(self.given)  # with the same variables shared as in the original
            nnx.update(copy, nnx.state(arguments[0]))
            return copy
        found = [arguments[position] for position in sorted(self.parameters)]
        return found[0] if len(found) == 1 else tuple(found)


def _is_nnx(model: Any) -> bool:
    return any(base.__module__.startswith("flax.nnx") for base in type(model).__mro__)


def _same_objects(given: Any, model: Model) -> Callable[[int], int]:
    """Return for each array the first that is the same one: in nnx modules variables are shared by reference."""
    if not _is_nnx(given):
        return lambda leaf: leaf
    first: dict[int, int] = {}
    same = [first.setdefault(id(array), number) for number, array in enumerate(model.arrays)]
    return lambda leaf: same[leaf] if leaf < len(same) else leaf


def _stay(names: Sequence[str], leave: Leave) -> list[bool]:
    if callable(leave):
        return [bool(leave(name)) for name in names]
    leave = [leave] if isinstance(leave, str) else list(leave)
    for beginning in leave:
        if not any(name.startswith(beginning) for name in names):
            raise ValueError(f"leave={beginning!r} fits no site; the names begin as {', '.join(names[:4])}")
    return [name.startswith(tuple(leave)) for name in names]
