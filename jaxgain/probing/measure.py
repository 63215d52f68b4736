"""A traced model as a function that returns its output and the statistics of every site: for use inside jit."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.probing.names import rows_of
from jaxgain.probing.run import Record, Tokens, run, tokens
from jaxgain.probing.sites import Site
from jaxgain.probing.statistics import SUMS, correlation_and_rank, moments, sums, working
from jaxgain.probing.trace import Traced
from jaxgain.probing.values import Place, Source

Loss = Callable[[Any], Any]


class Raw(NamedTuple):
    """What the compiled program records, by the number of the site: see `finish`.

    Arrays have axes in front for the loops around the site. `output` and `parameter` are of the gradient with respect
    to a site's output and its parameter; a site without one (`Site.gradient` says why) is not among them.
    """

    forward: Record
    output: dict[int, Array]
    parameter: dict[int, Array]


class Statistics(NamedTuple):
    """Statistics of all sites, one number per row of `names.rows_of`; `jaxgain.probing.report.LONG_NAMES` says what."""

    weight_mean: Any
    weight_rms: Any
    sigma_w: Any
    mean_in: Any
    rms_in: Any
    max_in: Any
    nonfinite_in: Any
    mean_out: Any
    rms_out: Any
    max_out: Any
    nonfinite_out: Any
    log_grad_output: Any
    max_grad: Any
    nonfinite_grad: Any
    log_grad_parameter: Any
    correlation: Any
    effective_rank: Any
    saturated: Any
    dead: Any
    executed: Any


def instrument(
    traced: Traced, *, loss: Loss | None = None, cotangent: Any = "random"
) -> Callable[[Sequence[Any]], tuple[Any, Raw]]:
    """Return a function of `traced.arrays`, or others like them, that returns the model's output and `Raw` sums.

    The gradient is that of `loss` of the output, or of the inner product of the output with `cotangent`. The function
    is a plain one: it can be jitted, and called in a jitted function of one's own. `finish` makes statistics of them.
    """
    scalar = loss if loss is not None else inner_product(traced.output, cotangent)
    check_loss(scalar, traced.output)
    tree = jax.tree.structure(traced.output)
    having = [(site, site.source) for site in traced.sites if _has_parameter(traced, site)]
    wanted = sorted({source.leaf for _, source in having if source is not None})

    def probed(arrays: Sequence[Any]) -> tuple[Any, Raw]:
        arrays = list(arrays)

        def forward(taps: Tokens, parameters: list[Any]) -> tuple[Any, Any]:
            filled = list(arrays)
            for number, parameter in zip(wanted, parameters, strict=True):
                filled[number] = parameter
            outputs, record = run(traced, filled, taps)
            output = tree.unflatten(outputs)
            return scalar(output), (output, record)

        parameters = [jnp.asarray(arrays[number]) for number in wanted]
        gradients, (output, record) = jax.grad(forward, argnums=(0, 1), has_aux=True)(tokens(traced), parameters)
        by_leaf = dict(zip(wanted, gradients[1], strict=True))
        found: dict[Any, Array] = {}
        of_parameters = {}
        for site, source in having:
            assert source is not None
            key, stack = (source.leaf, source.picks, site.loops), _stack(source)
            if stack and stack not in found:
                found[stack] = sums(jnp.moveaxis(by_leaf[source.leaf], stack.axis, 0), kept=1)
            if key not in found:
                gradient = found[stack][source.picks[0].start] if stack else None
                found[key] = _parameter_gradient(by_leaf[source.leaf], source, site, gradient)
            of_parameters[site.index] = found[key]
        return output, Raw(record, gradients[0], of_parameters)

    return probed


def _has_parameter(traced: Traced, site: Site) -> bool:
    if site.source is None or site.gradient:
        return False
    return jnp.issubdtype(traced.arrays[site.source.leaf].dtype, jnp.floating)


class Stack(NamedTuple):
    """A parameter of which sites take one slice each, along an axis."""

    leaf: int
    axis: int


def _stack(source: Source) -> Stack | None:
    """Return the stack that a parameter is a slice of: the sums of all slices are taken at once.

    A compiler would make the whole gradient anew for every slice that is taken of it.
    """
    if len(source.picks) != 1 or source.picks[0].loop is not None or source.picks[0].stop - source.picks[0].start != 1:
        return None
    return Stack(source.leaf, source.picks[0].axis)


def _parameter_gradient(gradient: Array, source: Source, site: Site, known: Array | None = None) -> Array:
    """Return the sums of a parameter's gradient, of each turn's own part where a loop goes through it.

    `known` are those of the slice that the source is, where they were taken before.
    """
    if known is not None:
        return _repeated(known, site, set())
    lengths = {loop.place: loop.length for loop in site.loops}
    turned = []
    for pick in source.picks:
        if pick.loop in lengths:
            turned.append((pick.loop, pick.axis))
        elif pick.loop is None:
            gradient = jax.lax.slice_in_dim(gradient, pick.start, pick.stop, axis=pick.axis)
    order = {loop.place: number for number, loop in enumerate(site.loops)}
    turned.sort(key=lambda pair: order[pair[0]])
    gradient = jnp.moveaxis(gradient, [axis for _, axis in turned], range(len(turned)))
    return _repeated(sums(gradient, kept=len(turned)), site, {place for place, _ in turned})


def _repeated(found: Array, site: Site, picked: set[Place]) -> Array:
    """Return sums with an axis for each loop around a site; a loop that is not `picked` has the same in all turns."""
    for number, loop in enumerate(site.loops):
        if loop.place not in picked:  # one parameter for all turns
            found = jnp.repeat(jnp.expand_dims(found, number), loop.length, axis=number)
    return found


def _parameter_size(traced: Traced, site: Site) -> int:
    """Return of how many entries the gradient of a site's parameter is, in each turn."""
    source = site.source
    assert source is not None
    shape = list(traced.arrays[source.leaf].shape)
    for pick in source.picks:
        shape[pick.axis] = pick.stop - pick.start
    return math.prod(shape)


