r"""The compiled program of a sweep: some seeds of one activation, for all its networks of a seed together.

Gains are a batch axis over shared random numbers, activations are branches of one program, seeds are spread over the
devices and run one after the other on each.
"""

import contextlib
import ctypes
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxgain.activations import Activation
from jaxgain.propagation.network import (
    NEURONS_AT_ONCE,
    Observed,
    Point,
    Setting,
    assemble,
    observe_network,
    steepest_slope,
    value_and_slope,
)

KEYS = "threefry2x32"

# Where the axis of the networks of a seed is, in what a program yields of layer 0, of the others, and of all together.
POINTS = (0, 1, 0)


@lru_cache(maxsize=16)
def compiled_program(
    phis: tuple[Activation, ...], points: Point, chunk: int, devices: tuple[Any, ...], setting: Setting
) -> Callable[..., Callable[[], dict[str, np.ndarray]]]:
    """Compile a sweep of one chunk of seeds, `program(members, root=…, points=…, index=…)` of an activation.

    Once for all values of these; the program outlives the call of `sweep`. It starts the devices; what it returns
    waits for their results (…, seed, point).
    """
    lowered, shapes = lower_program(phis, points, chunk, devices, setting)
    _return_freed_memory()
    compiled = lowered.compile(compiler_options=_compiler_options(setting) if devices[0].platform == "cpu" else None)
    _return_freed_memory()

    def program(members, *, root, points, index):
        packed = compiled(members, root, points, np.int32(index))
        return lambda: assemble(_unpacked(np.asarray(packed), shapes), setting, np.concatenate)

    return program


def _compiler_options(setting: Setting) -> dict[str, Any]:
    """What the compiler for CPUs is asked for.

    Networks of means alone run as fast with few of its optimizations, and it then needs less time and memory; before
    JAX 0.9 it needs less still where not every fusion is compiled in a module of its own.
    """
    options: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}
    if setting.carries_means and not jax.config.read("jax_disable_most_optimizations"):
        options["xla_backend_optimization_level"] = 1
        if jax.__version_info__ < (0, 9):
            options["xla_cpu_use_fusion_emitters"] = False
    return options


def _return_freed_memory() -> None:
    """Give back to the system what tracing and compiling needed and freed: several times what a sweep needs itself.

    The C library of Linux would keep it for the life of the process; others have no such call.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _unpacked(packed: np.ndarray, shapes: Observed) -> Observed:
    """Records (…, seed, point), from all of them side by side (seed, numbers)."""
    leaves, structure = jax.tree.flatten(shapes)
    pieces = np.split(packed, np.cumsum([math.prod(leaf.shape) for leaf in leaves])[:-1], axis=1)
    arrays = [
        piece.reshape(-1, *leaf.shape).astype(leaf.dtype, copy=False)
        for piece, leaf in zip(pieces, leaves, strict=True)
    ]
    parts = zip(structure.unflatten(arrays), POINTS, strict=True)
    return Observed(*({n: np.moveaxis(x, (0, 1 + axis), (-2, -1)) for n, x in part.items()} for part, axis in parts))


def lower_program(
    phis: tuple[Activation, ...], points: Point, chunk: int, devices: tuple[Any, ...], setting: Setting
) -> tuple[jax.stages.Lowered, Observed]:
    """The program of a sweep, before it is compiled, and the shapes of what it yields side by side per seed.

    `points` are the shapes of the numbers.
    """
    branches = [partial(value_and_slope, phi) for phi in phis]
    steepest = np.array([steepest_slope(phi) for phi in phis], np.float32)
    batched = Point(*(0 if shape else None for shape in points))
    at_once = neurons_at_once(points.sigma_w[0])

    shapes: list[Observed] = []

    @jax.jit  # for its memory of having been traced
    def one(member, root, points, index):
        key = jax.random.fold_in(jax.random.key(root, impl=KEYS), member)
        chosen = branches[0] if len(branches) == 1 else lambda z: jax.lax.switch(index, branches, z)
        formulas = {"value_and_slope": chosen, "steepest": jnp.asarray(steepest)[index]}

        def network(point):
            return tuple(observe_network(key, point, setting, neurons_at_once=at_once, **formulas))

        observed = Observed(*jax.vmap(network, in_axes=(batched,), out_axes=POINTS)(points))
        shapes.append(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), observed))
        # One array to fill and to fetch, as it comes: the host puts it in order. Layers' places are exact as float32.
        return jnp.concatenate([x.astype(jnp.float32).ravel() for x in jax.tree.leaves(observed)])

    def several(members, *shared):
        # A loop of unknown length: the compiler cannot treat one member differently, and padding costs nothing.
        whole = jax.eval_shape(one, members[0], *shared)
        blank = jnp.zeros((len(members), *whole.shape), whole.dtype)

        def add(place, done):
            return done.at[place].set(one(members[place], *shared))

        return jax.lax.fori_loop(0, jnp.sum(members >= 0), add, blank)

    mesh = Mesh(np.array(devices), ("seed",), axis_types=(AxisType.Auto,))
    by_seed, whole = PartitionSpec("seed"), PartitionSpec()
    specs = (by_seed, whole, whole, whole)
    spread = jax.shard_map(several, mesh=mesh, in_specs=specs, out_specs=by_seed, check_vma=False)
    numbers = Point(*(shape if shape is None else jax.ShapeDtypeStruct(shape, np.float32) for shape in points))
    member, root, index = (
        jax.ShapeDtypeStruct(*each) for each in (((chunk,), np.int32), ((), np.uint32), ((), np.int32))
    )
    return jax.jit(spread).lower(member, root, numbers, index), shapes[0]


def neurons_at_once(gains: int) -> int:
    """Neurons of a wide network that are met at a time, for all gains together as many as for one network alone."""
    return max(256, NEURONS_AT_ONCE // gains)
