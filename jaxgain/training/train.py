"""A `TrainConfig` to a labelled dataset: one compilation per shape of network, all its runs on all devices."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

import jaxgain
from jaxgain.activations import Activation, activation
from jaxgain.nn import LayerScales, layer_scales
from jaxgain.propagation.network import steepest_slope
from jaxgain.runs.files import is_ours, load_dataset, save_dataset, saved_attributes
from jaxgain.runs.job import Report, is_complete, open_job
from jaxgain.runs.parts import Damaged, Piece
from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.meanfield import Init
from jaxgain.training.config import TrainConfig
from jaxgain.training.data import Data, load_data
from jaxgain.training.engine import Member, Run, Shape, train_one

if TYPE_CHECKING:
    import xarray

Progress = Callable[[int, int, str], object]

# Runs of a chunk per device, between two reports of progress: of wide networks, and of those that are not.
AT_ONCE, SIDE_BY_SIDE = 4, 8

# Width up to which a step costs more to start than to compute: measured, 8 together take 0.54 of the time at 16, 0.87
# at 64, two hidden layers on a CPU.
SMALL = 32


def train(
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> "xarray.Dataset":
    r"""Train every network of a grid for a few steps, and record what becomes of loss, gradients and signal.

    All runs of a seed have the same batches, and the same normal numbers behind their weights, so that initializations
    are compared with each other and not with luck. `progress(done, total, what)` is called between chunks of runs.

    In a `folder` the dataset becomes `train.nc`, and the same call goes on where one before it was stopped; `overwrite`
    and `report` are as for `sweep`.

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
    if folder is not None:
        return _train_in_folder(config, Path(folder), overwrite, progress, report or (lambda sentence: None))
    grid, found, clock = _grid_of(config), _blank(config), Clock()
    for task, one, _ in _compute(grid, set(range(grid.tasks)), clock, progress):
        _put(found, grid.place(task), one)
    return _labelled(config, found, grid.scales, grid.phis, clock.seconds())


def _train_in_folder(
    config: TrainConfig, folder: Path, overwrite: bool, progress: Progress | None, report: Report
) -> "xarray.Dataset":
    path, parts = folder / "train.nc", folder / "train.parts"
    here = _settings(config.to_json(), len(jax.local_devices()))
    ours = is_ours(path, "train_config_hash", "a training")
    if ours and not overwrite and is_complete(path, parts, _settings_of_file(path), here, "training", report):
        return load_dataset(path)
    grid, found, clock = _grid_of(config), _blank(config), Clock()
    with open_job(parts, here, grid.tasks, len(grid.runs), report=report, overwrite=overwrite) as job:
        missing = {task for start, stop in job.missing() for task in range(start, stop)}
        if len(missing) < grid.tasks:
            report(f"{1 - len(missing) / grid.tasks:.0%} of the training is in {parts} already")
        while missing:
            for task, one, seconds in _compute(grid, missing, clock, progress):
                if task in missing:
                    arrays = {name: np.asarray(part)[None] for name, part in one._asdict().items()}
                    job.add(Piece(task, task + 1, arrays), seconds)
            try:
                for piece in job.pieces():
                    for row, task in enumerate(range(piece.start, piece.stop)):
                        _put(found, grid.place(task), Run(**{name: part[row] for name, part in piece.arrays.items()}))
            except Damaged:
                pass
            missing = {task for start, stop in job.missing() for task in range(start, stop)}
        clock.running = job.seconds
        save_dataset(_labelled(config, found, grid.scales, grid.phis, clock.seconds()), path)
        job.remove()
    return load_dataset(path)


def _settings(config: str, devices: int) -> dict[str, Any]:
    """All that the numbers of a training depend on, to the last bit: also how many runs are compiled together."""
    versions = {"jaxgain": jaxgain.__version__, "jax": jax.__version__}
    return json.loads(config) | {"versions": versions, "device": jax.devices()[0].device_kind, "devices": devices}


def _settings_of_file(path: Path) -> dict[str, Any]:
    attributes = saved_attributes(path)
    versions = {name: attributes.get(name) for name in ("jaxgain", "jax")}
    there = {"versions": versions, "device": attributes.get("device"), "devices": int(attributes.get("devices", 0))}
    return json.loads(attributes.get("train_config", "{}")) | there