def finish(traced: Traced, raw: Raw, xp: Any = jnp) -> Statistics:
    """Return the statistics of all sites as arrays with one number per row of `names.rows_of(traced)`.

    `xp` is jax.numpy, for use inside jit, or NumPy, which takes them in float64.
    """
    indices, rows = range(len(traced.sites)), rows_of(traced)
    order = _order(traced, [(row.site, row.turns) for row in rows])

    def flat(parts: Sequence[Any]) -> Any:
        """Put the numbers of all sites (loops..., k...) after one another (rows, k...), in the rows' order."""
        kept = [xp.asarray(part) if xp is jnp else np.asarray(part, np.float64) for part in parts]
        loops = [len(site.loops) for site in traced.sites]
        return xp.concatenate([part.reshape(-1, *part.shape[depth:]) for part, depth in zip(kept, loops, strict=True)])[
            order
        ]

    def sizes(of: Callable[[Site], int]) -> Any:
        return np.asarray([max(1, of(traced.sites[row.site])) for row in rows], np.float64 if xp is np else np.float32)

    records = [raw.forward[index] for index in indices]
    entering = moments(flat([record.entering for record in records]), sizes(lambda site: math.prod(site.entering)), xp)
    leaving = moments(
        flat([record.leaving for record in records]), sizes(lambda site: math.prod(site.output.shape)), xp
    )
    shifted = moments(flat([record.weights for record in records]), sizes(lambda site: math.prod(site.shape)), xp)
    mean, shift = shifted.mean, flat([record.shift for record in records])
    std = xp.sqrt(xp.maximum(shifted.rms - xp.abs(mean), 0)) * xp.sqrt(shifted.rms + xp.abs(mean))
    correlation, rank = correlation_and_rank(flat([record.gram for record in records]), xp)
    fractions = flat([record.flat for record in records])
    executed = flat([record.executed for record in records]) > 0

    def gradient(found: dict[int, Any], size: Callable[[Site], int]) -> tuple[Any, Any, Any]:
        shapes = [tuple(loop.length for loop in site.loops) for site in traced.sites]
        parts = [
            found[index][..., :SUMS] if index in found else np.full((*shape, SUMS), math.nan, np.float32)
            for index, shape in zip(indices, shapes, strict=True)
        ]
        result = moments(flat(parts), sizes(size), xp)
        return tuple(xp.where(executed, part, math.nan) for part in (result.log_rms, result.largest, result.nonfinite))

    output = gradient(raw.output, lambda site: math.prod(site.output.shape))
    parameter = gradient(
        raw.parameter, lambda site: _parameter_size(traced, site) if site.index in raw.parameter else 1
    )
    return Statistics(
        *(mean + shift, xp.hypot(mean + shift, std), std * np.sqrt(sizes(lambda site: site.fan_in))),
        *(entering.mean, entering.rms, entering.largest, entering.nonfinite),
        *(leaving.mean, leaving.rms, leaving.largest, leaving.nonfinite),
        *output,
        parameter[0],
        *(correlation, rank, fractions[:, 0], fractions[:, 1], executed),
    )


