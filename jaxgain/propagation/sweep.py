r"""Many networks at once: a `SweepConfig` to a labelled dataset.

One compiled program serves every activation, gain and seed: gains are a batch axis over shared random numbers,
activations are branches of one program, seeds are spread over the devices and run one after the other on each.
"""

import contextlib
import ctypes
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

import jaxgain
from jaxgain.activations import Activation, activation
from jaxgain.propagation.config import SweepConfig, read_gains
from jaxgain.propagation.network import NEURONS_AT_ONCE, REVERSE, record_network, steepest_slope, value_and_slope
from jaxgain.propagation.rows import NARROW
from jaxgain.theory.critical import critical_init
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

LONG_NAMES = {
    "q": "length: mean of z² over the neurons",
    "mean": "mean of h over the neurons",
    "std": "standard deviation of h over the neurons",
    "second_moment": "mean of h² over the neurons",
    "log_grad_rms": "log rms of ∂loss/∂h over the neurons",
    "log_grad_mean_abs": "log mean absolute value of ∂loss/∂h over the neurons",
    "log_weight_grad_rms": "log rms entry of ∂loss/∂W",
    "log_jacobian_rms": "log ‖J u‖/‖u‖ from the input, random u",
    "correlation": "cosine of two inputs' pre-activations z",
    "correlation_h": "cosine of two inputs' activations h",
    "saturated": "fraction of neurons with |φ'(z)| below 1% of its largest",
    "dead": "fraction of neurons with φ'(z) = 0 for every input",
    "first_nonfinite": "first layer with a value that is not finite, −1 if none",
    "first_vanished": "first layer whose activations are all below the smallest normal number, −1 if none",
}


