"""How fast is the plain Gaussian sweep, and how fast are phase diagrams? On one machine, in one run.

Claim: without its matrices, a sweep with forward and reverse statistics costs a few plain tanh per neuron, layer,
gain and seed; it is thousands of times faster than a loop over layers in PyTorch and tens of times faster than the
best dense code; it grows linearly with width and depth, in memory that does not grow with their product. And a phase
diagram of 200 × 200 points takes under 5 s for tanh and under 15 s for any activation of ours, compiling included.

    python -m experiments.benchmark

prints its table, and writes benchmark.nc (every repetition's time) and benchmark.png; `pip install torch` before it
for the rows on PyTorch; with `--only diagrams`, or other parts, it prints their tables and writes nothing. Whatever is
timed is alone on all cores, and warm but for the phase diagrams. What is compared takes turns (A, B, A, B, …); a ratio
is the median of the rounds' ratios, shown beside that of the shortest times.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import xarray

import jaxgain
from experiments.benchmark_report import ALL, DENSE, FEW_GAINS, FORUM, TANGENT, TORCH, UNIT, report, start_of, worded
from jaxgain.activations import ACTIVATIONS
from jaxgain.cli.running import cores
from jaxgain.experiments import experiment
from jaxgain.propagation.config import STATISTICS, SweepConfig

ELEMENTS, CHAIN = 2**20, 64  # an activation alone: float32 numbers, and calls on its own output timed together
FORWARD = tuple(name for name in STATISTICS if "grad" not in name)
PHASES = (0.0, 4.0), (0.0, 2.0)  # σ_w and σ_b of the phase diagrams
Part = Literal["job", "dense", "scaling", "diagrams"]
PARTS: tuple[Part, ...] = get_args(Part)
NO_TANGENT = tuple(name for name in STATISTICS if name != "log_jacobian_rms")


# Config


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Sizes of what is timed; the claim is about the defaults."""

    gains: int = 128
    """Gains of the job."""
    seeds: int = 8
    """Seeds of the job."""
    width: int = 1024
    """Neurons per layer of the job."""
    depth: int = 100
    """Layers of the job."""
    activations: tuple[str, ...] = ("sigmoid", "softsign", "relu", "selu", "gelu", "silu")
    """Activations that do the job beside tanh."""
    forum_networks: int = 2
    """Networks of the job that the forum's loop runs in a round; its time is scaled to all of them."""
    dense_rows: tuple[int, ...] = (256, 1024, 2048)
    """Stacked rows at which dense is held against the machine's own matmul, at the width of the job."""
    dense_depth: int = 20
    """Layers of that."""
    widths: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
    """Widths of the scaling, at the first depth and few gains."""
    depths: tuple[int, ...] = (100, 300, 1_000, 3_000, 10_000, 100_000)
    """Depths of the scaling, at the first width and few gains."""
    gain_counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    """Numbers of gains of the scaling, at the first width."""
    gains_depth: int = 1_000
    """Layers of that; few gains at the first depth take too few milliseconds to be timed."""
    rounds: int = 7
    """Times that everything is repeated, but for the phase diagrams."""
    diagrams: tuple[str, ...] = tuple(ACTIVATIONS)
    """Activations with a phase diagram, beside tanh."""
    diagram_points: int = 200
    """Points of a phase diagram along either axis."""
    diagram_rounds: int = 3
    """Phase diagrams of each activation."""
    only: tuple[Part, ...] = PARTS
    """Parts of the benchmark to run; with less than all, nothing is written."""
    out: Path = Path("experiments/figures")
    """Folder for benchmark.nc and benchmark.png, made where missing."""

    def __post_init__(self) -> None:
        """Check every field; raises `ValueError` with one sentence."""
        for name, value in vars(self).items():
            sizes = [x for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, int)]
            if min(sizes, default=1) < 1:
                raise ValueError(f"{name} must be at least 1, got {min(sizes)}")
            if name in ("widths", "depths", "gain_counts") and (len(sizes) < 2 or sizes != sorted(set(sizes))):
                raise ValueError(f"{name} must be at least two rising numbers, got {sizes}; a line is fitted to them")
        SweepConfig(activations=("tanh", *self.activations))
        SweepConfig(activations=self.diagrams or ("tanh",))
        if not self.only:
            raise ValueError(f"only must name a part, one of {', '.join(PARTS)}")