class Grid(NamedTuple):
    """All runs of a config: each (shape of network, run) is a task."""

    config: TrainConfig
    data: Data
    phis: list[Activation]
    scales: list[list[LayerScales]]
    shapes: list[tuple[int, int, int]]
    """Indices of activation, depth and width."""
    runs: list[tuple[int, int, int]]
    """Indices of initialization, learning rate and seed."""

    @property
    def tasks(self) -> int:
        """How many there are."""
        return len(self.shapes) * len(self.runs)

    def place(self, task: int) -> tuple[int, ...]:
        """Where a task is in the dataset."""
        (a, d, w), (i, j, k) = self.shapes[task // len(self.runs)], self.runs[task % len(self.runs)]
        return a, i, d, w, j, k


@dataclasses.dataclass
class Clock:
    """Seconds of compiling and of running."""

    compiling: float = 0.0
    running: float = 0.0

    def seconds(self) -> dict[str, float]:
        """As attributes of a dataset."""
        return {"compile_seconds": self.compiling, "run_seconds": self.running}


def _grid_of(config: TrainConfig) -> Grid:
    data, phis = load_data(config.dataset), [activation(phi) for phi in config.activations]
    scales = [[scales_of(config, phi, value) for value in config.values()] for phi in phis]
    shapes = list(product(range(len(phis)), range(len(config.depths)), range(len(config.widths))))
    runs = list(product(range(len(config.labels())), range(len(config.learning_rates)), range(config.seeds)))
    return Grid(config, data, phis, scales, shapes, runs)


def _compute(grid: Grid, wanted: set[int], clock: Clock, progress: Progress | None) -> Iterator[tuple[int, Run, float]]:
    """The tasks that are wanted, and those that run in one chunk with them, with the seconds that each took.

    Chunks are those of the whole grid, as their size may decide the last bits.
    """
    config, done = grid.config, grid.tasks - len(wanted)
    precise = partial(jax.enable_x64, True) if config.dtype == "float64" else nullcontext
    for place, (a, d, w) in enumerate(grid.shapes):
        shape = shape_of(config, grid.phis[a], config.depths[d], config.widths[w], grid.data)
        what = f"{grid.phis[a].name}, depth {shape.depth}, width {shape.width}"
        for kind in sorted({_static(config, value) for value in config.values()}):
            own = [run for run in grid.runs if _static(config, config.values()[run[0]]) == kind]
            tasks = [place * len(grid.runs) + grid.runs.index(run) for run in own]
            if not wanted & {*tasks}:
                continue
            members = [member_of(config, grid.scales[a][i], config.learning_rates[j], k) for i, j, k in own]
            devices = tuple(jax.local_devices()[: len(members)])
            at_once = min(SIDE_BY_SIDE if shape.width <= SMALL else AT_ONCE, -(-len(members) // len(devices)))
            before = time.perf_counter()
            examples = (len(grid.data.y), len(grid.data.y_test))
            with precise():
                program = _program(shape._replace(kind=kind), at_once, devices, examples)
            clock.compiling += time.perf_counter() - before
            for start, chunk in _chunks(members, program.size):
                together = tasks[start : start + program.size]
                if not wanted & {*together}:
                    continue
                before = time.perf_counter()
                with precise():
                    result = program.run(chunk, grid.data)
                seconds = time.perf_counter() - before
                clock.running += seconds
                done += len(wanted & {*together})
                if progress:
                    progress(done, grid.tasks, what)
                for task, one in zip(together, _each(result), strict=False):
                    yield task, one, seconds / len(together)


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


def shape_of(config: TrainConfig, phi: Activation, depth: int, width: int, data: Data) -> Shape:
    """What the runs of one network have in common; the kind of a residual network's gain is still to be put in."""
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


def member_of(config: TrainConfig, scales: LayerScales, learning_rate: float, seed: int) -> Member:
    """The numbers of one run; every seed of a grid is a different one of `config.seed`."""
    return Member(scales, learning_rate, np.uint32((config.seed * 1_000_003 + seed) % 2**32))


class Program(NamedTuple):
    """Compiled training of so many runs at a time."""

    run: Callable[[Member, Data], Run]
    size: int


@lru_cache(maxsize=64)
def _program(shape: Shape, at_once: int, devices: tuple[Any, ...], examples: tuple[int, int]) -> Program:
    """Compile a chunk of runs: on each device small networks side by side, others one after the other."""
    size, real = at_once * len(devices), np.dtype(shape.dtype)
    mesh = Mesh(np.array(devices), ("run",), axis_types=(AxisType.Auto,))
    by_run, whole = PartitionSpec("run"), PartitionSpec()

    def several(members: Member, *data: Any) -> Run:
        one = lambda member: train_one(shape, member, *data)
        return jax.vmap(one)(members) if shape.width <= SMALL else jax.lax.map(one, members)

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
            "devices": len(jax.local_devices()),
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