def sweep(config: SweepConfig, progress: Progress | None = None) -> "xarray.Dataset":
    """Propagate random networks over every activation, gain and seed of the config.

    Args:
        config: what to run; see `SweepConfig`.
        progress: called as `progress(done, total, what)` after every chunk of seeds.

    Returns:
        Dataset with dims (activation, gain, seed, layer), and `input` last if the config keeps the inputs apart.
        `gain` is the sorted union of the numbers and of every named gain; `gain_name(activation, gain)` says which
        gains are whose. Logs are natural. Attributes hold the config as JSON, its hash, versions and devices.

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
    devices = tuple(jax.local_devices()[: config.seeds])
    chunk = SEEDS_AT_ONCE * len(devices)
    _check_memory(config, len(gains), chunk, len(devices))
    with jax.enable_x64(False):
        started = time.perf_counter()
        program = _program(phis, len(gains), chunk, devices, _settings(config))
        compiled = time.perf_counter()
        run = partial(program, root=np.uint32(config.seed), gains=gains.astype(np.float32), sigma_b=config.sigma_b)
        results = _run_chunks(run, phis, len(gains), config.seeds, chunk, progress)
    finished = time.perf_counter()
    return _dataset(config, phis, gains, gain_names, results).assign_attrs(
        devices=f"{len(devices)} × {devices[0].device_kind}",
        key_implementation=KEYS,
        compile_seconds=compiled - started,
        run_seconds=finished - compiled,
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


def _settings(config: SweepConfig) -> tuple[tuple[str, Any], ...]:
    """What the compiled program depends on, beside the activations, as keyword arguments of `record_network`."""
    names = ("width", "depth", "depths", "inputs", "weights", "cotangent", "input_scale", "input_correlation")
    names += ("statistics", "record_every", "keep_inputs")
    return (*((name, getattr(config, name)) for name in names), ("bias", config.sigma_b > 0))


@lru_cache(maxsize=16)
def _program(
    phis: tuple[Activation, ...], gains: int, chunk: int, devices: tuple[Any, ...], settings: tuple
) -> Callable[..., Callable[[], dict[str, np.ndarray]]]:
    """Compile a sweep of one chunk of seeds, `program(members, root, gains, sigma_b, index of the activation)`.

    Once for all values of these; the program outlives the call of `sweep`. It starts the devices; what it returns
    waits for their results.
    """
    wide: dict[str, Any] | None = {"xla_cpu_prefer_vector_width": 512} if devices[0].platform == "cpu" else None
    lowered, shapes = lower_program(phis, gains, chunk, devices, settings)
    _return_freed_memory()
    compiled = lowered.compile(compiler_options=wide)
    _return_freed_memory()

    def program(members, *, root, gains, sigma_b, index):
        packed = compiled(members, root, gains, np.float32(sigma_b), np.int32(index))
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
    phis: tuple[Activation, ...], gains: int, chunk: int, devices: tuple[Any, ...], settings: tuple
) -> tuple[jax.stages.Lowered, dict[str, jax.ShapeDtypeStruct]]:
    """The program of a sweep, before it is compiled, and the shapes of the records that it yields side by side."""
    options = dict(settings)
    bias = options.pop("bias")
    options["neurons_at_once"] = _neurons_at_once(gains)
    branches = [partial(value_and_slope, phi) for phi in phis]
    steepest = np.array([steepest_slope(phi) for phi in phis], np.float32)
    shapes: dict[str, jax.ShapeDtypeStruct] = {}

    @jax.jit  # for its memory of having been traced
    def one(member, root, gains, sigma_b, index):
        key = jax.random.fold_in(jax.random.key(root, impl=KEYS), member)
        chosen = branches[0] if len(branches) == 1 else lambda z: jax.lax.switch(index, branches, z)
        record = partial(record_network, key, value_and_slope=chosen, steepest=jnp.asarray(steepest)[index], **options)

        def packed(gain):
            # One array to fill and to fetch; whole numbers of layers are exact as float32.
            records = record(sigma_w=gain, sigma_b=sigma_b if bias else 0.0)
            shapes.update({name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in records.items()})
            return jnp.concatenate([x.astype(jnp.float32).ravel() for x in records.values()])

        return jax.vmap(packed)(gains)

    def several(members, *shared):
        # A loop of unknown length: the compiler cannot treat one member differently, and padding costs nothing.
        whole = jax.eval_shape(one, members[0], *shared)
        blank = jnp.zeros((len(members), *whole.shape), whole.dtype)

        def add(place, done):
            return done.at[place].set(one(members[place], *shared))

        return jax.lax.fori_loop(0, jnp.sum(members >= 0), add, blank)

    mesh = Mesh(np.array(devices), ("seed",), axis_types=(AxisType.Auto,))
    by_seed, whole = PartitionSpec("seed"), PartitionSpec()
    specs = (by_seed, whole, whole, whole, whole)
    spread = jax.shard_map(several, mesh=mesh, in_specs=specs, out_specs=by_seed, check_vma=False)
    arguments = (((chunk,), np.int32), ((), np.uint32), ((gains,), np.float32), ((), np.float32), ((), np.int32))
    return jax.jit(spread).lower(*(jax.ShapeDtypeStruct(*argument) for argument in arguments)), shapes


def _neurons_at_once(gains: int) -> int:
    """Neurons of a wide network that are met at a time, for all gains together as many as for one network alone."""
    return max(256, NEURONS_AT_ONCE // gains)


def _check_memory(config: SweepConfig, gains: int, chunk: int, devices: int) -> None:
    """Refuse what cannot fit: gains are never split, since their batch decides the last bits of a result."""
    rows = config.inputs * (2 if "log_jacobian_rms" in config.statistics else 1)
    single = config.weights == "matrix_free" and config.inputs == 1 and config.width > NARROW
    met = min(config.width, _neurons_at_once(gains)) if single else config.width
    final_depths = max(1, len(config.depths))
    # Whole layers of numbers: those of the layer and of layer 0, the bits that they come from, and the network's ends.
    whole = 24 * config.width * rows
    live = 4 * met * gains * (6 * rows + 4) * final_depths + whole
    if config.weights == "dense":
        live += 4 * config.width * (2 * config.width + config.inputs * gains * config.depth)
    carried = 4 * config.depth * gains * (3 * rows**2 + 8 * rows)
    kept = config.inputs if config.keep_inputs else 1
    recorded = len(config.statistics) + (final_depths - 1) * len(set(REVERSE) & set(config.statistics))
    result = 4 * gains * (1 + config.depth // config.record_every) * recorded * kept
    need = devices * (live + carried) + result * (chunk + 2 * len(config.activations) * config.seeds)
    if need > config.memory * 2**30:
        raise ValueError(
            f"this sweep needs about {need / 2**30:.1f} GiB and memory is {config.memory:g} GiB; "
            "raise memory, or lower width, depth, the number of gains or the statistics, or raise record_every"
        )


def _dataset(
    config: SweepConfig,
    phis: Sequence[Activation],
    gains: np.ndarray,
    gain_names: np.ndarray,
    results: dict[str, np.ndarray],
) -> "xarray.Dataset":
    """Label the results; squares of what float32 holds are taken in float64, where they cannot underflow."""
    import xarray  # not before the compiler has given its memory back

    for moment, rms in (("q", "rms_z"), ("second_moment", "rms_h")):
        if rms in results:
            results[moment] = results.pop(rms).astype(np.float64) ** 2
    members = ("activation", "gain", "seed")
    variables = {}
    for name in config.statistics:
        x = results[name]
        dims = members + (("depth",) if config.depths and name in REVERSE else ())
        dims += tuple(dim for dim, axis in (("layer", len(dims)), ("input", len(dims) + 1)) if x.ndim > axis)
        variables[name] = (dims, x, {"long_name": LONG_NAMES[name]})
    return xarray.Dataset(
        variables,
        coords={
            "activation": list(config.activation_names()),
            "gain": ("gain", gains, {"long_name": "gain σ_w: standard deviation of a weight times √fan_in"}),
            "seed": np.arange(config.seeds),
            "layer": ("layer", np.arange(0, config.depth + 1, config.record_every), {"long_name": "layer"}),
            **({"depth": ("depth", list(config.depths), {"long_name": "last layer"})} if config.depths else {}),
            "critical_sigma_b": (
                "activation",
                [_critical_sigma_b(phi) for phi in phis],
                {"long_name": "σ_b of the critical initialization, NaN if there is none"},
            ),
            "gain_name": (
                ("activation", "gain"),
                gain_names,
                {"long_name": "the activation's own gains by kind"},
            ),
        },
        attrs={
            "config": config.to_json(),
            "config_hash": config.hash(),
            "jaxgain": jaxgain.__version__,
            "jax": jax.__version__,
            "jaxlib": jaxlib.version.__version__,
        },
    )


def _critical_sigma_b(phi: Activation) -> float:
    critical = critical_init(phi)
    return math.nan if critical.kind == "none" or critical.init is None else float(critical.init.sigma_b)
