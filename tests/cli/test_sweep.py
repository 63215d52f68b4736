import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxgain.propagation.config import SweepConfig
from jaxgain.runs.files import is_ours, load_dataset

WORDS = ["--activations", "tanh", "relu", "--gains", "1", "5/3", "forward"]
WORDS += ["--width", "20", "--depth", "10", "--seeds", "3", "--out", "out"]


@pytest.fixture(scope="module")
def swept(shell, tmp_path_factory):
    """A folder in which `jaxgain sweep` has run, and what it printed."""
    folder = tmp_path_factory.mktemp("sweep")
    ran = shell("sweep", *WORDS, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return folder, ran


def test_a_sweep_writes_the_dataset_of_its_settings_and_a_figure(swept):
    folder, _ = swept
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["sweep.nc", "sweep.png"]
    dataset = load_dataset(folder / "out" / "sweep.nc")
    config = SweepConfig(activations=("tanh", "relu"), gains=(1, 5 / 3, "forward"), width=20, depth=10, seeds=3)
    assert dataset.attrs["config_hash"] == config.hash()
    assert dict(dataset["std"].sizes) == {"activation": 2, "gain": 4, "seed": 3, "layer": 11}
    assert np.isfinite(dataset["std"]).all()


def test_the_table_has_a_row_per_own_or_given_gain_and_says_where_the_files_are(swept):
    _, ran = swept
    lines = ran.stdout.splitlines()
    tanh, relu = lines.index("tanh"), lines.index("relu")
    assert [line.split()[0] for line in lines[tanh + 1 : relu]] == ["1", "1.5925", "1.6667"]
    assert [line.split()[0] for line in lines[relu + 1 : relu + 4]] == ["1", "1.4142", "1.6667"]
    assert "std at 10" in lines[0]
    assert max(map(len, lines)) <= 100
    assert "Dataset: out/sweep.nc" in ran.stdout
    assert "replaced" not in ran.stdout
    assert ran.stderr == ""


def test_a_saved_sweep_is_drawn_again(shell, swept):
    folder, _ = swept
    ran = shell("draw", "out/sweep.nc", "--out", "again.svg", cwd=folder)
    assert (ran.returncode, ran.stdout) == (0, "Figure: again.svg\n")
    assert "<svg" in (folder / "again.svg").read_text()


def test_the_same_command_shows_the_sweep_that_is_there(shell, swept):
    folder, ran = swept
    before = (folder / "out" / "sweep.nc").read_bytes()
    again = shell("sweep", *WORDS, cwd=folder)
    assert (again.returncode, again.stdout) == (0, ran.stdout)
    assert again.stderr == "jaxgain: out/sweep.nc is a complete sweep of these settings and is used as it is\n"
    assert (folder / "out" / "sweep.nc").read_bytes() == before


def test_another_sweep_in_its_place_is_refused_with_the_difference(shell, swept):
    folder, _ = swept
    before = (folder / "out" / "sweep.nc").read_bytes()
    ran = shell("sweep", *WORDS, "--width", "30", cwd=folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "width: 20 → 30" in ran.stderr and "--overwrite" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert (folder / "out" / "sweep.nc").read_bytes() == before


@pytest.mark.slow
def test_a_sweep_is_replaced_where_that_is_asked_for(shell, swept, tmp_path):
    folder, _ = swept
    shutil.copytree(folder / "out", tmp_path / "out")
    ran = shell("sweep", *WORDS, "--seeds", "4", "--overwrite", cwd=tmp_path)
    assert ran.returncode == 0 and "Dataset: out/sweep.nc (replaced)" in ran.stdout
    assert load_dataset(tmp_path / "out" / "sweep.nc").sizes["seed"] == 4


def test_the_status_of_a_folder_says_what_is_complete(shell, swept, tmp_path):
    folder, _ = swept
    ran = shell("status", "out", cwd=folder)
    assert ran.returncode == 0 and ran.stdout.startswith("out/sweep.nc: complete, of jaxgain ")
    ran = shell("status", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (2, "") and "no run of jaxgain is in" in ran.stderr


# What runs in the background of a script ignores Ctrl-C unless it is told otherwise.
STOPPED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxgain import cli
from jaxgain.propagation import plan, sweep
plan.SEEDS_AT_ONCE = (2, 2)
compute = sweep._compute
def until_the_second(*rest):
    for count, chunk in enumerate(compute(*rest)):
        if count:
            os.kill(os.getpid(), signal.SIGINT)
        yield chunk
sweep._compute = until_the_second
cli.main(["sweep", *sys.argv[1:]])
"""


def test_ctrl_c_stops_with_130_and_says_how_to_go_on(shell, tmp_path):
    words = ["--activations", "tanh", "--gains", "1", "--width", "5", "--depth", "2", "--inputs", "1"]
    words += ["--statistics", "std", "--seeds", "100", "--out", "out"]
    # The compilation cache is off, as loading from it may log a line where JAX was imported before the command began.
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-c", STOPPED, *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert ran.returncode == 130, ran.stderr
    assert ran.stderr.startswith("jaxgain: stopped; ") and ran.stderr.count("\n") == 1
    assert "of it is in out/sweep.parts, and the same command goes on from there" in ran.stderr
    status = shell("status", "out", cwd=tmp_path)
    assert "of 100 steps done" in status.stdout and "nobody is at work" in status.stdout
    again = shell("sweep", *words, cwd=tmp_path)
    assert again.returncode == 0 and "of the sweep is in out/sweep.parts already" in again.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["sweep.nc", "sweep.png"]


FULL = """
import resource, sys
from jaxgain import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
cli.main(["sweep", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(shell, tmp_path):
    """No file may grow beyond 20 kB: the parts fit, and the dataset does not."""
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    words = ["--activations", "tanh", "--gains", "1", "--width", "5", "--depth", "40", "--inputs", "1"]
    words += ["--statistics", "q", "--seeds", "100", "--out", "out"]
    command = [sys.executable, "-c", FULL, *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    assert ran.stderr.startswith("jaxgain: cannot write") and ran.stderr.count("\n") == 1, ran.stderr
    assert "File too large; 100% of it is in out/sweep.parts, and the same command goes on" in ran.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["sweep.parts"]
    again = shell("sweep", *words, cwd=tmp_path)
    assert again.returncode == 0 and "100% of the sweep is in" in again.stderr
    assert load_dataset(tmp_path / "out" / "sweep.nc").sizes["seed"] == 100


def test_what_is_no_sweep_is_never_replaced(swept, tmp_path):
    folder, _ = swept
    assert is_ours(folder / "out" / "sweep.nc", "config_hash", "a sweep")
    assert not is_ours(tmp_path / "sweep.nc", "config_hash", "a sweep")
    (tmp_path / "sweep.nc").write_text("somebody's")
    with pytest.raises(ValueError, match="is not a sweep of jaxgain; move it away or choose another folder"):
        is_ours(tmp_path / "sweep.nc", "config_hash", "a sweep")


def test_a_sweep_that_does_not_fit_is_refused_in_one_line(shell, tmp_path):
    ran = shell("sweep", "--memory", "1e-6", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "GiB" in ran.stderr
