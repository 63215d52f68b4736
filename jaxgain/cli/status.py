"""`jaxgain status`: what of the runs in a folder is done."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from tyro.conf import Positional

from jaxgain.cli.arguments import parse, refuse

ABOUT = """Say what of the runs in a folder is done, which parts are damaged, and whether a process is at work there."""


@dataclasses.dataclass(frozen=True)
class Status:
    """Where to look."""

    folder: Positional[Path]
    """The folder that jaxgain sweep was given with --out."""


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    folder = parse(Status, words, command="status", about=ABOUT).folder
    if not folder.is_dir():
        refuse(f"there is no folder {folder}; give the one that jaxgain sweep was given with --out")
    lines = [*_finished(folder), *_unfinished(folder)]
    if not lines:
        refuse(f"no run of jaxgain is in {folder}")
    print("\n".join(lines))


def _finished(folder: Path) -> Iterator[str]:
    from jaxgain.runs.files import saved_attributes

    for path in sorted(folder.glob("*.nc")):
        try:
            attributes = saved_attributes(path)
        except ValueError as error:
            yield str(error)
            continue
        if "jaxgain" in attributes:
            yield f"{path}: complete, of jaxgain {attributes['jaxgain']} and jax {attributes.get('jax', 'unknown')}"


def _unfinished(folder: Path) -> Iterator[str]:
    from jaxgain.runs.job import LOCK, done_of, manifest_of, missing_of
    from jaxgain.runs.lock import holder

    for parts in sorted(folder.glob("*.parts")):
        manifest = manifest_of(parts)
        if not manifest:
            continue
        ranges, damages = done_of(parts)
        done, total = sum(stop - start for start, stop in ranges), manifest["total"]
        who = holder(parts / LOCK)
        doing = f"{who} is at work" if who else "nobody is at work; the same command goes on"
        yield f"{parts}: {done} of {total} steps done ({done / total:.0%}); {doing}"
        groups = {start // manifest["group"] for start, _ in missing_of(ranges, total, manifest["group"])}
        if groups:
            yield f"missing: some of {len(groups)} of {-(-total // manifest['group'])} groups of {manifest['group']}"
        yield from (f"{damage}; it will be computed again" for damage in damages)
