"""Several real processes, and processes that are killed at any moment."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.sweep import sweep
from jaxgain.runs.files import load_dataset
from jaxgain.runs.processes import share

ROOT = Path(__file__).parents[2]
WORDS = ["--activations", "tanh", "relu", "--gains", "1", "5/3", "--width", "30", "--depth", "4", "--seeds", "9"]
WORDS += ["--inputs", "1", "--statistics", "std", "log_grad_rms", "--out", "out"]
CONFIG = SweepConfig(
    ("tanh", "relu"), (1, "5/3"), width=30, depth=4, seeds=9, inputs=1, statistics=("std", "log_grad_rms")
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Where what is compiled is kept, so that only the first of many processes compiles."""
    cache = str(tmp_path_factory.mktemp("cache"))
    kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return os.environ | kept | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def test_shares_are_all_tasks_once():
    ranges = [(0, 4), (4, 5), (7, 12), (12, 14)]
    for count in (1, 2, 3, 8):
        tasks = [
            task for own in range(count) for start, stop in share(ranges, own, count) for task in range(start, stop)
        ]
        assert sorted(tasks) == [task for start, stop in ranges for task in range(start, stop)]


def two_processes(program, folder, environment):
    """Two processes of a sweep of WORDS that know each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, *program, *WORDS, "--devices", "1"]
    command += ["--distributed", "--coordinator", address, "--processes", "2", "--process"]
    begin = partial(subprocess.Popen, cwd=folder, env=environment, text=True, stdout=PIPE, stderr=PIPE)
    return [begin([*command, str(own)]) for own in range(2)]


@pytest.mark.slow
def test_two_processes_are_bitwise_one(tmp_path, environment):
    ran = two_processes(["-m", "jaxgain", "sweep"], tmp_path, environment)
    said = [process.communicate() for process in ran]
    assert [process.returncode for process in ran] == [0, 0], said
    assert "Dataset: out/sweep.nc" in said[0][0] and "Dataset" not in said[1][0]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["sweep.nc", "sweep.png"]
    found, alone = load_dataset(tmp_path / "out" / "sweep.nc"), sweep(CONFIG)
    for name in alone.data_vars:
        np.testing.assert_array_equal(found[name], alone[name], err_msg=name)


@pytest.mark.slow
def test_a_process_that_dies_stops_the_other_and_leaves_a_sweep_that_goes_on(tmp_path, environment):
    ran = two_processes(["-c", SWEEP], tmp_path, environment)
    while ran[1].poll() is None and not [*(tmp_path / "out").glob("sweep.parts/*.part")]:
        time.sleep(0.01)
    ran[1].kill()
    _, said = ran[0].communicate()
    ran[1].communicate()
    assert ran[0].returncode == 1
    line = [line for line in said.splitlines() if line.startswith("jaxgain: another process of this run has ended")]
    assert len(line) == 1 and "and the same command goes on from there" in line[0]
    assert "Traceback" not in said
    subprocess.run(
        [sys.executable, "-m", "jaxgain", "sweep", *WORDS], check=True, cwd=tmp_path, env=environment, stdout=PIPE
    )
    found, alone = load_dataset(tmp_path / "out" / "sweep.nc"), sweep(CONFIG)
    for name in alone.data_vars:
        np.testing.assert_array_equal(found[name], alone[name], err_msg=name)


# Pieces of a job without JAX: each takes a moment, and each is a part.
JOB = """
import sys, time
import numpy as np, xarray
from jaxgain.runs import job as module
from jaxgain.runs.merge import Slab, Variable, save_slabs
from jaxgain.runs.parts import Piece
module.SECONDS_OF_PART = 0.0
def values(start, stop):
    return np.random.default_rng(start).normal(size=(stop - start, 5000))
def slabs(job):
    for piece in job.pieces():
        yield Slab("x", (slice(piece.start, piece.stop), slice(0, 5000)), piece.arrays["x"])
folder = sys.argv[1]
with module.open_job(folder + "/a.parts", {"a": 1}, 40, 20, report=print) as job:
    for start, stop in job.missing():
        for at in range(start, stop):
            job.add(Piece(at, at + 1, {"x": values(at, at + 1)}), 1.0)
            time.sleep(0.002)
    job.flush()
    x = Variable(("task", "number"), (40, 5000), np.dtype(float), {})
    save_slabs(xarray.Dataset(), {"x": x}, slabs(job), folder + "/a.nc")
    job.remove()
"""


def killed_again_and_again(command, folder, environment, kills, longest):
    """Run a command that goes on where it was, killing it at random moments until so many kills hit it at work.

    Where it completes before, it begins anew.
    """
    moments, hits = random.Random(0), 0
    while hits < kills:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        hits += process.wait() == -signal.SIGKILL
        yield


@pytest.mark.slow
def test_a_job_killed_fifty_times_has_the_bits_of_one_that_never_was(tmp_path, environment):
    command = [sys.executable, "-c", JOB, str(tmp_path)]
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment)
    longest = 1.2 * (time.perf_counter() - started)
    expected = load_dataset(tmp_path / "a.nc")["x"].values.tobytes()
    completed = 1
    (tmp_path / "a.nc").unlink()
    for _ in killed_again_and_again(command, tmp_path, environment, 50, longest):
        if (tmp_path / "a.nc").exists():
            assert load_dataset(tmp_path / "a.nc")["x"].values.tobytes() == expected
            completed += 1
            (tmp_path / "a.nc").unlink()
    subprocess.run(command, check=True, env=environment)
    assert load_dataset(tmp_path / "a.nc")["x"].values.tobytes() == expected
    assert [file.name for file in tmp_path.iterdir()] == ["a.nc"]


# The sweep of WORDS in chunks of two seeds, each of which is a part and takes a moment.
SWEEP = """
import sys, time
from jaxgain import cli
from jaxgain.propagation import plan, sweep
from jaxgain.runs import job
plan.SEEDS_AT_ONCE = (2, 2)
job.SECONDS_OF_PART = 0.0
compute = sweep._compute
def slowly(*rest):
    for chunk in compute(*rest):
        time.sleep(0.1)
        yield chunk
sweep._compute = slowly
cli.main(["sweep", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_a_sweep_killed_fifty_times_has_the_bits_of_one_that_never_was(tmp_path, environment):
    command = [sys.executable, "-c", SWEEP, *WORDS, "--devices", "1"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    expected = load_dataset(tmp_path / "out" / "sweep.nc")
    (tmp_path / "out" / "sweep.nc").unlink()
    started = time.perf_counter()  # with what is compiled at hand
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    longest = time.perf_counter() - started
    for _ in killed_again_and_again(command, tmp_path, environment, 50, longest):
        found = tmp_path / "out" / "sweep.nc"
        if found.exists():
            dataset = load_dataset(found)
            for name in expected.data_vars:
                assert dataset[name].values.tobytes() == expected[name].values.tobytes(), name
            if not (tmp_path / "out" / "sweep.parts").exists():
                found.unlink()
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    dataset = load_dataset(tmp_path / "out" / "sweep.nc")
    for name in expected.data_vars:
        assert dataset[name].values.tobytes() == expected[name].values.tobytes(), name
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert {name for name in left if not name.startswith(".")} == {"sweep.nc", "sweep.png"}
    assert not {name for name in left if name.startswith(".") and name.endswith(".nc")}
