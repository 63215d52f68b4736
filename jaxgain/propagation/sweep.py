r"""Many networks at once: a `SweepConfig` to a labelled dataset, in memory or in a folder that outlives the process."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jaxlib.version
import numpy as np

import jaxgain
from jaxgain.activations import Activation, activation
from jaxgain.propagation.config import SweepConfig, read_gains
from jaxgain.propagation.labels import frame_of, slabs_of, variables_of
from jaxgain.propagation.network import Point, setting_of
from jaxgain.propagation.plan import Plan, plan_sweep
from jaxgain.propagation.program import KEYS, compiled_program
from jaxgain.runs.files import is_ours, load_dataset, open_dataset, saved_attributes
from jaxgain.runs.job import Job, Ranges, Report, is_complete, missing_of
from jaxgain.runs.merge import Slab, Variable, save_slabs
from jaxgain.runs.parts import Damaged, Piece
from jaxgain.runs.processes import agree, processes, share, shared_job
from jaxgain.theory.gains import named_gains

if TYPE_CHECKING:
    import xarray

Progress = Callable[[int, int, str], None]
"""Called with the work done, the work in all, and what is being done."""

# Gains closer than this, relatively, are the same float32 network.
SAME_GAIN = 1e-9

FILE, PARTS = "sweep.nc", "sweep.parts"


def sweep(
    config: SweepConfig,
    progress: Progress | None = None,
    *,
    folder: str | Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> "xarray.Dataset":
    """Propagate random networks over every activation, gain and seed of the config.

    Args:
        config: what to run; see `SweepConfig`.
        progress: called as `progress(done, total, what)` after every chunk of seeds.
        folder: where to write the dataset `sweep.nc` and, meanwhile, what is computed of it. The same call goes on
            where one before it was stopped, and reads a sweep that is complete; results are the same, bit for bit.
            Processes that `jax.distributed` has made known to each other share the work, and the folder.
        overwrite: whether to run it anew in place of what is in the folder, also where that has other settings.
        report: called with a sentence about what was found in the folder.

    Returns:
        Dataset with dims (activation, gain, seed, layer), and `input` last if the config keeps the inputs apart; what
        else is swept (`width`, `sigma_b`, `alpha`, `input_correlation`) comes after `gain`. `gain` is the sorted union
        of the numbers and of every named gain; `gain_name(activation, gain)` says which gains are whose. Logs are
        natural. Attributes hold the config as JSON, its hash, versions and devices. From a folder it is read as it is
        needed where it is larger than half of `config.memory`.

    Raises:
        ValueError: when the smallest chunk does not fit into `config.memory`, and when the folder holds a sweep of
            other settings, or another process is at work in it.
        OSError: when the folder cannot be written; what was written before remains.

    >>> import jaxgain as jg
    >>> config = jg.SweepConfig(activations=("tanh",), gains=(1.0, 5 / 3), width=100, depth=20, seeds=4)
    >>> dataset = jg.sweep(config)
    >>> dict(dataset["std"].sizes)
    {'activation': 1, 'gain': 2, 'seed': 4, 'layer': 21}
    """
    report = report or (lambda sentence: None)
    prepared = _prepare(config, in_memory=folder is None)
    if folder is not None:
        return _sweep_in_folder(prepared, Path(folder), overwrite, progress, report)
    clock, variables = Clock(), prepared.variables
    arrays = {name: np.empty(variable.shape, variable.dtype) for name, variable in variables.items()}
    for piece, _ in _compute(prepared, missing_of([], prepared.plan.tasks, config.seeds), clock, progress):
        for name, place, values in _slabs(prepared, piece):
            arrays[name][place] = values
    found = {name: (variable.dims, arrays[name], variable.attrs) for name, variable in variables.items()}
    return _frame(prepared, clock).assign(found)


class Prepared(NamedTuple):
    """A sweep about to be run."""

    config: SweepConfig
    phis: tuple[Activation, ...]
    gains: np.ndarray
    gain_names: np.ndarray
    plan: Plan

    @property
    def variables(self) -> dict[str, Variable]:
        """The axes of the statistics."""
        return variables_of(self.config, len(self.phis), len(self.gains))


@dataclasses.dataclass
class Clock:
    """Seconds of compiling, of running, and of writing parts beside that."""

    compiling: float = 0.0
    running: float = 0.0
    writing: float = 0.0


def _prepare(config: SweepConfig, *, in_memory: bool) -> Prepared:
    phis = tuple(activation(phi) for phi in config.activations)
    gains, gain_names = resolve_gains(phis, config.gains)
    config.to_json()  # which may find that what a user's functions compute has no name
    plan = plan_sweep(config, len(phis), len(gains), len(jax.local_devices()), in_memory=in_memory)
    return Prepared(config, phis, gains, gain_names, plan)


def _sweep_in_folder(
    prepared: Prepared, folder: Path, overwrite: bool, progress: Progress | None, report: Report
) -> "xarray.Dataset":
    config, plan, path = prepared.config, prepared.plan, folder / FILE
    settings = _settings(config)
    ours = is_ours(path, "config_hash", "a sweep")
    if ours and not overwrite and is_complete(path, folder / PARTS, _settings_of_file(path), settings, "sweep", report):
        return _read(path, config)
    clock, (count, own) = Clock(), processes()
    sizes = dict(total=plan.tasks, group=config.seeds, bytes_of_part=int(config.memory * 2**30) // 8)
    with shared_job(folder / PARTS, settings, overwrite=overwrite, report=report, **sizes) as job:
        before = plan.tasks - sum(stop - start for start, stop in job.missing())
        if before and own == 0:
            report(f"{before / plan.tasks:.0%} of the sweep is in {job.folder} already")
        for piece, seconds in _compute(prepared, share(job.missing(), own, count), clock, progress):
            job.add(piece, seconds)
        if count > 1:
            job.flush()
            agree()
        if own == 0:
            _merge(prepared, job, clock, progress, path, others=count > 1)
        agree()
    return _read(path, config)


def _merge(prepared: Prepared, job: Job, clock: Clock, progress: Progress | None, path: Path, *, others: bool) -> None:
    """Write the dataset of all results, after those that turn out to be missing or damaged."""
    if others:
        job.read()
    while True:
        for piece, seconds in _compute(prepared, job.missing(), clock, progress):
            job.add(piece, seconds)
        clock.running, clock.writing = job.seconds, job.write_seconds
        try:
            slabs = (slab for piece in job.pieces() for slab in _slabs(prepared, piece))
            save_slabs(_frame(prepared, clock), prepared.variables, slabs, path)
            return job.remove()
        except Damaged:
            continue


def _settings(config: SweepConfig) -> dict[str, Any]:
    """All that the numbers of a sweep depend on, to the last bit."""
    fields = {name: value for name, value in json.loads(config.to_json()).items() if name != "memory"}
    return fields | {"versions": _versions(), "device": jax.local_devices()[0].device_kind}


def _versions() -> dict[str, str]:
    return {"jaxgain": jaxgain.__version__, "jax": jax.__version__, "jaxlib": jaxlib.version.__version__}


def _settings_of_file(path: Path) -> dict[str, Any]:
    attributes = saved_attributes(path)
    fields = {name: value for name, value in json.loads(attributes.get("config", "{}")).items() if name != "memory"}
    versions = {name: attributes.get(name) for name in _versions()}
    return fields | {"versions": versions, "device": attributes.get("devices", "").split(" × ", 1)[-1]}


def _read(path: Path, config: SweepConfig) -> "xarray.Dataset":
    dataset = open_dataset(path)
    if dataset.nbytes > config.memory * 2**30 / 2:
        return dataset
    dataset.close()
    return load_dataset(path)


def _frame(prepared: Prepared, clock: Clock) -> "xarray.Dataset":
    """The dataset without its statistics."""
    config, phis, gains, gain_names, plan = prepared
    return frame_of(config, phis, gains, gain_names).assign_attrs(
        devices=f"{plan.devices} × {jax.local_devices()[0].device_kind}",
        chunks=str(plan),
        key_implementation=KEYS,
        compile_seconds=clock.compiling,
        run_seconds=clock.running,
        write_seconds=clock.writing,
    )


def _slabs(prepared: Prepared, piece: Piece) -> Iterator[Slab]:
    width, phi, gains = prepared.plan.place(piece.start)
    seeds = slice(piece.start % prepared.plan.seeds, piece.start % prepared.plan.seeds + piece.stop - piece.start)
    return slabs_of(prepared.config, piece.arrays, width=width, phi=phi, gains=gains, seeds=seeds)


def _compute(
    prepared: Prepared, ranges: Ranges, clock: Clock, progress: Progress | None
) -> Iterator[tuple[Piece, float]]:
    """Results of the tasks in some ranges, chunk by chunk, with the seconds since the chunk before."""
    plan, devices = prepared.plan, tuple(jax.local_devices()[: prepared.plan.devices])
    chunk = plan.seeds_at_once * len(devices)
    # Neighbours go to different devices, so that those are equally busy in the last chunk too.
    order = np.arange(chunk).reshape(plan.seeds_at_once, len(devices)).T.ravel()
    done, since = plan.tasks - sum(stop - start for start, stop in ranges), 0.0

    def collect(start: int, stop: int, phi: int, records: Callable[[], dict[str, np.ndarray]]) -> tuple[Piece, float]:
        nonlocal done, since
        where = np.argsort(order)[: stop - start]
        arrays = {name: np.moveaxis(x, (-2, -1), (0, 1))[where] for name, x in records().items()}
        now = time.perf_counter()
        seconds, since = now - since, now
        clock.running += seconds
        done += stop - start
        if progress:
            progress(done, plan.tasks, prepared.phis[phi].name)
        return Piece(start, stop, arrays), seconds

    # One chunk ahead, so that the devices work while the host copies.
    ahead: tuple[int, int, int, Callable[[], dict[str, np.ndarray]]] | None = None
    for first, last in ranges:
        width, phi, gains = plan.place(first)
        run, compiling = _runner(prepared, width, gains, chunk, devices)
        clock.compiling += compiling
        since = time.perf_counter() if since == 0.0 else since + compiling
        for start in range(first, last, chunk):
            stop = min(start + chunk, last)
            members = start % plan.seeds + order
            started = run(np.where(order < stop - start, members, -1).astype(np.int32), index=phi)
            if ahead:
                yield collect(*ahead)
            ahead = (start, stop, phi, started)
    if ahead:
        yield collect(*ahead)


def _runner(
    prepared: Prepared, width: int, gains: slice, chunk: int, devices: tuple[Any, ...]
) -> tuple[Callable[..., Callable[[], dict[str, np.ndarray]]], float]:
    """What runs a chunk of seeds for a batch of gains, and the seconds that compiling it took."""
    config = prepared.plan.at_widths[width]
    batch = prepared.gains[gains]
    # The last batch is filled up, so that all batches are one program's.
    batch = np.concatenate([batch, np.repeat(batch[-1:], prepared.plan.gains_at_once - len(batch))])
    points = points_of(config, batch)
    before = time.perf_counter()
    with jax.enable_x64(False):
        program = compiled_program(prepared.phis, jax.tree.map(np.shape, points), chunk, devices, setting_of(config))
    seconds = time.perf_counter() - before

    def run(members: np.ndarray, *, index: int) -> Callable[[], dict[str, np.ndarray]]:
        with jax.enable_x64(False):
            return program(members, root=np.uint32(config.seed), points=points, index=index)

    return run, seconds


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
