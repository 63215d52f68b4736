"""A long job's tasks in a folder: what is done, what is missing, and the results so far.

Tasks are numbered; the results of a range of them are a `Piece`. Pieces are collected and written every few seconds
as a part, so that a process that is killed loses the work of those seconds and no more.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxgain.runs.files import remove_unfinished, write_whole
from jaxgain.runs.lock import only_one
from jaxgain.runs.parts import SUFFIX, Damaged, Piece, ranges_of_part, read_part, write_part

MANIFEST = "manifest.json"
LOCK = "lock"
RESULT = ".nc"

# A part is written when computing it took this long, so that writing it is little beside that, or when it is as large.
SECONDS_OF_PART = 10.0
BYTES_OF_PART = 2**27

Report = Callable[[str], object]
Ranges = list[tuple[int, int]]


class Job:
    """Tasks 0 … total − 1, in groups of equal size, and their results in `folder`; `open_job` makes one."""

    def __init__(self, folder: Path, total: int, group: int, report: Report, bytes_of_part: int = BYTES_OF_PART):
        self.folder, self.total, self.group = folder, total, group
        self.report, self.bytes_of_part = report, min(bytes_of_part, BYTES_OF_PART)
        self.done: Ranges = []
        self.seconds = 0.0  # that computing took, also in the processes before this one
        self.write_seconds = 0.0  # that writing parts took in this process, beside the computing
        self._pending: list[Piece] = []
        self._pending_bytes, self._pending_seconds = 0, 0.0
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[Any] | None = None

    def read(self) -> None:
        """Check every part on disk; a damaged one is reported and removed, so that its tasks are done again."""
        self.done, self.seconds = [], 0.0
        for path in parts_of(self.folder):
            try:
                pieces, seconds = read_part(path)
            except Damaged as damage:
                self.report(f"{damage}; what it held is computed again")
                path.unlink(missing_ok=True)
                continue
            self.done = united([*self.done, *((piece.start, piece.stop) for piece in pieces)])
            self.seconds += seconds

    def missing(self) -> Ranges:
        """Ranges of tasks without results, none across the border of two groups."""
        return missing_of(self.done, self.total, self.group)

    def add(self, piece: Piece, seconds: float) -> None:
        """Take the results of tasks within a group, which took so long; they are on disk some seconds later."""
        self._pending.append(piece)
        self._pending_bytes += piece.size
        self._pending_seconds += seconds
        self.seconds += seconds
        self.done = united([*self.done, (piece.start, piece.stop)])
        if self._pending_bytes >= self.bytes_of_part or self._pending_seconds >= SECONDS_OF_PART:
            self._write()

    def flush(self) -> None:
        """Wait until all that was added is on disk."""
        self._write()
        self._settle()

    def pieces(self) -> Iterator[Piece]:
        """All results, those on disk and those not yet; where a part is damaged, it is as in `read`, and `Damaged`."""
        self._settle()
        try:
            for path in parts_of(self.folder):
                yield from read_part(path)[0]
        except Damaged:
            self.flush()
            self.read()
            raise
        yield from joined(self._pending, self.group)

    def remove(self) -> None:
        """Remove all that is on disk, after the merge."""
        self._settle()
        self._pending = []
        remove_parts(self.folder)

    def close(self) -> None:
        """Stop the thread that writes."""
        self._writer.shutdown()

    def _write(self) -> None:
        """Start to write what is pending, behind the back of whoever computes."""
        if not self._pending:
            return
        self._settle()
        pieces, seconds = joined(self._pending, self.group), self._pending_seconds
        name = f"{pieces[0].start:010d}-{pieces[-1].stop:010d}{SUFFIX}"
        self._writing = self._writer.submit(self._write_part, self.folder / name, pieces, seconds)
        self._pending, self._pending_bytes, self._pending_seconds = [], 0, 0.0

    def _write_part(self, path: Path, pieces: list[Piece], seconds: float) -> None:
        before = time.perf_counter()
        write_part(path, pieces, seconds)
        self.write_seconds += time.perf_counter() - before

    def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing:
            writing.result()


@contextmanager
def open_job(
    folder: str | Path,
    settings: Mapping[str, Any],
    total: int,
    group: int,
    *,
    report: Report,
    overwrite: bool = False,
    bytes_of_part: int = BYTES_OF_PART,
) -> Iterator[Job]:
    """Begin a job in a folder of its own, or go on with the one that is there; no other process can meanwhile.

    The folder of what becomes `sweep.nc` is `sweep.parts`. `settings` are all that its results depend on. What was
    computed is on disk afterwards, also after an exception.

    Raises `ValueError` where another process is at work, or the folder holds a job of other settings, which
    `overwrite` removes.
    """
    folder = Path(folder)
    with only_one(folder / LOCK):
        if overwrite:
            remove_parts(folder)
        there = manifest_of(folder)
        if there and (different := differences(there["settings"], settings)):
            raise ValueError(
                f"{folder} holds an unfinished run of other settings ({'; '.join(different)}); "
                "choose another folder, or replace it with overwrite (--overwrite)"
            )
        for path in (folder / "*.*", folder.with_suffix(RESULT)):
            remove_unfinished(path)
        job = Job(folder, total, group, report, bytes_of_part)
        if there:
            job.read()
        else:
            remove_parts(folder)
            manifest = {"settings": dict(settings), "total": total, "group": group}
            text = json.dumps(manifest, indent=1, sort_keys=True)
            write_whole(folder / MANIFEST, lambda temporary: temporary.write_text(text))
        try:
            yield job
            job.flush()
        except BaseException:
            with contextlib.suppress(OSError):  # the first error says why
                job.flush()
            raise
        finally:
            job.close()
    _remove_empty(folder)


@contextmanager
def join_job(
    folder: str | Path, settings: Mapping[str, Any], total: int, group: int, *, report: Report, **options: Any
) -> Iterator[Job]:
    """Add to the job that another process has opened in a folder; options as for `open_job`.

    Raises `ValueError` where that has other settings.
    """
    there = manifest_of(folder)
    if not there:
        raise ValueError(f"{folder} is not there for all processes; give them a folder that all of them share")
    if different := differences(there["settings"], settings):
        raise ValueError(f"the processes of a run must have the same settings ({'; '.join(different)})")
    job = Job(Path(folder), total, group, report, options.get("bytes_of_part", BYTES_OF_PART))
    job.read()
    try:
        yield job
        job.flush()
    finally:
        job.close()


def is_complete(
    path: Path, parts: Path, there: Mapping[str, Any], here: Mapping[str, Any], what: str, report: Report
) -> bool:
    """Whether the dataset at `path` is the result of a job with the settings `here`; reports it where it is.

    Not where a job has begun to replace it. Raises `ValueError` where its settings, `there`, are others.
    """
    if manifest_of(parts):
        return False
    if different := differences(there, here):
        raise ValueError(
            f"{path} is a {what} of other settings ({'; '.join(different)}); "
            "choose another folder, or replace it with overwrite (--overwrite)"
        )
    _remove_rest(parts)
    report(f"{path} is a complete {what} of these settings and is used as it is")
    return True


def manifest_of(folder: str | Path) -> dict[str, Any] | None:
    """What a job in a folder is about: `settings`, `total` and `group`; None where there is none that can be read."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text())
        return manifest if {"settings", "total", "group"} <= manifest.keys() else None
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return None


