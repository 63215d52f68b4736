"""`jaxgain sweep`: run a sweep, print its table, write its dataset and figure."""

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from jaxgain.cli.arguments import parse, refusing
from jaxgain.propagation.config import SweepConfig
from jaxgain.runs.files import is_ours, output_folder, save_dataset, save_figure

ABOUT = """Sweep gains, activations and seeds at a finite width: what happens to the signal and to its
gradient, layer by layer. Prints a table, and writes the dataset sweep.nc and the figure sweep.png. With no
option it runs the whole experiment on real settings."""


@dataclasses.dataclass(frozen=True)
class Sweep(SweepConfig):
    """Settings of a sweep, and where its results go."""

    out: Path = Path("jaxgain-sweep")
    """Folder for sweep.nc and sweep.png, made where missing. A sweep that is there is replaced."""

    rows: Literal["named", "all"] = "named"
    """Rows of the table: each activation's named gains and the gains given as numbers, or all gains."""


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    arguments = parse(Sweep, words, command="sweep", about=ABOUT)
    with refusing():
        folder = output_folder(arguments.out)
        replaced = is_ours(folder / "sweep.nc", "config_hash", "a sweep")
    prepare_jax()
    from matplotlib.figure import Figure

    from jaxgain.cli.tables import console, sweep_tables
    from jaxgain.figures.sweep import draw_sweep
    from jaxgain.propagation.sweep import sweep

    fields = dataclasses.fields(SweepConfig)
    config = SweepConfig(**{field.name: getattr(arguments, field.name) for field in fields})
    with refusing(), progress_bar() as progress:
        dataset = sweep(config, progress=progress)
    save_dataset(dataset, folder / "sweep.nc")
    out = console()
    drawn = {"std", "log_grad_rms"} & set(config.statistics)
    if drawn:
        figure = Figure()
        draw_sweep(figure, dataset)
        save_figure(figure, folder / "sweep.png")
        for part in sweep_tables(dataset, all_gains=arguments.rows == "all"):
            out.print(part)
    compiling, running = (dataset.attrs[f"{what}_seconds"] for what in ("compile", "run"))
    out.print(f"Compiled in {compiling:.1f} s, ran in {running:.1f} s.", highlight=False)
    out.print(f"Dataset: {folder / 'sweep.nc'}{' (replaced)' if replaced else ''}", highlight=False, soft_wrap=True)
    figure_line = folder / "sweep.png" if drawn else "none, and no table: both need the statistics std or log_grad_rms"
    out.print(f"Figure:  {figure_line}", highlight=False, soft_wrap=True)


def prepare_jax() -> None:
    """Give every core a device where JAX runs on the CPU, and keep what is compiled for the next command.

    JAX's own environment variables for these go first.
    """
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", cores)
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "jaxgain"))


@contextmanager
def progress_bar() -> Iterator[Any]:
    """Yield a `progress(done, total, what)` that draws a bar on stderr; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    share = TextColumn("{task.percentage:.0f}%")
    columns = (TextColumn("{task.description}"), BarColumn(), share, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling")

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield progress
