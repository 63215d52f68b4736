"""Long work at the shell: Ctrl-C stops it at once, and what the system refuses is one line."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

T = TypeVar("T")
Progress = Callable[[int, int, str], None]

STOPPED, FAILED = 130, 1

# Seconds that work which is stopped has to put away what it has.
GRACE = 1.0


def stoppable(work: Callable[[Callable[[], None]], T]) -> T:
    """Do the work in a thread of its own, so that Ctrl-C ends the waiting for it at once, whatever it is in.

    Then `KeyboardInterrupt` is raised here, and also in the work by the function that it is given and should call
    often, so that it can put away what it has. It may not come to that for long: end the process.
    """
    done, stopping, results, errors = threading.Event(), threading.Event(), list[T](), list[BaseException]()

    def check() -> None:
        if stopping.is_set():
            raise KeyboardInterrupt

    def run() -> None:
        try:
            results.append(work(check))
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        while not done.wait(1.0):  # in steps, as a wait without an end cannot be interrupted everywhere
            pass
    except KeyboardInterrupt:
        stopping.set()
        done.wait(GRACE)
        raise
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def resumable(where: Callable[[], str]) -> Iterator[None]:
    """Say in one line how to go on where the work in the context is stopped by Ctrl-C, or by what the disk refuses.

    `where` says what is kept. Exits with `STOPPED` or `FAILED`.
    """
    try:
        yield
    except KeyboardInterrupt:
        leave(f"stopped; {where()}", STOPPED)
    except ChildProcessError as error:  # one of several, and the others wait for it in vain
        leave(f"{error}; {where()}", FAILED)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        # What HDF5 says of a full disk is a paragraph.
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        leave(f"cannot write{place}: {reason}; {where()}", FAILED)


def kept(folder: Path, name: str) -> str:
    """What a run that ended early leaves in a folder, in words."""
    from jaxgain.runs.job import done_of, manifest_of

    parts = folder / f"{name}.parts"
    manifest = manifest_of(parts)
    if not manifest:
        return f"{folder / name}.nc is whole" if (folder / f"{name}.nc").exists() else "nothing of it is kept"
    done = sum(stop - start for start, stop in done_of(parts)[0])
    return f"{done / manifest['total']:.0%} of it is in {parts}, and the same command goes on from there"


def checked(progress: Progress | None, check: Callable[[], None]) -> Progress:
    """A `progress` that also lets the work be stopped."""

    def of_both(done: int, total: int, what: str) -> None:
        check()
        if progress:
            progress(done, total, what)

    return of_both


def say(sentence: str) -> None:
    """Tell the user, on stderr, what they would want to know."""
    print(f"jaxgain: {sentence}", file=sys.stderr, flush=True)


def leave(sentence: str, code: int) -> NoReturn:
    """Say a sentence on stderr and end the process now, with whatever its threads are doing."""
    say(sentence)
    sys.stdout.flush()
    jax = sys.modules.get("jax")
    waits_for_others = jax is not None and jax.distributed.is_initialized()
    if waits_for_others or (threading.active_count() > 1 and code == STOPPED):
        os._exit(code)
    raise SystemExit(code)
