"""`jaxgain draw`: the figure of a dataset that was saved before."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from tyro.conf import Positional

from jaxgain.cli.arguments import parse, refuse, refusing
from jaxgain.cli.results import MARKS
from jaxgain.runs.files import load_dataset, output_folder, save_figure

FORMATS = (".png", ".pdf", ".svg")


@dataclasses.dataclass(frozen=True)
class Draw:
    """What to draw, and where to."""

    dataset: Positional[Path]
    """The file that jaxgain sweep, theory, train or probe wrote: sweep.nc, theory.nc, train.nc or probe.nc."""

    out: Optional[Path] = None  # noqa: UP045 (the command line reads `| None` slowly)
    """The figure's file: .png, .pdf or .svg. By default the dataset's name with .png."""


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    arguments = parse(Draw, words, command="draw", about="Draw the figure of a saved dataset, computing nothing anew.")
    out = arguments.out or arguments.dataset.with_suffix(".png")
    if out.suffix not in FORMATS:
        refuse(f"--out must end in {', '.join(FORMATS)}, got {out}")
    with refusing():
        dataset = load_dataset(arguments.dataset)
        output_folder(out.parent)
    kinds = [kind for kind, (mark, _) in MARKS.items() if mark in dataset.attrs]
    if not kinds or (kinds[0] == "sweep" and not {"gain_name", "config"} <= {*dataset.coords, *dataset.attrs}):
        refuse(
            f"{arguments.dataset} is not a dataset of jaxgain; give the file sweep.nc that jaxgain sweep wrote, "
            "theory.nc of jaxgain theory, train.nc of jaxgain train, or probe.nc of jaxgain probe"
        )
    from matplotlib.figure import Figure

    from jaxgain.figures.probe import draw_probe
    from jaxgain.figures.sweep import draw_sweep
    from jaxgain.figures.theory import draw_theory
    from jaxgain.figures.training import draw_training

    figure = Figure()
    draws = {"sweep": draw_sweep, "theory": draw_theory, "train": draw_training}
    draws["probe"] = lambda figure, dataset: draw_probe(dataset, figure)
    draws[kinds[0]](figure, dataset)
    save_figure(figure, out)
    print(f"Figure: {out}")
