"""From words at the shell to a dataclass, and from a mistake to one line on stderr and exit code 2."""

import contextlib
import dataclasses
import difflib
import io
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from jaxgain.cli.running import prepare_jax
from jaxgain.propagation.config import Words
from jaxgain.runs.files import output_folder

Arguments = TypeVar("Arguments")
_REGISTRY = ConstructorRegistry()
_CHOICE = re.compile(r"^(invalid choice '(.*)' for argument .*?)\. Expected one of \((.*)\)$")


@_REGISTRY.primitive_rule
def words_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read `Words`; for `tuple[str, ...]` tyro would spend a tenth of a second on importing type checkers."""
    if info.type is not Words:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="WORD ...",
        instance_from_str=Words,
        is_instance=lambda value: isinstance(value, Words),
        str_from_instance=lambda value: [str(word) for word in value],
    )


def parse(kind: type[Arguments], words: Sequence[str], *, command: str, about: str) -> Arguments:
    """Read `words` as the fields of the dataclass `kind`; print help and exit where it is asked for."""
    return _read(kind, list(words), "jaxgain", program=f"jaxgain {command}", description=about)


def part_of(kind: type[Arguments], arguments: object) -> Arguments:
    """The fields of the dataclass `kind` among a command's arguments."""
    return kind(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(kind)})  # type: ignore


@contextlib.contextmanager
def experiment(
    name: str, default: Arguments, words: Sequence[str] | None = None, *, here: bool = True
) -> Iterator[Arguments]:
    """Yield the settings of `python -m experiments.NAME`: the dataclass `default`, changed by the words at the shell.

    Prove that files can be written in its folder `out`, and prepare JAX, unless the experiment runs in processes
    of its own and not `here`. Bad options, such a folder, and a `ValueError` that jaxgain raises in the `with` block
    are one line on stderr and exit code 2.
    """
    program = f"python -m experiments.{name}"
    config = _read(type(default), words, name, program=program, default=default)
    with refusing(name, see=program):
        output_folder(config.out)  # type: ignore
        if here:
            prepare_jax()
        yield config


def _read(kind: type[Arguments], words: Sequence[str] | None, name: str, *, program: str, **options: Any) -> Arguments:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=program, args=words, registry=_REGISTRY, **options)
    except SystemExit as stop:
        if stop.code:
            refuse(one_line(complaint.getvalue()), name, see=program)
        raise


def refuse(sentence: str, name: str = "jaxgain", *, see: str = "") -> NoReturn:
    """Say in one line what is wrong with the input, and whose help explains it, and exit with code 2."""
    if see:
        sentence = f"{sentence.rstrip('.')}{'' if sentence.endswith('?') else '.'} See {see} --help"
    print(f"{name}: {sentence}", file=sys.stderr)
    raise SystemExit(2)


@contextlib.contextmanager
def refusing(name: str = "jaxgain", *, see: str = "") -> Iterator[None]:
    """Turn a `ValueError` that jaxgain raises, which means bad input, into one line and exit code 2.

    One that a library raises is an error of the program, and passes.
    """
    try:
        yield
    except ValueError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals["__name__"].startswith("jaxgain."):
            raise
        refuse(" ".join(str(error).split()), name, see=see)


def one_line(box: str) -> str:
    r"""Return the sentence inside tyro's box of an error, without frame, help text and advice.

    >>> one_line("╭─ Value error ─╮\n│ width must be │\n│ at least 1 │\n│ ──── │\n│ For help │\n╰────╯")
    'width must be at least 1'
    """
    lines = [line.strip("│| ") for line in box.splitlines() if not line.startswith(("╭", "╰", "+"))]
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if set(line) in ({"─"}, {"-"}):
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    if "╭" not in box and len(paragraphs) > 1:  # where the locale has no frames, the title stands alone
        paragraphs.pop(0)
    sentence = re.sub(r"^Error parsing ([A-Z]\w*: )?", "", " ".join(paragraphs[0]).strip()).rstrip(".")
    sentence = re.sub(
        r"^(invalid choice '(.*)' for argument .*?)\. Expected one of \((.*)\)$", _nearest_choice, sentence
    )
    advice = paragraphs[1] if len(paragraphs) > 1 else []
    if advice and advice[0].startswith("Perhaps you meant"):
        sentence += f"; did you mean {advice[1].split()[0]}?"
    return sentence


def _nearest_choice(found: re.Match[str]) -> str:
    """Of a wrong choice: what was given and where, the nearest one, and all of them."""
    choices = [choice for choice in re.findall(r"'([^']*)'", found[3]) if choice != "None"]
    close = difflib.get_close_matches(found[2], choices, n=1)
    return f"{found[1]}{f'; did you mean {close[0]!r}?' if close else '.'} Use one of {', '.join(choices)}"