SMOKE = BenchmarkConfig(
    gains=3,
    seeds=2,
    width=16,
    depth=3,
    activations=("relu",),
    forum_networks=1,
    dense_rows=(4,),
    dense_depth=2,
    widths=(8, 16),
    depths=(2, 4),
    gain_counts=(2, FEW_GAINS),
    gains_depth=3,
    rounds=2,
    diagrams=("relu",),
    diagram_points=3,
    diagram_rounds=1,
)


# Timing, in processes of their own


class Timing(NamedTuple):
    """Seconds of what is timed; of the whole call around it and of compiling, in a sweep."""

    seconds: float
    wall_seconds: float = np.nan
    compile_seconds: float = np.nan


@contextlib.contextmanager
def alone() -> Iterator[Callable[..., Any]]:
    """Yield a function that runs a function in a new process, the same one each time, and waits for its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=use_all_cores) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()


def use_all_cores() -> None:
    """Give each core a JAX device; too late once JAX has started."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", cores())


def time_sweep(config: SweepConfig) -> Timing:
    """Time the engine, the whole call, and the compiler, which has nothing to do in a warm call."""
    from jaxgain.propagation.sweep import sweep

    started = time.perf_counter()
    attributes = sweep(config).attrs
    return Timing(attributes["run_seconds"], time.perf_counter() - started, attributes["compile_seconds"])


def time_cold_and_warm(config: SweepConfig, rounds: int) -> list[Timing]:
    """Time a sweep with compiling, and then warm."""
    return [time_sweep(config) for _ in range(1 + rounds)]


