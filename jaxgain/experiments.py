"""For experiments: verdicts on claims, and how options, datasets, figures and verdicts are read, kept and shown.

An experiment is a module with a frozen dataclass of settings (`FULL`, and `SMOKE` for a tiny run; a field `out` is the
folder of its results), `run(config)`, which returns datasets by name, `judge(found)`, which reads the verdicts off
them, and `draw(figure, found)`; `main_of` makes a program of these.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxgain.cli.arguments import experiment
from jaxgain.cli.estimates import Estimate, estimate
from jaxgain.cli.running import cores, prepare_jax, progress_bar
from jaxgain.cli.tables import console
from jaxgain.figures.panels import BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW, plain_panel
from jaxgain.runs.files import save_dataset, save_figure, write_whole
from jaxgain.theory.critical import root

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "ORANGE",
    "PURPLE",
    "SKY",
    "YELLOW",
    "Estimate",
    "Found",
    "Verdict",
    "console",
    "cores",
    "estimate",
    "experiment",
    "main_of",
    "plain_panel",
    "prepare_jax",
    "progress_bar",
    "root",
    "save_dataset",
    "save_figure",
    "settle",
    "show",
    "verdict_of",
    "write_whole",
]

Found = dict[str, "xarray.Dataset"]

# Of a file: the settings that its datasets were computed with.
SETTINGS = "experiment"


class Verdict(NamedTuple):
    """What becomes of a claim."""

    claim: str
    """Its label: A3, or the paper, as "Schoenholz et al. 2017"."""
    says: str
    """What it says, in a few words."""
    verdict: Literal["right", "imprecise", "wrong"]
    """Imprecise: right under a condition, which `why` names."""
    number: str
    """What decides it, with its error."""
    seeds: int
    """Networks behind the number; 0 where nothing is random."""
    why: str
    """What is true, in a sentence."""


def verdict_of(right: bool, imprecise: bool = False) -> Literal["right", "imprecise", "wrong"]:
    """The word for what was found: right as it stands, or under a condition, or wrong.

    >>> verdict_of(False, imprecise=True)
    'imprecise'
    """
    return "right" if right else "imprecise" if imprecise else "wrong"


def main_of(
    name: str,
    full: Any,
    run: Callable[[Any], Found],
    judge: Callable[[Found], Sequence[Verdict]],
    draw: Callable[["Figure", Found], object],
) -> Callable[..., None]:
    """The function `main(words=None, default=full)` of `python -m experiments.NAME`: it runs the experiment.

    `default` are the settings, which the options in `words` change, those of the process where there are none. Bad
    options are one line and exit code 2.
    """

    def main(words: Sequence[str] | None = None, default: Any = full) -> None:
        with experiment(name, default, words) as config:
            settle(name, config, run, judge, draw)

    return main


def settle(
    name: str,
    config: Any,
    run: Callable[[Any], Found],
    judge: Callable[[Found], Sequence[Verdict]],
    draw: Callable[["Figure", Found], object],
    *,
    again: bool = True,
) -> list[Verdict]:
    """Run an experiment, print its verdicts, and write NAME.nc and NAME.png in the folder `config.out`.

    Unless `again`, datasets that are there, of the same settings and the same jaxgain, are used as they are.
    """
    from matplotlib.figure import Figure

    path = Path(config.out) / f"{name}.nc"
    found = None if again else _kept(path, _settings(config))
    if found is None:
        found = run(config)
        _keep(path, found, _settings(config))
    verdicts = list(judge(found))
    show(verdicts)
    figure = Figure()
    draw(figure, found)
    drawn = save_figure(figure, path.with_suffix(".png"))
    console().print(f"Dataset: {path}\nFigure:  {drawn}", highlight=False, soft_wrap=True)
    return verdicts


def show(verdicts: Sequence[Verdict]) -> None:
    """Print verdicts: the claim, then what was found and why."""
    out = console()
    colours = {"right": "green", "imprecise": "yellow", "wrong": "red"}
    for one in verdicts:
        seeds = f", {one.seeds} seeds" if one.seeds else ""
        word = f"[{colours[one.verdict]}]{one.verdict}[/]"
        out.print(f"[bold]{one.claim}[/]  “{one.says}”: {word}", highlight=False, soft_wrap=True)
        out.print(f"    {one.number}{seeds}. {one.why}", highlight=False, soft_wrap=True, markup=False)


def _settings(config: Any) -> str:
    """All that the numbers depend on, as JSON."""
    import jaxgain

    fields = {name: value for name, value in dataclasses.asdict(config).items() if name != "out"}
    return json.dumps({"jaxgain": jaxgain.__version__, **fields}, sort_keys=True, default=str)


def _keep(path: Path, found: Found, settings: str) -> None:
    import xarray

    tree = xarray.DataTree.from_dict({"/": xarray.Dataset(attrs={SETTINGS: settings}), **found})
    write_whole(path, lambda temporary: tree.to_netcdf(temporary, engine="h5netcdf"))


def _kept(path: Path, settings: str) -> Found | None:
    """The datasets in a file, None where it is not there, damaged, or of other settings."""
    import xarray

    if not path.exists():
        return None
    try:
        tree = xarray.open_datatree(path, engine="h5netcdf")
    except Exception:  # whatever a damaged file makes its readers raise
        return None
    with tree:
        if tree.attrs.get(SETTINGS) != settings:
            return None
        return {name: child.to_dataset().load() for name, child in tree.children.items()}
