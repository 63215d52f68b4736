"""A `TrainConfig` to a labelled dataset: one compilation per shape of network, all its runs on all devices."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

import jaxgain
from jaxgain.activations import Activation, activation
from jaxgain.nn import LayerScales, layer_scales
from jaxgain.propagation.network import steepest_slope
from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.meanfield import Init
from jaxgain.training.config import TrainConfig
from jaxgain.training.data import Data, load
from jaxgain.training.engine import Member, Run, Shape, train_one

if TYPE_CHECKING:
    import xarray

Progress = Callable[[int, int, str], object]

# Runs of a chunk per device, between two reports of progress.
AT_ONCE = 4


def train(config: TrainConfig, *, progress: Progress | None = None) -> "xarray.Dataset":
    r"""Train every network of a grid for a few steps, and record what becomes of loss, gradients and signal.

    All runs of a seed have the same batches, and the same normal numbers behind their weights, so that initializations
    are compared with each other and not with luck. `progress(done, total, what)` is called between chunks of runs.

    Returns a dataset over (activation, init, depth, width, learning_rate, seed) and, where they apply, `step`, the
    `recorded_step` of the gradient and the `measured_step` of the signal, and `layer` (1 … L, the readout's gradient
    at L + 1; blocks of residual networks, and at 0 the layer in front of them): `loss` (cross-entropy in nats),
    `log_grad_norm` (natural logarithm), `q`, `correlation`, `saturated`, `train_accuracy`, `test_accuracy`,
    `diverged` (the first step that was not finite, −1 if none was). NaN from there on, and beyond the depth of a
    network. Coordinates of (activation, init): `sigma_w`, `sigma_b`, and of plain networks the depth `xi_c` over
    which correlations settle, from `fixed_point`: $-1/\ln\chi_\perp$ where the length falls to 0.

    Raises `ValueError` where the dataset's package is missing (pip install 'jaxgain[data]'), and where an activation
    has no such gain.

    >>> runs = train(TrainConfig(inits=("critical", 0.5), depths=15, steps=100, widths=32))
    >>> runs.loss.dims[:2], runs.loss.sizes["step"], runs.q.sizes["measured_step"]
    (('activation', 'init'), 100, 3)
    >>> bool(runs.loss.sel(init="critical").isel(step=slice(-10, None)).mean() < 2.2)
    True
    """
    data, phis = load(config.dataset), [activation(phi) for phi in config.activations]
    scales = [[scales_of(config, phi, value) for value in config.values()] for phi in phis]
    shapes = list(product(range(len(phis)), range(len(config.depths)), range(len(config.widths))))
    runs = list(product(range(len(config.labels())), range(len(config.learning_rates)), range(config.seeds)))
    found = _blank(config)
    compiling, started, done = 0.0, time.perf_counter(), 0
    with jax.enable_x64(True) if config.dtype == "float64" else nullcontext():
        for a, d, w in shapes:
            shape = _shape(config, phis[a], config.depths[d], config.widths[w], data)
            what = f"{phis[a].name}, depth {shape.depth}, width {shape.width}"
            kinds = sorted({_static(config, value) for value in config.values()})
            for kind in kinds:
                own = [(i, j, k) for i, j, k in runs if _static(config, config.values()[i]) == kind]
                members = [_member(config, scales[a][i], config.learning_rates[j], k) for i, j, k in own]
                devices = tuple(jax.local_devices()[: len(members)])
                at_once = min(AT_ONCE, -(-len(members) // len(devices)))
                before = time.perf_counter()
                program = _program(shape._replace(kind=kind), at_once, devices, (len(data.y), len(data.y_test)))
                compiling += time.perf_counter() - before
                for start, chunk in _chunks(members, program.size):
                    result = program.run(chunk, data)
                    for (i, j, k), one in zip(own[start:], _each(result), strict=False):
                        _put(found, (a, i, d, w, j, k), one)
                    done += min(program.size, len(members) - start)
                    if progress:
                        progress(done, len(shapes) * len(runs), what)
    seconds = {"compile_seconds": compiling, "run_seconds": time.perf_counter() - started - compiling}
    return _labelled(config, found, scales, phis, seconds)


def scales_of(config: TrainConfig, phi: Activation, value: float | str) -> LayerScales:
    """The scales of an initialization of plain networks."""
    if config.block != "plain":
        return LayerScales(np.nan, np.nan, np.nan, 0.0)
    if isinstance(value, str):
        return layer_scales(phi, value)
    return layer_scales(phi, Init(value, config.sigma_b))


def _static(config: TrainConfig, value: float | str) -> str:
    """What of an initialization is compiled in: the kind of a residual network's gain."""
    return "" if config.block == "plain" else str(value)