SWEEP = """
import json, resource, sys
import jax
import jaxgain as jg
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
jg.sweep(jg.SweepConfig(**json.loads(sys.argv[2])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(config: SweepConfig) -> int:
    """Peak resident bytes of a process that sweeps once and has imported nothing else."""
    words = [sys.executable, "-c", SWEEP, str(cores()), config.to_json()]
    # A process starts with the peak of the one that started it, which is smaller than any with JAX in it.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    peak = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def time_activation(name: str) -> Timing:
    """Time one call, on `ELEMENTS` numbers, of a jitted activation that overwrites its input."""
    import jax

    return _time_chain(_jitted(name), jax.random.normal(jax.random.key(0), (ELEMENTS,)))


def time_matmul(rows: int, width: int) -> Timing:
    """Time one product (rows, width) @ (width, width)."""
    import jax

    keys = jax.random.split(jax.random.key(0))
    weights = jax.random.normal(keys[0], (width, width)) / width**0.5
    return _time_chain(lambda x: _jitted("matmul")(x, weights), jax.random.normal(keys[1], (rows, width)))


def time_phase_diagram(phi: str, points: int) -> float:
    """Seconds of one phase diagram of points × points, with what it compiles."""
    import jax

    from jaxgain.theory.phase_diagram import phase_diagram

    jax.config.update("jax_enable_compilation_cache", False)  # nothing compiled by an earlier process
    started = time.perf_counter()
    phase_diagram(phi, *(np.linspace(*ends, points) for ends in PHASES))
    return time.perf_counter() - started


def time_torch(name: str, gains: Sequence[float], sizes: dict[str, int]) -> Timing:
    """Time a function of `benchmark_torch`."""
    from experiments import benchmark_torch

    started = time.perf_counter()
    getattr(benchmark_torch, name)(gains, **sizes)
    return Timing(time.perf_counter() - started)


def _time_chain(function: Callable[..., Any], x: Any) -> Timing:
    """Each call waits for the one before it, the host for the last one."""
    x.block_until_ready()
    started = time.perf_counter()
    for _ in range(CHAIN):
        x = function(x)
    x.block_until_ready()
    return Timing((time.perf_counter() - started) / CHAIN)


@cache
def _jitted(name: str) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    from jaxgain.activations import activation

    return jax.jit(jnp.matmul) if name == "matmul" else jax.jit(activation(name), donate_argnums=0)


# Run

Job = tuple[float, Callable[[], Timing]]
"""The work in one run, and the run."""


class Measure(NamedTuple):
    """Timings of one thing, the first one cold, and the work in each: neurons × layers × gains × seeds, or the like."""

    group: str
    name: str
    size: float
    work: float
    timings: list[Timing]
    peak_bytes: float = np.nan


def run(config: BenchmarkConfig, say: Callable[[str], object]) -> xarray.Dataset:
    """Time everything, one thing at a time; `say` hears what is next.

    Dims measure and repeat, diagram and diagram_repeat.
    """
    load, _, _ = os.getloadavg()
    parts = {"job": run_job, "dense": run_dense, "scaling": run_scaling}
    chosen = [run_part for part, run_part in parts.items() if part in config.only]
    measures = [measure for run_part in chosen for measure in run_part(config, say)]
    warm = np.reshape([measure.timings[1:] for measure in measures], (len(measures), config.rounds, 3))
    columns = {name: ("measure", [getattr(each, name) for each in measures]) for name in ("group", "size", "work")}
    about = {"cores": cores(), "load_before": load, "jaxgain": jaxgain.__version__}
    about |= {name: version(name) for name in ("jax", "jaxlib", "torch") if find_spec(name)}
    dataset = xarray.Dataset(
        {
            "seconds": (("measure", "repeat"), warm[:, :, 0], {"long_name": "engine time of a warm run"}),
            "wall_seconds": (("measure", "repeat"), warm[:, :, 1], {"long_name": "time of the whole call"}),
            "compile_seconds": ("measure", [measure.timings[0].compile_seconds for measure in measures]),
            "peak_bytes": ("measure", [measure.peak_bytes for measure in measures]),
        },
        coords={"measure": [measure.name for measure in measures], **columns},
        attrs={"config": json.dumps(dataclasses.asdict(config) | {"out": ""}), **about},
    )
    return dataset.merge(run_diagrams(config, say)) if "diagrams" in config.only else dataset


def run_job(config: BenchmarkConfig, say: Callable[[str], object]) -> list[Measure]:
    """The same job by every means, and activations alone, in turns."""
    size = {"width": config.width, "depth": config.depth}
    network = config.width * config.depth
    work = network * config.gains * config.seeds
    job = partial(sweep_of, gains=config.gains, seeds=config.seeds, **size)
    with alone() as jax, alone() as torch:
        jobs = {
            UNIT: (ELEMENTS, partial(jax, time_activation, "tanh")),
            TANGENT: (work, partial(jax, time_sweep, job("tanh", FORWARD))),
            ALL: (work, partial(jax, time_sweep, job("tanh", STATISTICS))),
        }
        for phi in config.activations:
            jobs[f"{phi} alone"] = ELEMENTS, partial(jax, time_activation, phi)
            jobs[f"{phi}, all statistics"] = work, partial(jax, time_sweep, job(phi, STATISTICS))
        if find_spec("torch"):
            few = np.linspace(0.5, 3, config.forum_networks + 2).tolist()[1:-1]
            jobs[FORUM] = network * len(few), partial(torch, time_torch, "forum_loops", few, size)
            grid = np.linspace(0.5, 3, config.gains).tolist()
            jobs[TORCH] = work, partial(torch, time_torch, "dense_sweep", grid, size | {"seeds": config.seeds})
        jobs[DENSE] = work, partial(jax, time_sweep, job("tanh", STATISTICS, weights="dense"))
        return take_turns("job", jobs, config.rounds, say)


def run_dense(config: BenchmarkConfig, say: Callable[[str], object]) -> list[Measure]:
    """Forward and reverse through dense matrices, and the machine's own matmul, in turns; work in FLOP."""
    jobs = {}
    with alone() as jax:
        for rows in config.dense_rows:
            product = 2 * rows * config.width**2
            size = {"gains": rows, "seeds": 1, "width": config.width, "depth": config.dense_depth}
            dense = sweep_of("tanh", NO_TANGENT, weights="dense", **size)
            jobs[f"matmul, {rows:,} rows"] = product, partial(jax, time_matmul, rows, config.width)
            jobs[f"dense, {rows:,} rows"] = 2 * config.dense_depth * product, partial(jax, time_sweep, dense)
        return take_turns("dense", jobs, config.rounds, say)


