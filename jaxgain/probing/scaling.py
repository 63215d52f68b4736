"""One pass through a traced model in which every site's output is brought to an rms, each after those before it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.probing.names import Row
from jaxgain.probing.run import Recorded, Runner
from jaxgain.probing.sites import Site, called
from jaxgain.probing.statistics import moments, sums, working
from jaxgain.probing.trace import Traced
from jaxgain.probing.values import Place

Wishes = dict[int, Array]  # by site: (*loops, 2), the rms that is wanted, and 1 where the output is to be scaled


class Found(NamedTuple):
    """Of a site, with an axis for each loop around it.

    The rms of its output before that was scaled and of its weights, and whether a scale can reach it: not in a while.
    """

    rms: Array
    weights: Array
    reached: Array
    executed: Array


def scaled_run(traced: Traced, arrays: Sequence[Any], wishes: Wishes) -> dict[int, Found]:
    """Return the rms of the sites' outputs where every site before has been scaled to the rms that is wanted of it.

    With z = W h linear in W, scaling the output is scaling the weights: so one pass finds the scales of all layers
    (layer-sequential unit-variance initialization, Mishkin & Matas 2016, without its pass per layer).
    """
    recorded = Recorded({}, {})
    inputs = arrays[: len(traced.body.program.invars)]
    _Scaler(traced, arrays).body(traced.body, inputs, (), wishes, recorded)
    return recorded.sites  # type: ignore


class _Scaler(Runner):
    def __init__(self, traced: Traced, arrays: Sequence[Any]):
        super().__init__(traced, arrays)
        self.points = {}

    def _site(self, site: Site, values: list[Any], output: Array, taps: Wishes, recorded: Recorded) -> Array:
        kind = working(output.dtype)
        rms = moments(sums(output), max(1, output.size)).rms.astype(kind)
        held = values[1 - site.inputs[0]]
        weights = moments(sums(held), max(1, held.size)).rms.astype(kind)
        reached = jnp.full((), float(site.index in taps), kind)
        recorded.sites[site.index] = Found(rms, weights, reached, jnp.ones((), kind))  # type: ignore
        if site.index not in taps:
            return output
        wanted, active = taps[site.index][..., 0], taps[site.index][..., 1]
        usable = (active > 0) & (rms > 0) & jnp.isfinite(rms)
        divisor: Any = jnp.where(usable, rms, 1)
        scale: Any = jnp.where(usable, wanted / divisor, 1)
        return (output.astype(kind) * scale).astype(output.dtype)

    def _custom(self, equation: Any, values: list[Any], place: Place, taps: Wishes, recorded: Recorded) -> list[Any]:
        inner = called(equation)
        assert inner is not None
        return self.body(inner, values, place, taps, recorded)


class Group(NamedTuple):
    """Rows of one parameter, which can only be scaled together: of which array, and which part of it."""

    leaf: int
    part: tuple[tuple[int, int, int], ...]  # axis, start, stop
    rows: tuple[int, ...]


def groups_of(traced: Traced, rows: Sequence[Row], same: Callable[[int], int]) -> list[Group]:
    """Return the parameters of all rows, in the order of the program.

    `same` is a function of an array's number: that of the first which is the same object in the model.
    """
    found: dict[tuple[int, tuple[tuple[int, int, int], ...]], list[int]] = {}
    for number, row in enumerate(rows):
        site = traced.sites[row.site]
        if site.source is None or not jnp.issubdtype(traced.arrays[site.source.leaf].dtype, jnp.floating):
            continue
        turns = {loop.place: turn for loop, turn in zip(site.loops, row.turns, strict=True)}
        part = []
        for pick in site.source.picks:
            if pick.loop is None:
                part.append((pick.axis, pick.start, pick.stop))
            elif pick.loop in turns:
                part.append((pick.axis, turns[pick.loop], turns[pick.loop] + 1))
        found.setdefault((same(site.source.leaf), tuple(part)), []).append(number)
    return [Group(leaf, part, tuple(numbers)) for (leaf, part), numbers in found.items()]


def log_scale(logs: Sequence[float]) -> float:
    r"""Return the logarithm of the scale for weights whose uses are these logarithms short of the rms wanted.

    What is used n times in a row acts on its k-th output with the power k: the least squares of
    $k \ln s - r_k$ is $\sum k r_k / \sum k^2$, and exact where each use is homogeneous.

    >>> round(log_scale([0.5]), 12), round(log_scale([0.1, 0.2, 0.3]), 12)
    (0.5, 0.1)
    """
    order = range(1, len(logs) + 1)
    return math.fsum(k * r for k, r in zip(order, logs, strict=True)) / sum(k * k for k in order)


def scaled_arrays(arrays: Sequence[Any], groups: Sequence[Group], scales: Sequence[float]) -> list[Any]:
    """Return the arrays with each group's part multiplied by its scale, in their own types."""
    axes: dict[int, set[int]] = {}
    for group in groups:
        axes.setdefault(group.leaf, set()).update(axis for axis, _, _ in group.part)
    factors = {
        leaf: np.ones([size if axis in touched else 1 for axis, size in enumerate(arrays[leaf].shape)])
        for leaf, touched in axes.items()
    }
    for group, scale in zip(groups, scales, strict=True):
        at = [slice(None)] * factors[group.leaf].ndim
        for axis, start, stop in group.part:
            at[axis] = slice(start, stop)
        factors[group.leaf][tuple(at)] *= scale
    return [
        _scaled(array, factors[leaf]) if leaf in factors and np.any(factors[leaf] != 1) else array
        for leaf, array in enumerate(arrays)
    ]


def _scaled(array: Any, factors: np.ndarray) -> Array:
    kind = working(array.dtype)
    return (jnp.asarray(array, kind) * jnp.asarray(factors, kind)).astype(array.dtype)
