"""What does a large sweep cost, and how does it grow with devices and processes?

Measures the command itself, `jaxgain sweep`, in processes of its own:

- a million networks (tanh, 1000 gains × 1000 seeds, width 256, depth 50, signal and tangent): seconds, peak memory;
- what writing its parts costs beside computing them, also for a sweep of wider networks with all their statistics;
- strong scaling (the same sweep on more devices or processes) and weak scaling (as many times the seeds), the seconds
  of computing and, in brackets, those of the whole command, with start, compilation, merge, table and figure.

    python -m experiments.scaling

prints its tables, as Markdown, in about ten minutes. Devices beyond the cores of a CPU are simulated.
"""

import dataclasses
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tyro

from jaxgain.runs.files import saved_attributes


@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """Sizes of the sweeps that are measured."""

    gains: int = 1000
    """Gains of every seed."""
    seeds: int = 1000
    """Seeds of the large sweep; a half of them for scaling."""
    width: int = 256
    """Neurons per layer."""
    depth: int = 50
    """Layers."""
    statistics: tuple[str, ...] = ("std", "log_jacobian_rms")
    """What is recorded of each layer; by default of a sweep where none is named."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Devices of one process."""
    processes: tuple[int, ...] = (1, 2, 4)
    """Processes with one device each."""


FULL = ScalingConfig()
WIDE = {"width": 10_000, "depth": 100, "gains": 100, "seeds": 128}
SMOKE = ScalingConfig(gains=3, seeds=10, width=10, depth=2, devices=(1,), processes=(1,))


def words_of(config: ScalingConfig, seeds: int, folder: str) -> list[str]:
    """The command line of a sweep."""
    sizes = {"width": config.width, "depth": config.depth, "seeds": seeds, "inputs": 1, "out": folder}
    words = ["sweep", "--activations", "tanh", "--gains", f"0.5:3:{config.gains}", "--memory", "1.5"]
    words += ["--statistics", *config.statistics] if config.statistics else []
    return words + [word for name, value in sizes.items() for word in (f"--{name}", str(value))]


class Taken(NamedTuple):
    """Seconds of a command in some processes."""

    whole: float
    computing: float
    """Per process, of what all took."""
    writing: float
    """Of the parts that process 0 wrote, beside the computing."""
    size: int
    """Bytes of the dataset."""


def time_command(config: ScalingConfig, seeds: int, *, devices: int, processes: int = 1) -> Taken:
    """Run a sweep, and read off its dataset what took how long."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxgain", *words_of(config, seeds, folder), "--devices", str(devices)]
        if processes > 1:
            command += ["--distributed", "--coordinator", free_address(), "--processes", str(processes), "--process"]
        started = time.perf_counter()
        running = [
            subprocess.Popen([*command, *([str(own)] if processes > 1 else [])], stdout=subprocess.DEVNULL)
            for own in range(processes)
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError(f"a sweep failed: {' '.join(command)}")
        taken, file = time.perf_counter() - started, Path(folder) / "sweep.nc"
        seconds = saved_attributes(file)
        return Taken(taken, seconds["run_seconds"] / processes, seconds["write_seconds"], file.stat().st_size)


def free_address() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def report_cost(config: ScalingConfig) -> None:
    """Print the cost of a sweep, and of writing its parts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    taken = time_command(config, config.seeds, devices=cores)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    members = config.gains * config.seeds
    print(
        f"{members:,} networks of width {config.width} and depth {config.depth}: {taken.whole:.1f} s in all, "
        f"{taken.computing:.1f} s of computing on {cores} devices, {1e6 * taken.computing * cores / members:.1f} µs of "
        f"a core per network; peak so far {peak:.2f} GB; {taken.size / members:.0f} bytes per network; parts written "
        f"in {taken.writing:.2f} s, {taken.writing / taken.computing:.1%} of the computing, beside it",
        flush=True,
    )


def report_scaling(config: ScalingConfig) -> None:
    """Print the tables of strong and weak scaling."""
    half = max(2, config.seeds // 2)
    kinds = [("devices", config.devices), ("processes", config.processes)]
    for kind, counts in kinds:
        print(f"\n| {kind} | the same sweep (s) | as many times the seeds (s) |\n|---|---|---|")
        for count in counts:
            how = {"devices": count} if kind == "devices" else {"devices": 1, "processes": count}
            strong, weak = (time_command(config, seeds, **how) for seeds in (half, half * count))
            cells = [f"{taken.computing:.1f} ({taken.whole:.0f})" for taken in (strong, weak)]
            print(f"| {count} | {cells[0]} | {cells[1]} |", flush=True)


def main(words: Sequence[str] | None = None, default: ScalingConfig = FULL) -> None:
    """Measure and print."""
    config = tyro.cli(ScalingConfig, prog="python -m experiments.scaling", args=words, default=default)
    report_cost(config)
    report_cost(dataclasses.replace(config, **WIDE if config == FULL else {}, statistics=()))
    report_scaling(config)


if __name__ == "__main__":
    main()
