"""From words at the shell to a dataclass, and from a mistake to one line on stderr and exit code 2."""

import contextlib
import io
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from jaxgain.propagation.config import Words

Arguments = TypeVar("Arguments")
_REGISTRY = ConstructorRegistry()


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
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=f"jaxgain {command}", description=about, args=list(words), registry=_REGISTRY)
    except SystemExit as stop:
        if stop.code:
            sentence = one_line(complaint.getvalue())
            refuse(f"{sentence}{'' if sentence.endswith('?') else '.'} See jaxgain {command} --help")
        raise


def refuse(sentence: str) -> NoReturn:
    """Say in one line what is wrong with the input, and exit with code 2."""
    print(f"jaxgain: {sentence}", file=sys.stderr)
    raise SystemExit(2)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn a `ValueError` that jaxgain raises, which means bad input, into one line and exit code 2.

    One that a library raises is an error of the program, and passes.
    """
    try:
        yield
    except ValueError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals["__name__"].startswith("jaxgain."):
            raise
        refuse(" ".join(str(error).split()))


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
    advice = paragraphs[1] if len(paragraphs) > 1 else []
    if advice and advice[0].startswith("Perhaps you meant"):
        sentence += f"; did you mean {advice[1].split()[0]}?"
    return sentence