def _order(traced: Traced, rows: Sequence[tuple[int, tuple[int, ...]]]) -> np.ndarray:
    """Return where each row is among the numbers of all sites, one site after the other."""
    shapes = [tuple(loop.length for loop in site.loops) for site in traced.sites]
    starts = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    return np.asarray(
        [starts[site] + (np.ravel_multi_index(turns, shapes[site]) if turns else 0) for site, turns in rows], int
    )


def inner_product(output: Any, cotangent: Any) -> Loss:
    """Return the inner product with a cotangent as a loss.

    `random` has independent standard normal entries from a fixed key, scaled so that their rms is 1; `sum` is all
    ones; else it is a tree of arrays as the output. Raises ValueError where it is none of these.
    """
    floating = [leaf for leaf in jax.tree.leaves(output) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if not floating:
        raise ValueError("the model returns no floating-point array, so there is no gradient of it; return one")
    if not isinstance(cotangent, str):
        return _with_given(output, cotangent)
    if cotangent not in ("random", "sum"):
        raise ValueError(f"cotangent must be 'random', 'sum' or arrays as the model's output, got {cotangent!r}")

    def loss(output: Any) -> Array:
        total = jnp.zeros((), jnp.float32)
        keys = jax.random.split(jax.random.key(0), len(floating))
        leaves = [leaf for leaf in jax.tree.leaves(output) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        size = sum(leaf.size for leaf in leaves)
        draws = [
            jax.random.normal(key, leaf.shape, jnp.float32)
            if cotangent == "random"
            else jnp.ones(leaf.shape, jnp.float32)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        rms = jnp.sqrt(sum(jnp.sum(draw * draw) for draw in draws) / size) if cotangent == "random" else 1.0
        for leaf, draw in zip(leaves, draws, strict=True):
            total = total + _product(leaf, draw / rms)
        return total

    return loss


def _with_given(output: Any, cotangent: Any) -> Loss:
    given, expected = jax.tree.map(jnp.shape, cotangent), jax.tree.map(lambda leaf: leaf.shape, output)
    if given != expected:
        raise ValueError(f"cotangent must have the shapes of the model's output, {expected}, got {given}")

    def loss(output: Any) -> Array:
        pairs = zip(jax.tree.leaves(output), jax.tree.leaves(cotangent), strict=True)
        return sum(
            (_product(leaf, jnp.asarray(draw)) for leaf, draw in pairs if jnp.issubdtype(leaf.dtype, jnp.inexact)),
            start=jnp.zeros((), jnp.float32),
        )

    return loss


def _product(output: Array, cotangent: Array) -> Array:
    kind = working(output.dtype)
    if jnp.issubdtype(output.dtype, jnp.complexfloating):
        output = jnp.real(output)
    return jnp.sum(output.astype(kind) * cotangent.astype(kind))


def check_loss(loss: Loss, output: Any) -> None:
    """Raise ValueError unless the loss of the output is one real number."""
    try:
        found = jax.eval_shape(loss, output)
    except Exception as error:
        error.add_note("the loss is called with the model's output; labels and masks are its own business")
        raise
    shapes = [leaf.shape for leaf in jax.tree.leaves(found)]
    if shapes != [()] or jax.tree.structure(found) != jax.tree.structure(0):
        raise ValueError(f"the loss must be a scalar, got {_described(found)}; take a mean or a sum")
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"the loss must be a real floating-point number, got {found.dtype}")


def _described(found: Any) -> str:
    leaves = jax.tree.leaves(found)
    return f"an array of shape {leaves[0].shape}" if len(leaves) == 1 else f"{len(leaves)} values"
