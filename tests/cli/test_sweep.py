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


def test_a_sweep_that_is_there_may_be_replaced_and_nothing_else_may(swept, tmp_path):
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