def _shape(config: TrainConfig, phi: Activation, depth: int, width: int, data: Data) -> Shape:
    same = ("block", "scaling", "distribution", "optimizer", "schedule", "clip", "epsilon", "weight_decay")
    more = ("batch", "steps", "gradient_every", "measure_every", "dtype")
    return Shape(
        phi=phi,
        steepest=steepest_slope(phi),
        features=data.x.shape[1],
        width=width,
        depth=depth,
        classes=data.classes,
        kind="",
        layer_rates=config.rates_of_layers(depth),
        **{name: getattr(config, name) for name in same + more},
    )


def _member(config: TrainConfig, scales: LayerScales, learning_rate: float, seed: int) -> Member:
    return Member(scales, learning_rate, np.uint32((config.seed * 1_000_003 + seed) % 2**32))


class Program(NamedTuple):
    """Compiled training of so many runs at a time."""

    run: Callable[[Member, Data], Run]
    size: int


@lru_cache(maxsize=64)
def _program(shape: Shape, at_once: int, devices: tuple[Any, ...], examples: tuple[int, int]) -> Program:
    """Compile a chunk of runs, one after the other on each device."""
    size, real = at_once * len(devices), np.dtype(shape.dtype)
    mesh = Mesh(np.array(devices), ("run",), axis_types=(AxisType.Auto,))
    by_run, whole = PartitionSpec("run"), PartitionSpec()

    def several(members: Member, *data: Any) -> Run:
        return jax.lax.map(lambda member: train_one(shape, member, *data), members)

    spread = jax.shard_map(several, mesh=mesh, in_specs=(by_run, *[whole] * 4), out_specs=by_run, check_vma=False)
    numbers = jax.ShapeDtypeStruct((size,), real)
    members = Member(LayerScales(*[numbers] * 4), numbers, jax.ShapeDtypeStruct((size,), np.uint32))
    data = [
        jax.ShapeDtypeStruct((count, *own), kind)
        for count in examples
        for own, kind in (((shape.features,), real), ((), np.dtype(np.int32)))
    ]
    compiled = jax.jit(spread).lower(members, *data).compile()

    def run(members: Member, data: Data) -> Run:
        of_type = lambda array: np.asarray(array, real if array.dtype == np.float64 else array.dtype)
        arrays = [
            of_type(array) for array in (data.x, data.y.astype(np.int32), data.x_test, data.y_test.astype(np.int32))
        ]
        return jax.device_get(compiled(jax.tree.map(of_type, members), *arrays))

    return Program(run, size)


def _chunks(members: list[Member], size: int) -> Iterator[tuple[int, Member]]:
    """Stacked runs, so many at a time; the last one again and again in the place of those that are missing."""
    for start in range(0, len(members), size):
        chunk = members[start : start + size]
        chunk += [chunk[-1]] * (size - len(chunk))
        yield start, jax.tree.map(lambda *each: np.array(each), *chunk)


def _each(result: Run) -> Iterator[Run]:
    for place in range(len(result.loss)):
        yield Run(*(part[place] for part in result))


