r"""Many networks at once: a `SweepConfig` to a labelled dataset.

One compiled program serves every activation, gain and seed: gains are a batch axis over shared random numbers,
activations are branches of one program, seeds are spread over the devices and run one after the other on each.
"""

import contextlib
import ctypes
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxgain.activations import Activation, activation
from jaxgain.propagation.config import SweepConfig, read_gains
from jaxgain.propagation.labels import dataset_of, labelled
from jaxgain.propagation.network import (
    NEURONS_AT_ONCE,
    OF_TANGENTS,
    Point,
    Setting,
    record_network,
    setting_of,
    steepest_slope,
    value_and_slope,
)
from jaxgain.propagation.rows import NARROW
from jaxgain.propagation.settings import OF_PAIRS, OF_REVERSE
from jaxgain.theory.gains import named_gains

if TYPE_CHECKING:
    import xarray

Progress = Callable[[int, int, str], None]
"""Called with the work done, the work in all, and what is being done."""

# Seeds that one device runs before the host hears of it.
SEEDS_AT_ONCE = 2

KEYS = "threefry2x32"

# Gains closer than this, relatively, are the same float32 network.
SAME_GAIN = 1e-9


def sweep(config: SweepConfig, progress: Progress | None = None) -> "xarray.Dataset":
    """Propagate random networks over every activation, gain and seed of the config.

    Args:
        config: what to run; see `SweepConfig`.
        progress: called as `progress(done, total, what)` after every chunk of seeds.

    Returns:
        Dataset with dims (activation, gain, seed, layer), and `input` last if the config keeps the inputs apart; what
        else is swept (`width`, `sigma_b`, `alpha`, `input_correlation`) comes after `gain`. `gain` is the sorted union
        of the numbers and of every named gain; `gain_name(activation, gain)` says which gains are whose. Logs are
        natural. Attributes hold the config as JSON, its hash, versions and devices.

    Raises:
        ValueError: when the smallest chunk does not fit into `config.memory`.

    >>> import jaxgain as jg
    >>> config = jg.SweepConfig(activations=("tanh",), gains=(1.0, 5 / 3), width=100, depth=20, seeds=4)
    >>> dataset = jg.sweep(config)
    >>> dict(dataset["std"].sizes)
    {'activation': 1, 'gain': 2, 'seed': 4, 'layer': 21}
    """
    phis = tuple(activation(phi) for phi in config.activations)
    gains, gain_names = resolve_gains(phis, config.gains)
    config.to_json()  # which may find that what a user's functions compute has no name
    at_widths = [dataclasses.replace(config, width=width, widths=()) for width in config.widths or (config.width,)]
    for one in at_widths:
        _check_memory(one, len(points_of(one, gains).sigma_w), SEEDS_AT_ONCE * len(_devices(one)), len(_devices(one)))
    seconds = np.zeros(2)
    parts = []
    for place, one in enumerate(at_widths):
        results, taken = _run(one, phis, gains, progress and _share(progress, place, len(at_widths)))
        parts.append(dataset_of(one, phis, gains, results))
        seconds += taken
    devices = _devices(config)
    return labelled(config, phis, gains, gain_names, parts).assign_attrs(
        devices=f"{len(devices)} × {devices[0].device_kind}",
        key_implementation=KEYS,
        compile_seconds=seconds[0],
        run_seconds=seconds[1],
    )


def _share(progress: Progress, place: int, parts: int) -> Progress:
    """The progress of one of several parts in that of all."""
    return lambda done, total, what: progress(place * total + done, parts * total, what)


