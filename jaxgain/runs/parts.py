r"""Parts of a long job's results: arrays in a file that proves to be whole.

A file is a line with the SHA-256 of all that follows, a line of JSON that names the arrays, and their bytes. Nothing
that is read is ever executed.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgain.runs.files import write_whole

SUFFIX = ".part"
DIGEST = 65  # bytes of the first line


class Piece(NamedTuple):
    """The results of tasks start … stop − 1, an axis for them first in every array."""

    start: int
    stop: int
    arrays: dict[str, np.ndarray]

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class Damaged(ValueError):
    """A part that is not as it was written; `path` says which."""

    def __init__(self, path: Path, why: str):
        super().__init__(f"the part {path} is damaged: {why}")
        self.path = path


def write_part(path: str | Path, pieces: Sequence[Piece], seconds: float = 0.0) -> Path:
    """Write pieces, whole or not at all, with the seconds that computing them took.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_part(f"{folder}/0.part", [Piece(0, 2, {"std": np.array([0.5, 0.25])})])
    ...     pieces, _ = read_part(path)
    >>> pieces[0].start, pieces[0].stop, pieces[0].arrays["std"].tolist()
    (0, 2, [0.5, 0.25])
    """
    named = [(name, np.ascontiguousarray(array)) for piece in pieces for name, array in piece.arrays.items()]
    arrays = iter(named)
    described = [
        {"start": piece.start, "stop": piece.stop, "arrays": [_described(*next(arrays)) for _ in piece.arrays]}
        for piece in pieces
    ]
    header = json.dumps({"pieces": described, "seconds": seconds}).encode() + b"\n"
    digest = hashlib.sha256(header)
    for _, array in named:
        digest.update(_bytes_of(array))

    def write(temporary: Path) -> None:
        with temporary.open("wb", buffering=0) as file:
            _write(file, digest.hexdigest().encode() + b"\n")
            _write(file, header)
            for _, array in named:
                _write(file, _bytes_of(array))

    return write_whole(path, write)


def read_part(path: str | Path) -> tuple[list[Piece], float]:
    """Read what `write_part` wrote: the pieces, and the seconds. Raises `Damaged` where a bit is not as it was."""
    path = Path(path)
    content = path.read_bytes()
    if content[:DIGEST] != hashlib.sha256(memoryview(content)[DIGEST:]).hexdigest().encode() + b"\n":
        raise Damaged(path, "its checksum does not fit")
    at = content.index(b"\n", DIGEST) + 1
    header = _header(path, content[DIGEST:at])
    pieces = []
    for described in header.pieces:
        arrays = {}
        for name, kind, shape in described["arrays"]:
            count = math.prod(shape)
            arrays[name] = np.frombuffer(content, kind, count, at).reshape(shape)
            at += arrays[name].nbytes
        pieces.append(Piece(described["start"], described["stop"], arrays))
    return pieces, header.seconds


def ranges_of_part(path: str | Path) -> list[tuple[int, int]]:
    """Which tasks a part says it has, without reading their results."""
    path = Path(path)
    with path.open("rb") as file:
        file.seek(DIGEST)
        header = _header(path, file.readline())
        size = DIGEST + len(header.line) + sum(_size(*array) for piece in header.pieces for array in piece["arrays"])
        if file.seek(0, 2) != size:
            raise Damaged(path, f"it has {file.tell()} bytes and should have {size}")
    return [(piece["start"], piece["stop"]) for piece in header.pieces]


class _Header(NamedTuple):
    line: bytes
    pieces: list[dict[str, Any]]
    seconds: float


def _header(path: Path, line: bytes) -> _Header:
    try:
        header = json.loads(line)
        return _Header(line, header["pieces"], float(header["seconds"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(path, "it has no description of what is in it") from error


def _described(name: str, array: np.ndarray) -> tuple[str, str, tuple[int, ...]]:
    return name, array.dtype.str, array.shape


def _size(name: str, kind: str, shape: Sequence[int]) -> int:
    del name
    return np.dtype(kind).itemsize * math.prod(shape)


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _write(file: Any, content: bytes | memoryview) -> None:
    """All of it: a system call may take less than it is given."""
    content = memoryview(content)
    while content:
        content = content[file.write(content) :]
