"""Jobs of numbered tasks: what is done stays done, whatever happens to the process or to a file."""

import errno
import json

import numpy as np
import pytest

from jaxgain.runs import job as job_module
from jaxgain.runs.job import LOCK, MANIFEST, differences, done_of, is_complete, manifest_of, missing_of, open_job
from jaxgain.runs.lock import only_one
from jaxgain.runs.parts import Damaged, Piece

SETTINGS = {"width": 10, "gains": [1.0, 2.0]}


@pytest.fixture
def begin(tmp_path):
    """A function that opens the same job of 12 tasks, in groups of 4; its reports are `begin.reports`."""

    def open_it(settings=SETTINGS, **options):
        return open_job(tmp_path / "a.parts", settings, 12, 4, report=open_it.reports.append, **options)

    open_it.reports = []
    return open_it


@pytest.fixture
def every_piece_a_part(monkeypatch):
    monkeypatch.setattr(job_module, "SECONDS_OF_PART", 0.0)


def result(start, stop):
    return Piece(start, stop, {"square": np.arange(start, stop) ** 2.0})


def squares(job):
    found = np.full(job.total, np.nan)
    for piece in job.pieces():
        found[piece.start : piece.stop] = piece.arrays["square"]
    return found.tolist()


def test_a_job_without_interruption_writes_nothing_but_its_manifest(begin, tmp_path):
    with begin() as job:
        assert job.missing() == [(0, 4), (4, 8), (8, 12)]
        for start in range(0, 12, 2):
            job.add(result(start, start + 2), 0.1)
        assert sorted(file.name for file in (tmp_path / "a.parts").iterdir()) == ["lock", MANIFEST]
        assert job.missing() == []
        assert squares(job) == [i**2.0 for i in range(12)]
        job.remove()
    assert [*tmp_path.iterdir()] == []


def test_what_was_added_before_an_exception_is_there_afterwards(begin):
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117
        with begin() as job:
            job.add(result(0, 3), 1.0)
            job.add(result(8, 9), 1.0)
            raise KeyboardInterrupt
    with begin() as job:
        assert job.missing() == [(3, 4), (4, 8), (9, 12)]
        assert job.seconds == 2.0
        for start, stop in job.missing():
            job.add(result(start, stop), 1.0)
        assert squares(job) == [i**2.0 for i in range(12)]
        assert job.seconds == 5.0


def test_parts_are_written_by_time_and_by_size(begin, tmp_path):
    with begin(bytes_of_part=32) as job:
        job.add(result(0, 2), 0.0)
        assert done_of(tmp_path / "a.parts") == ([], [])
        job.add(result(2, 4), 0.0)  # 32 bytes
        job.flush()
        assert done_of(tmp_path / "a.parts") == ([(0, 4)], [])
        job.add(result(4, 5), job_module.SECONDS_OF_PART)
        job.add(result(5, 6), 0.0)
        job._settle()
        assert done_of(tmp_path / "a.parts") == ([(0, 5)], [])


def test_every_damaged_part_is_named_and_its_tasks_are_missing(begin, tmp_path, every_piece_a_part):
    with begin() as job:
        for start in range(0, 12, 2):
            job.add(result(start, start + 2), 1.0)
    parts = sorted((tmp_path / "a.parts").glob("*.part"))
    assert len(parts) == 6
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    parts[4].write_bytes(parts[4].read_bytes()[:-1] + b"x")
    with begin() as job:
        assert job.missing() == [(2, 4), (8, 10)]
        assert [str(parts[1]) in begin.reports[0], str(parts[4]) in begin.reports[1]] == [True, True]
        assert "computed again" in begin.reports[0]
        for start, stop in job.missing():
            job.add(result(start, stop), 1.0)
        assert squares(job) == [i**2.0 for i in range(12)]


def test_twenty_of_twenty_damaged_parts_are_found_out_and_named(begin, tmp_path, every_piece_a_part):
    rng = np.random.default_rng(2)
    for _ in range(20):
        with begin() as job:
            for start, stop in job.missing():
                job.add(result(start, stop), 1.0)
        damaged = rng.choice(sorted((tmp_path / "a.parts").glob("*.part")))
        content = bytearray(damaged.read_bytes())
        if rng.random() < 0.5:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        else:
            content = content[: rng.integers(len(content))]
        damaged.write_bytes(content)
        begin.reports.clear()
        with begin() as job:
            assert len(begin.reports) == 1 and str(damaged) in begin.reports[0]
            assert len(job.missing()) == 1


