"""One process at a time in a folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def only_one(path: str | Path) -> Iterator[None]:
    """Hold the lock file at `path`, which names this process; remove it at the end.

    The system itself releases the lock of a process that died, so what such a process left behind is taken over.

    Raises `ValueError` where another process holds it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, only_one(f"{folder}/lock"):
    ...     int(Path(f"{folder}/lock").read_text().split()[1]) == os.getpid()
    True
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path)
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still held: whoever waits for this file finds that it is gone
        os.close(descriptor)


def holder(path: str | Path) -> str | None:
    """Who holds the lock file at `path`, in words; None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        return None if _lock(descriptor) else os.pread(descriptor, 200, 0).decode(errors="replace") or "a process"
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(descriptor):
            who = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise ValueError(f"{who} is at work in {path.parent}; wait until it ends, or choose another folder")
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # the one before removed the file between opening and locking it


def _lock(descriptor: int) -> bool:
    """Try to take the lock of an open file; it is held until that is closed."""
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return False
    return True
