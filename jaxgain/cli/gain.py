"""`jaxgain gain`: the gains of activations."""

import dataclasses
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Optional

from tyro.conf import Positional

from jaxgain.activations import ACTIVATIONS, activation
from jaxgain.cli.arguments import parse, refuse, refusing
from jaxgain.propagation.config import Words
from jaxgain.runs.files import output_folder, save_dataset, write_whole

ABOUT = """Print the gains of activations, each under its criterion's name, and whether the length that the
forward gain preserves is stable. With one activation and one --kind it prints the bare number."""
FORMATS = (".nc", ".csv")
_ALL = Words()
Kind = Literal["forward", "centred", "backward", "balanced", "self_consistent", "critical", "kumar", "torch"]


@dataclasses.dataclass(frozen=True)
class Gain:
    """Whose gains, which, and where to."""

    activations: Positional[Words] = _ALL
    """Activations, e.g. gelu "tanh(2x)" "leaky_relu(0.2)"; all of them by default."""

    kind: Optional[Kind] = None  # noqa: UP045 (the command line reads `| None` slowly)
    """Criterion: forward 1/sqrt(E phi^2), centred 1/std phi, backward 1/sqrt(E phi'^2), balanced the
    geometric mean of forward and backward, self_consistent sigma with E phi(sigma z)^2 = 1, critical the
    sigma_w of the critical initialization, kumar 1/(phi'(0) sqrt(1 + phi(0)^2)), torch the values of torch;
    all by default."""

    q: float = 1.0
    """Length (mean square) of the pre-activations at which the expectations are taken; no unit."""

    out: Optional[Path] = None  # noqa: UP045
    """File for the table: .nc (dataset) or .csv."""

    def __post_init__(self) -> None:
        """Check the activations, the length and the file's suffix."""
        for phi in self.activations:
            activation(phi)
        if not (math.isfinite(self.q) and self.q > 0):
            raise ValueError(f"q must be finite and positive, a mean square, got {self.q!r}")
        if self.out is not None and self.out.suffix not in FORMATS:
            raise ValueError(f"--out must end in {' or '.join(FORMATS)}, got {self.out}")


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    arguments = parse(Gain, words, command="gain", about=ABOUT)
    with refusing():
        if arguments.out is not None:
            output_folder(arguments.out.parent)
    if arguments.kind is not None and len(arguments.activations) == 1 and arguments.out is None:
        print_one(arguments.activations[0], arguments.kind, arguments.q)
        return
    from jaxgain.cli.tables import console, gain_tables
    from jaxgain.theory.gains import gain_table

    table = gain_table(arguments.activations or tuple(ACTIVATIONS), q=arguments.q)
    if arguments.kind is not None:
        table = table.sel(kind=[arguments.kind])
    out = console()
    for part in gain_tables(table):
        out.print(part)
    if arguments.out is not None:
        if arguments.out.suffix == ".csv":
            write_whole(arguments.out, lambda temporary: table.to_dataframe().to_csv(temporary))
        else:
            save_dataset(table, arguments.out)
        out.print(f"Written: {arguments.out}", highlight=False, soft_wrap=True)


def print_one(phi: str, kind: str, q: float) -> None:
    """Print one gain, all its digits and nothing else; what comes with it goes to stderr."""
    from jaxgain.theory.gains import NoSuchGain, gain

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        try:
            value = gain(phi, kind, q=q)
        except NoSuchGain as missing:
            refuse(f"{phi} has no {kind} gain: {missing}")
    print(repr(float(value)))
    for note in notes:
        print(f"jaxgain: {note.message}", file=sys.stderr)