def _run(
    config: SweepConfig, phis: tuple[Activation, ...], gains: np.ndarray, progress: Progress | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Results (activation, points, seed, …) at one width, and seconds of compiling and of running."""
    devices = _devices(config)
    chunk = SEEDS_AT_ONCE * len(devices)
    points = points_of(config, gains)
    with jax.enable_x64(False):
        started = time.perf_counter()
        shapes = jax.tree.map(np.shape, points)
        program = _program(phis, shapes, chunk, devices, setting_of(config))
        compiled = time.perf_counter()
        run = partial(program, root=np.uint32(config.seed), points=points)
        results = _run_chunks(run, phis, len(points.sigma_w), config.seeds, chunk, progress)
    return results, np.array([compiled - started, time.perf_counter() - compiled])


def _devices(config: SweepConfig) -> tuple[Any, ...]:
    """No more than there are seeds: each has its own copy of what it works with."""
    return tuple(jax.local_devices()[: config.seeds])


def points_of(config: SweepConfig, gains: np.ndarray) -> Point:
    """The numbers of all networks of one seed, gains first: arrays (P,), scalars for what is the same in all.

    >>> points_of(SweepConfig(sigma_b=(0.25, 0.5)), np.array([1.0, 2.0])).sigma_b.tolist()
    [0.25, 0.5, 0.25, 0.5]
    """
    swept = {name: values for name, values in config.swept().items() if name != "width"}
    grid = np.meshgrid(gains, *swept.values(), indexing="ij")
    at = {name: values.ravel() for name, values in zip(swept, grid[1:], strict=True)}
    sigma_b, alpha, cosine = (at.get(name, getattr(config, name)) for name in ("sigma_b", "alpha", "input_correlation"))
    return Point(
        sigma_w=grid[0].ravel().astype(np.float32),
        sigma_b=np.asarray(sigma_b, np.float32) if np.any(sigma_b) else None,
        alpha=np.asarray(alpha, np.float32),
        input_distance=None if cosine is None else np.asarray(1 - np.asarray(cosine), np.float32),
    )


def _run_chunks(
    run: Callable[..., Callable[[], dict[str, np.ndarray]]],
    phis: Sequence[Activation],
    gains: int,
    seeds: int,
    chunk: int,
    progress: Progress | None,
) -> dict[str, np.ndarray]:
    """Results (activation, gain, seed, …) of all chunks of seeds; members −1 pad the last one and cost nothing."""
    results: dict[str, np.ndarray] = {}

    def collect(a: int, start: int, records: Callable[[], dict[str, np.ndarray]]) -> None:
        stop = min(start + chunk, seeds)
        for name, x in records().items():
            if name not in results:
                results[name] = np.empty((len(phis), gains, seeds, *x.shape[2:]), x.dtype)
            results[name][a, :, start:stop] = x[: stop - start].swapaxes(0, 1)
        if progress:
            progress(a * seeds + stop, len(phis) * seeds, phis[a].name)

    # One chunk ahead, so that the devices work while the host copies.
    ahead: tuple[int, int, Callable[[], dict[str, np.ndarray]]] | None = None
    for a in range(len(phis)):
        for start in range(0, seeds, chunk):
            members = np.arange(start, start + chunk, dtype=np.int32)
            started = (a, start, run(np.where(members < seeds, members, -1).astype(np.int32), index=a))
            if ahead:
                collect(*ahead)
            ahead = started
    if ahead:
        collect(*ahead)
    return results


def resolve_gains(phis: Sequence[Activation], gains: Sequence[float | str]) -> tuple[np.ndarray, np.ndarray]:
    """The gain axis (G,), float64 and sorted, and the names (A, G) of each activation's own gains on it.

    A kind that an activation does not have is left out. Gains that agree to 1e-9 are one: the number given if there
    is one, else torch's closed form, else the smallest.

    >>> axis, names = resolve_gains([activation("relu"), activation("tanh")], [1.0, "torch", "forward"])
    >>> axis.round(4).tolist()
    [1.0, 1.4142, 1.5925, 1.6667]
    >>> names.tolist()
    [['', 'forward, torch', '', ''], ['', '', 'forward', 'torch']]
    """
    numbers, kinds = read_gains(gains)
    own = [{kind: value for kind, value in named_gains(phi).items() if kind in kinds} for phi in phis]
    named_values = sorted((value, kind != "torch") for named in own for kind, value in named.items())
    candidates = sorted([*((value, -1) for value in numbers), *named_values])
    if not candidates:
        names = ", ".join(phi.name for phi in phis)
        raise ValueError(f"no gain left to sweep: {names} has none of the kinds {', '.join(kinds)}; add a number")
    axis = np.array([min(cluster, key=lambda candidate: candidate[1])[0] for cluster in _clusters(candidates)])
    names = np.full((len(phis), len(axis)), "", dtype=object)
    for row, named in zip(names, own, strict=True):
        for kind, value in named.items():
            place = np.argmin(np.abs(axis - value))
            row[place] = f"{row[place]}, {kind}" if row[place] else kind
    return axis, names.astype(str)


def _clusters(candidates: list[tuple[float, int]]) -> list[list[tuple[float, int]]]:
    """Rising gains, those together that agree to `SAME_GAIN`."""
    clusters: list[list[tuple[float, int]]] = []
    for candidate in candidates:
        if clusters and candidate[0] - clusters[-1][0][0] <= SAME_GAIN * candidate[0]:
            clusters[-1].append(candidate)
        else:
            clusters.append([candidate])
    return clusters


@lru_cache(maxsize=16)
def _program(
    phis: tuple[Activation, ...], points: Point, chunk: int, devices: tuple[Any, ...], setting: Setting
) -> Callable[..., Callable[[], dict[str, np.ndarray]]]:
    """Compile a sweep of one chunk of seeds, `program(members, root, points, index of the activation)`.

    Once for all values of these; the program outlives the call of `sweep`. It starts the devices; what it returns
    waits for their results.
    """
    wide: dict[str, Any] | None = {"xla_cpu_prefer_vector_width": 512} if devices[0].platform == "cpu" else None
    lowered, shapes = lower_program(phis, points, chunk, devices, setting)
    _return_freed_memory()
    compiled = lowered.compile(compiler_options=wide)
    _return_freed_memory()

    def program(members, *, root, points, index):
        packed = compiled(members, root, points, np.int32(index))
        return lambda: _unpacked(np.asarray(packed), shapes)

    return program


def _return_freed_memory() -> None:
    """Give back to the system what tracing and compiling needed and freed: several times what a sweep needs itself.

    The C library of Linux would keep it for the life of the process; others have no such call.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _unpacked(packed: np.ndarray, shapes: dict[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Records (…, shape) by name, from all of them side by side (…, numbers)."""
    records, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape.shape)
        x = packed[..., start : start + size].reshape(*packed.shape[:-1], *shape.shape)
        records[name], start = x.astype(shape.dtype), start + size
    return records


def lower_program(
    phis: tuple[Activation, ...], points: Point, chunk: int, devices: tuple[Any, ...], setting: Setting
) -> tuple[jax.stages.Lowered, dict[str, jax.ShapeDtypeStruct]]:
    """The program of a sweep, before it is compiled, and the shapes of the records that it yields side by side.

    `points` are the shapes of the numbers.
    """
    branches = [partial(value_and_slope, phi) for phi in phis]
    steepest = np.array([steepest_slope(phi) for phi in phis], np.float32)
    shapes: dict[str, jax.ShapeDtypeStruct] = {}
    batched = Point(*(0 if shape else None for shape in points))
    at_once = _neurons_at_once(points.sigma_w[0])

    @jax.jit  # for its memory of having been traced
    def one(member, root, points, index):
        key = jax.random.fold_in(jax.random.key(root, impl=KEYS), member)
        chosen = branches[0] if len(branches) == 1 else lambda z: jax.lax.switch(index, branches, z)
        formulas = {"value_and_slope": chosen, "steepest": jnp.asarray(steepest)[index]}

        def packed(point):
            # One array to fill and to fetch; whole numbers of layers are exact as float32.
            records = record_network(key, point, setting, neurons_at_once=at_once, **formulas)
            shapes.update({name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in records.items()})
            return jnp.concatenate([x.astype(jnp.float32).ravel() for x in records.values()])

        return jax.vmap(packed, in_axes=(batched,))(points)

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
    return jax.jit(spread).lower(member, root, numbers, index), shapes


def _neurons_at_once(gains: int) -> int:
    """Neurons of a wide network that are met at a time, for all gains together as many as for one network alone."""
    return max(256, NEURONS_AT_ONCE // gains)


def _check_memory(config: SweepConfig, networks: int, chunk: int, devices: int) -> None:
    """Refuse what cannot fit; the networks of a seed are never split: their batch decides the last bits of a result."""
    setting = setting_of(config)
    width = max(setting.widths)
    signals = config.inputs
    rows = signals * (1 + config.directions * bool(set(OF_TANGENTS) & set(config.statistics)))
    single = config.weights == "matrix_free" and signals == 1 and width > NARROW
    met = min(width, _neurons_at_once(networks)) if single and not setting.carries_vectors else width
    final_depths = max(1, len(config.depths))
    # Whole layers of numbers: those of the layer and of layer 0, the bits that they come from, and the network's ends.
    live = 4 * met * networks * (6 * rows + 4) * final_depths + 24 * width * rows
    if setting.carries_vectors:
        live += 4 * width * networks * rows * (config.depth + 12)
    if config.weights == "dense":
        maps = {"one_layer": 1, "two_layer": 2, "glu": 2, "glu_ffn": 3}[config.branch]
        live += 4 * width * (2 * maps * width + signals * networks * config.depth)
    carried = 4 * config.depth * networks * (3 * rows**2 + 8 * rows)
    kept = signals if config.keep_inputs else 1
    sizes = dict.fromkeys(OF_PAIRS, signals**2) | {"log_singular_values": config.directions * kept}
    recorded = sum(sizes.get(name, kept) * (final_depths if name in OF_REVERSE else 1) for name in config.statistics)
    result = 4 * networks * (1 + config.depth // config.record_every) * recorded
    need = devices * (live + carried) + result * (chunk + 2 * len(config.activations) * config.seeds)
    if need > config.memory * 2**30:
        raise ValueError(
            f"this sweep needs about {need / 2**30:.1f} GiB and memory is {config.memory:g} GiB; "
            "raise memory, or lower width, depth, the number of gains or the statistics, or raise record_every"
        )
