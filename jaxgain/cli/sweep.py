"""`jaxgain sweep`: run a sweep, print its table, write its dataset and figure."""

import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Optional

from jaxgain.cli.arguments import parse, part_of, refusing
from jaxgain.cli.results import Results, results_in
from jaxgain.cli.running import prepare_jax, progress_bar
from jaxgain.cli.stopping import checked, kept, resumable, say, stoppable
from jaxgain.propagation.config import SweepConfig
from jaxgain.runs.files import save_figure

ABOUT = """Sweep gains, activations and seeds at a finite width: what happens to the signal and to its
gradient, layer by layer. Prints a table, and writes the dataset sweep.nc and the figure sweep.png. With no
option it runs the whole experiment on real settings."""


@dataclasses.dataclass(frozen=True)
class Sweep(SweepConfig):
    """Settings of a sweep, and where its results go."""

    out: Path = Path("jaxgain-sweep")
    """Folder for sweep.nc and sweep.png, made where missing. The same command goes on where it was stopped, and shows
    a sweep that is complete."""

    overwrite: bool = False
    """Run it anew in place of the sweep that is in the folder, also where that has other settings."""

    devices: Optional[int] = None  # noqa: UP045 (the command line reads `| None` slowly)
    """Devices on the CPU; by default one per core. Changes no result."""

    distributed: bool = False
    """Share the sweep with the other processes that run this command, on this machine or on others, and with the same
    folder. On a TPU pod slice and under Slurm or Open MPI they find each other; elsewhere give the next three."""

    coordinator: Optional[str] = None  # noqa: UP045
    """Address and port of process 0, such as 10.0.0.1:1234; also $JAX_COORDINATOR_ADDRESS."""

    processes: Optional[int] = None  # noqa: UP045
    """How many processes there are; also $JAX_NUM_PROCESSES."""

    process: Optional[int] = None  # noqa: UP045
    """The number of this process, from 0; also $JAX_PROCESS_ID."""

    rows: Literal["named", "all"] = "named"
    """Rows of the table: each activation's named gains and the gains given as numbers, or all gains."""


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    arguments = parse(Sweep, words, command="sweep", about=ABOUT)
    results = results_in(arguments.out, "sweep", overwrite=arguments.overwrite)
    with refusing():
        _check_processes(arguments)
    with resumable(partial(kept, arguments.out, "sweep")):
        prepare_jax(arguments.devices)
        if arguments.distributed:
            with refusing():
                _meet(arguments)
        from jaxgain.propagation.sweep import sweep
        from jaxgain.runs.processes import processes

        config = part_of(SweepConfig, arguments)
        work = partial(sweep, config, folder=arguments.out, overwrite=arguments.overwrite, report=say)
        with refusing(), progress_bar() as bar:
            dataset = stoppable(lambda check: work(checked(bar, check)))
        if processes()[1] == 0:
            _show(dataset, results, arguments.rows)


def _check_processes(arguments: Sweep) -> None:
    given = {name: getattr(arguments, name) for name in ("coordinator", "processes", "process")}
    for name, value in given.items():
        if value is not None and not arguments.distributed:
            raise ValueError(f"{name} is of several processes; add --distributed")
    count, own = arguments.processes, arguments.process
    if count is not None and count < 1:
        raise ValueError(f"processes must be at least 1, got {count}")
    if own is not None and not 0 <= own < (count or own + 1):
        raise ValueError(f"process must be from 0 to processes - 1, got {own}")
    if arguments.devices is not None and arguments.devices < 1:
        raise ValueError(f"devices must be at least 1, got {arguments.devices}")


def _meet(arguments: Sweep) -> None:
    """Wait for the other processes."""
    import jax

    number = lambda given, name: int(os.environ[name]) if given is None and name in os.environ else given
    try:
        jax.distributed.initialize(
            arguments.coordinator,
            number(arguments.processes, "JAX_NUM_PROCESSES"),
            number(arguments.process, "JAX_PROCESS_ID"),
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the processes did not find each other: {reason}; see --coordinator, --processes") from error


def _show(dataset: Any, results: Results, rows: str) -> None:
    """Print the table, and draw the figure."""
    # Only now, so that the compiler's memory, which is the most that a sweep needs, does not come on top of theirs.
    from matplotlib.figure import Figure

    from jaxgain.cli.tables import console, sweep_tables
    from jaxgain.figures.sweep import draw_sweep

    out = console()
    drawn = {"std", "log_grad_rms"} & set(dataset.data_vars)
    if drawn:
        figure = Figure()
        draw_sweep(figure, dataset)
        save_figure(figure, results.figure)
        for part in sweep_tables(dataset, all_gains=rows == "all"):
            out.print(part)
    compiling, running = (dataset.attrs[f"{what}_seconds"] for what in ("compile", "run"))
    chunks = dataset.attrs.get("chunks", "")
    out.print(f"Compiled in {compiling:.1f} s, ran in {running:.1f} s, {chunks}.", highlight=False, soft_wrap=True)
    results.say(out, no_figure="" if drawn else "none, and no table: both need the statistics std or log_grad_rms")