def test_a_part_that_is_damaged_while_the_job_runs_is_found_out_at_the_end(begin, tmp_path, every_piece_a_part):
    with begin() as job:
        for start, stop in job.missing():
            job.add(result(start, stop), 1.0)
        job.flush()
        path = sorted((tmp_path / "a.parts").glob("*.part"))[1]
        path.write_bytes(b"nothing of it")
        with pytest.raises(Damaged):
            squares(job)
        assert job.missing() == [(4, 8)]
        job.add(result(4, 8), 1.0)
        assert squares(job) == [i**2.0 for i in range(12)]


def test_other_settings_are_refused_with_the_difference_and_the_work_remains(begin):
    with begin() as job:
        job.add(result(0, 4), 1.0)
    other = {"width": 20, "gains": [1.0, 2.0], "seed": 1}
    with pytest.raises(ValueError, match=r"other settings \(width: 10 → 20; seed: nothing → 1\)"), begin(other):
        pass
    with begin() as job:
        assert job.missing() == [(4, 8), (8, 12)]
    with begin(other, overwrite=True) as job:
        assert job.missing() == [(0, 4), (4, 8), (8, 12)]


def test_a_manifest_that_is_broken_is_no_job(begin, tmp_path):
    with begin() as job:
        job.add(result(0, 4), 1.0)
    for broken in ("", "{", "[]", json.dumps({"settings": {}})):
        (tmp_path / "a.parts" / MANIFEST).write_text(broken)
        assert manifest_of(tmp_path / "a.parts") is None
    with begin() as job:
        assert job.missing() == [(0, 4), (4, 8), (8, 12)]


FORGOTTEN = [
    f"a.parts/.manifest-{32 * 'a'}.json",
    f"a.parts/.0000000000-0000000004-{32 * '0'}.part",
    f".a-{32 * 'f'}.nc",
]


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(begin, tmp_path):
    others = [".a-b.nc", f".b-{32 * 'f'}.nc", "a.nc"]
    (tmp_path / "a.parts").mkdir()
    for name in FORGOTTEN + others:
        (tmp_path / name).touch()
    with begin() as job:
        job.remove()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(others)


def test_where_the_result_is_complete_the_rest_of_a_killed_job_is_removed(tmp_path):
    parts = tmp_path / "a.parts"
    parts.mkdir()
    (tmp_path / FORGOTTEN[0]).touch()
    (parts / "0000000000-0000000004.part").touch()
    with only_one(parts / LOCK):  # of a job that begins to replace the result
        assert is_complete(tmp_path / "a.nc", parts, SETTINGS, SETTINGS, "sweep", print)
        assert len([*parts.iterdir()]) == 3
    assert is_complete(tmp_path / "a.nc", parts, SETTINGS, SETTINGS, "sweep", print)
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_is_an_error_and_what_was_written_before_remains(begin, monkeypatch, every_piece_a_part):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "a.parts")

    with pytest.raises(OSError, match="No space left"):  # noqa: PT012, SIM117
        with monkeypatch.context() as patched, begin() as job:
            job.add(result(0, 4), 1.0)
            job.flush()
            patched.setattr(job_module, "write_part", full)
            job.add(result(4, 8), 1.0)
            job.add(result(8, 12), 1.0)
    with begin() as job:
        assert job.missing() == [(4, 8), (8, 12)]


def test_differences_are_those_of_json():
    assert differences({"gains": [1, 2]}, {"gains": (1, 2)}) == []
    assert differences({"gains": [0.1] * 100}, {"gains": [1]})[0].startswith("gains: [0.1, 0.1")


def test_missing_tasks_and_done_ones_are_all_tasks():
    rng = np.random.default_rng(1)
    for _ in range(100):
        done = np.sort(rng.choice(30, 8, replace=False))
        ranges = missing_of([(int(i), int(i) + 1) for i in done], 30, 7)
        assert sorted([*done, *(i for start, stop in ranges for i in range(start, stop))]) == [*range(30)]
        assert all(start // 7 == (stop - 1) // 7 for start, stop in ranges)
