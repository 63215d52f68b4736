"""The dataset and the figure that a command writes."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxgain.cli.arguments import refusing
from jaxgain.runs.files import is_ours, output_folder

if TYPE_CHECKING:
    from rich.console import Console

# Which attribute a command's dataset has, and no other's; and what it is called.
MARKS = {
    "sweep": ("config_hash", "a sweep"),
    "theory": ("critical_kind", "a theory"),
    "train": ("train_config_hash", "a training"),
    "probe": ("cotangent", "a probe"),
}


class Results(NamedTuple):
    """Their files, and whether a dataset of the same command is there to be replaced."""

    dataset: Path
    figure: Path
    replaced: bool

    def say(self, out: "Console", *, no_figure: str = "") -> None:
        """Print where they are, or why there is no figure."""
        replaced = " (replaced)" if self.replaced else ""
        out.print(f"Dataset: {self.dataset}{replaced}", highlight=False, soft_wrap=True)
        out.print(f"Figure:  {no_figure or self.figure}", highlight=False, soft_wrap=True)


def results_in(folder: Path, command: str, *, overwrite: bool = True) -> Results:
    """Prove that the results of a command can be written in a folder; one line and exit code 2 where they cannot.

    Without `overwrite` a dataset that is there is used, and not replaced.

    >>> results_in(Path("some-sweep"), "sweep").dataset.as_posix()
    'some-sweep/sweep.nc'
    """
    dataset = folder / f"{command}.nc"
    with refusing():
        output_folder(folder)
        return Results(dataset, dataset.with_suffix(".png"), is_ours(dataset, *MARKS[command]) and overwrite)
