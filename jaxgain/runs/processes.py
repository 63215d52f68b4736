"""Several processes, on one machine or many, that share a job's folder; `jax.distributed` has made them known."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jaxgain.runs.job import Job, Ranges, join_job, open_job


def processes() -> tuple[int, int]:
    """How many there are, and the number of this one, from 0."""
    import jax

    return jax.process_count(), jax.process_index()


def agree(fine: bool = True) -> bool:
    """Wait for all processes, and return whether all of them are fine.

    Raises `ChildProcessError` where one of them is no more.
    """
    if processes()[0] == 1:
        return fine
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    try:
        return bool(np.all(process_allgather(np.array(fine))))
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # on CPUs the latter
        raise ChildProcessError("another process of this run has ended early") from error


@contextmanager
def shared_job(
    folder: str | Path, settings: Mapping[str, Any], total: int, group: int, **options: Any
) -> Iterator[Job]:
    """`open_job` for all processes together: process 0 holds the lock, and all of them add to one folder.

    Raises `ValueError` in all of them where one refuses.
    """
    own = processes()[1]
    with ExitStack() as stack:
        attempts: list[Callable[[], Job]] = [
            lambda: stack.enter_context(open_job(folder, settings, total, group, **options)),
            lambda: stack.enter_context(join_job(folder, settings, total, group, **options)),
        ]
        # Process 0 makes what the others read; nobody computes before all have seen the same results missing.
        jobs = [_together(attempt, of_this=(own == 0) == (place == 0)) for place, attempt in enumerate(attempts)]
        yield next(job for job in jobs if job)


def _together(attempt: Callable[[], Job], *, of_this: bool) -> Job | None:
    job, refusal = None, None
    try:
        job = attempt() if of_this else None
    except (ValueError, OSError) as error:
        refusal = error
    if not agree(refusal is None):
        raise refusal or ValueError("another process of this run has refused it, and says why")
    return job


def share(ranges: Ranges, own: int, count: int) -> Ranges:
    """Which of some ranges of tasks are this process's own: of each a part without gaps.

    >>> share([(0, 4), (4, 7)], 0, 2), share([(0, 4), (4, 7)], 1, 2)
    ([(0, 2), (5, 7)], [(2, 4), (4, 5)])
    """
    found = []
    for place, (start, stop) in enumerate(ranges):
        turn = (own + place) % count
        edges = [start + (stop - start) * edge // count for edge in (turn, turn + 1)]
        if edges[0] < edges[1]:
            found.append((edges[0], edges[1]))
    return found