def done_of(folder: str | Path) -> tuple[Ranges, list[Damaged]]:
    """Which tasks have results in a folder, and what of it is plainly damaged, without reading the results."""
    ranges, damages = [], []
    for path in parts_of(Path(folder)):
        try:
            ranges += ranges_of_part(path)
        except Damaged as damage:
            damages.append(damage)
    return united(ranges), damages


def parts_of(folder: Path) -> list[Path]:
    """The files of a job's parts, in the order of their tasks."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def remove_parts(folder: Path) -> None:
    """Remove a job's files; the manifest first, so that what remains after a kill is no job."""
    for path in (folder / MANIFEST, *parts_of(folder)):
        path.unlink(missing_ok=True)


def _remove_rest(folder: Path) -> None:
    """Remove what is left of a job that was killed when its result was complete, where that can be done."""
    if folder.exists():
        with contextlib.suppress(OSError, ValueError):
            with only_one(folder / LOCK):
                if not manifest_of(folder):  # as before the lock was held
                    remove_parts(folder)
                    remove_unfinished(folder / "*.*")
            _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not where anything is left in it
        folder.rmdir()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Settings that differ, as "field: there → here".

    >>> differences({"width": 10, "seeds": 2}, {"width": 20, "seeds": 2})
    ['width: 10 → 20']
    """
    names = [name for name in {**there, **here} if _plain(there.get(name)) != _plain(here.get(name))]
    return [f"{name}: {_word(there, name)} → {_word(here, name)}" for name in names]


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


def _word(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return "nothing"
    word = json.dumps(settings[name], ensure_ascii=False)
    return word if len(word) <= 60 else f"{word[:57]}…"


def united(ranges: Ranges) -> Ranges:
    """Ranges in order, those that touch as one.

    >>> united([(4, 6), (0, 2), (2, 3)])
    [(0, 3), (4, 6)]
    """
    result: Ranges = []
    for start, stop in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return result


def missing_of(done: Ranges, total: int, group: int) -> Ranges:
    """What of tasks 0 … total − 1 is not in `done`, cut at the multiples of `group`.

    >>> missing_of([(0, 2), (5, 6)], total=8, group=4)
    [(2, 4), (4, 5), (6, 8)]
    """
    ranges, at = [], 0
    for start, stop in [*done, (total, total)]:
        while at < start:
            border = min(start, (at // group + 1) * group)
            ranges.append((at, border))
            at = border
        at = max(at, stop)
    return ranges


def joined(pieces: list[Piece], group: int) -> list[Piece]:
    """Pieces that follow each other within a group as one.

    >>> halves = [Piece(i, i + 1, {"std": np.array([0.1 * i])}) for i in range(4)]
    >>> [(piece.start, piece.stop) for piece in joined(halves, group=2)]
    [(0, 2), (2, 4)]
    """
    runs: list[list[Piece]] = []
    for piece in pieces:
        if runs and runs[-1][-1].stop == piece.start and runs[-1][0].start // group == piece.start // group:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return [_concatenated(run) for run in runs]


def _concatenated(run: list[Piece]) -> Piece:
    if len(run) == 1:
        return run[0]
    arrays = {name: np.concatenate([piece.arrays[name] for piece in run]) for name in run[0].arrays}
    return Piece(run[0].start, run[-1].stop, arrays)
