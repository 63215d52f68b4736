import os
import signal
import subprocess
import sys

import pytest

from jaxgain.runs.lock import holder, only_one

HOLD = """
import sys, time
from jaxgain.runs.lock import only_one
with only_one(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """A lock that another process holds, and that process."""
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."}) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield path, other
        other.kill()


def test_the_second_process_is_refused_with_the_first_ones_number(held):
    path, other = held
    with (
        pytest.raises(ValueError, match=rf"process {other.pid} on .* is at work in {path.parent}; wait"),
        only_one(path),
    ):
        pass
    assert f"process {other.pid}" in str(holder(path))


def test_what_a_killed_process_held_is_taken_over(held):
    path, other = held
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert path.exists() and holder(path) is None
    with only_one(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists() and holder(path) is None


def test_a_lock_is_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), only_one(tmp_path / "lock"):
            raise RuntimeError
    assert not (tmp_path / "lock").exists()
