"""The `jaxgain` command. A subcommand's module is imported only when asked for, so that help is instant."""

import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "gain": "the gains of activations, each under its criterion's name, and whether they are stable",
    "theory": "phases, fixed points, critical initialization and bands of an activation, and whether networks agree",
    "sweep": "many gains and seeds at once: signal and gradient per layer; a table, a dataset and a figure",
    "train": "short training runs over initializations, depths and learning rates: which of them learn",
    "probe": "a model of yours: signal and gradient at every linear operation, and what to change",
    "draw": "the figure of a dataset that was saved before",
    "status": "what of the runs in a folder is done, and what is missing",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; `arguments` are those of the process by default.

    Exits with code 2, and one line on stderr, on bad input, and with 130 after Ctrl-C. Errors of the program itself
    are not caught.
    """
    # Read when JAX is first imported. Loading a compiled program, JAX 0.8 warns of processors whose tuning it named
    # itself; whatever else it logs at this level is an exception too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without χ or ± shows "?" for it
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = words[0] if words else "--help"
    if first in ("-h", "--help"):
        print(_help())
    elif first == "--version":
        from jaxgain import __version__

        print(f"jaxgain {__version__}")
    elif first in COMMANDS:
        try:
            import_module(f"jaxgain.cli.{first}").run(words[1:])
        except KeyboardInterrupt:
            print("jaxgain: stopped", file=sys.stderr)
            raise SystemExit(130) from None
    else:
        from jaxgain.cli.arguments import refuse

        close = difflib.get_close_matches(first, COMMANDS, n=1)
        refuse(f"unknown command {first!r}{f'; did you mean {close[0]!r}?' if close else '.'} See jaxgain --help")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: jaxgain COMMAND [OPTIONS]",
            "",
            "Does the signal, and does its gradient, survive the depth, and which initialization makes them?",
            "",
            "commands:",
            *lines,
            "",
            "jaxgain COMMAND --help explains every option with its unit; jaxgain --version.",
        ]
    )