def run_scaling(config: BenchmarkConfig, say: Callable[[str], object]) -> list[Measure]:
    """A trivial sweep, then width, depth and gains one at a time, each size in a process of its own."""
    axes = {"width": config.widths, "depth": config.depths, "gains": config.gain_counts}
    points = [("trivial", 0, {"width": 100, "depth": 2, "gains": FEW_GAINS})]  # wide enough for the same engine
    for axis, sizes in axes.items():
        points += [(axis, size, start_of(dataclasses.asdict(config), axis) | {axis: size}) for size in sizes]
    run_before: dict[SweepConfig, tuple[list[Timing], int]] = {}
    measures = []
    for axis, size, point in points:
        sweep = sweep_of("tanh", STATISTICS, seeds=1, first_gain=1.0, **point)
        if sweep not in run_before:
            say(f"scaling: {', '.join(worded(*each) for each in point.items())}")
            with alone() as jax:
                run_before[sweep] = jax(time_cold_and_warm, sweep, config.rounds), peak_memory(sweep)
        work = point["width"] * point["depth"] * point["gains"]
        measures.append(Measure(axis, worded(axis, size), size, work, *run_before[sweep]))
    return measures


def run_diagrams(config: BenchmarkConfig, say: Callable[[str], object]) -> xarray.Dataset:
    """A phase diagram per activation and round, each in a process of its own: nothing is compiled before."""
    names = list(dict.fromkeys(("tanh", *config.diagrams)))
    seconds = np.empty((len(names), config.diagram_rounds))
    for turn in range(config.diagram_rounds):
        say(f"diagrams: round {turn + 1} of {config.diagram_rounds}")
        for place, phi in enumerate(names):
            with alone() as jax:
                seconds[place, turn] = jax(time_phase_diagram, phi, config.diagram_points)
    about = {"long_name": "time of a phase diagram, with compiling", "units": "s"}
    return xarray.Dataset({"diagram_seconds": (("diagram", "diagram_repeat"), seconds, about)}, {"diagram": names})


def sweep_of(
    phi: str, statistics: Sequence[str], *, gains: int, first_gain: float = 0.5, **options: Any
) -> SweepConfig:
    """One input, and `gains` gains from the first to 3."""
    grid = (f"{first_gain}:3:{gains}",) if gains > 1 else (first_gain,)
    return SweepConfig(activations=(phi,), gains=grid, statistics=statistics, inputs=1, memory=64.0, **options)


def take_turns(group: str, jobs: Mapping[str, Job], rounds: int, say: Callable[[str], object]) -> list[Measure]:
    """Run everything once to warm up, then in turns."""
    timings: dict[str, list[Timing]] = {name: [] for name in jobs}
    for turn in range(1 + rounds):
        say(f"{group}: round {turn} of {rounds}" if turn else f"{group}: compiling")
        for name, (_, call) in jobs.items():
            timings[name].append(call())
    return [Measure(group, name, np.nan, work, timings[name]) for name, (work, _) in jobs.items()]


# Main


def main(words: Sequence[str] | None = None, default: BenchmarkConfig = BenchmarkConfig()) -> None:
    """Run with the options in `words`, of the process by default; one line and exit code 2 for a bad one."""
    with experiment("benchmark", default, words, here=False) as config:
        dataset = run(config, say=partial(print, file=sys.stderr))
    report(dataset, config.out, whole=set(config.only) == set(PARTS))


if __name__ == "__main__":
    main()