def _blank(config: TrainConfig) -> Run:
    """Room for all runs, NaN where nothing is written."""
    sizes = (len(config.activations), len(config.labels()), len(config.depths), len(config.widths))
    grid = (*sizes, len(config.learning_rates), config.seeds)
    deepest = max(config.depths)
    room: Any = lambda *shape: np.full((*grid, *shape), np.nan, config.dtype)
    measured = (1 + config.steps // config.measure_every, deepest)
    recorded = (config.steps // config.gradient_every, len(config.rates_of_layers(deepest)))
    of_signal = {name: room(*measured) for name in ("q", "correlation", "saturated")}
    ends = {name: room() for name in ("train_accuracy", "test_accuracy")}
    diverged: Any = np.full(grid, -1, np.int32)
    return Run(loss=room(config.steps), log_grad_norm=room(*recorded), diverged=diverged, **of_signal, **ends)


def _put(found: Run, place: tuple[int, ...], one: Run) -> None:
    for room, part in zip(found, one, strict=True):
        room[(*place, *(slice(0, size) for size in part.shape))] = part


def _labelled(
    config: TrainConfig, found: Run, scales: list[list[LayerScales]], phis: list[Activation], seconds: dict[str, float]
) -> "xarray.Dataset":
    import xarray

    grid = ("activation", "init", "depth", "width", "learning_rate", "seed")
    dims = {
        "loss": ("step",),
        "log_grad_norm": ("recorded_step", "layer"),
        "q": ("measured_step", "layer"),
        "correlation": ("measured_step", "layer"),
        "saturated": ("measured_step", "layer"),
    }
    layers = len(config.rates_of_layers(max(config.depths)))
    # The layer in front of the blocks of a residual network is layer 0.
    beside = (layers - 1 - max(config.depths), 1)
    variables: dict[str, Any] = {}
    for name, values in found._asdict().items():
        own = dims.get(name, ())
        if "measured_step" in own:  # nothing of a signal at the readout
            values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [beside], constant_values=np.nan)
        variables[name] = ((*grid, *own), values, _ABOUT[name])
    plain = config.block == "plain"
    at = lambda of: np.array([[of(one) for one in row] for row in scales], float)
    xi_c = [[_xi_c(phi, one) if plain else np.nan for one in row] for phi, row in zip(phis, scales, strict=True)]
    of_init = {"sigma_w": at(lambda one: one.hidden), "sigma_b": at(lambda one: one.sigma_b), "xi_c": np.array(xi_c)}
    return xarray.Dataset(
        variables,
        coords={
            "activation": list(config.activation_names()),
            "init": list(config.labels()),
            "depth": list(config.depths),
            "width": list(config.widths),
            "learning_rate": list(config.learning_rates),
            "seed": np.arange(config.seeds),
            "step": np.arange(config.steps),
            "recorded_step": np.arange(0, config.steps, config.gradient_every),
            "measured_step": np.arange(0, config.steps + 1, config.measure_every),
            "layer": np.arange(1 - beside[0], layers + 1 - beside[0]),
            **{name: (("activation", "init"), values, _ABOUT[name]) for name, values in of_init.items()},
        },
        attrs={
            "train_config": config.to_json(),
            "train_config_hash": config.hash(),
            "jaxgain": jaxgain.__version__,
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            **seconds,
        },
    )


def _xi_c(phi: Activation, scales: LayerScales) -> float:
    point = fixed_point(phi, Init(scales.hidden, scales.sigma_b))
    # Where the length itself is lost, so are distances, by χ⊥ per layer.
    return float(point.xi_c if point.q > 0 else point.xi_grad)


_ABOUT = {
    "loss": {"long_name": "training loss", "units": "nats", "description": "of the batch, before the step"},
    "log_grad_norm": {
        "long_name": "ln |∂loss/∂W|",
        "description": "of a layer's kernel; the readout is the last layer",
    },
    "q": {"long_name": "length", "description": "mean square of z over neurons and 32 inputs"},
    "correlation": {"long_name": "correlation", "description": "mean cosine between the z of two inputs"},
    "saturated": {"long_name": "saturated", "description": "fraction of neurons with a slope below 1% of the largest"},
    "train_accuracy": {"long_name": "training accuracy", "description": "after the last step"},
    "test_accuracy": {"long_name": "test accuracy", "description": "after the last step"},
    "diverged": {"long_name": "diverged at step", "description": "first step that was not finite; -1: none"},
    "sigma_w": {"long_name": "σ_w", "description": "of the hidden layers"},
    "sigma_b": {"long_name": "σ_b", "description": "of the biases"},
    "xi_c": {
        "long_name": "ξ_c",
        "units": "layers",
        "description": "-1/ln of the correlation map's slope at c*, of chi_perp at q = 0",
    },
}
