import numpy as np
import pytest

from jaxgain.runs.files import load_dataset
from jaxgain.training.config import TrainConfig

WORDS = ["--inits", "critical", "0.5", "--depths", "2", "4", "--widths", "16", "--learning-rates", "0.01", "0.1"]
WORDS += ["--seeds", "2", "--steps", "10", "--measure-every", "10", "--out", "out"]


@pytest.fixture(scope="module")
def trained(shell, tmp_path_factory):
    """A folder in which `jaxgain train` has run, and what it printed."""
    folder = tmp_path_factory.mktemp("train")
    ran = shell("train", *WORDS, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return folder, ran


def test_training_writes_the_dataset_of_its_settings_and_a_figure(trained):
    folder, _ = trained
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["train.nc", "train.png"]
    dataset = load_dataset(folder / "out" / "train.nc")
    settings = dict(inits=("critical", 0.5), depths=(2, 4), widths=16, learning_rates=(0.01, 0.1), seeds=2)
    config = TrainConfig(**settings, steps=10, measure_every=10)
    assert dataset.attrs["train_config_hash"] == config.hash()
    assert np.isfinite(dataset["test_accuracy"]).all()


def test_the_table_has_a_row_per_initialization_and_a_column_per_depth(trained):
    _, ran = trained
    lines = ran.stdout.splitlines()
    assert lines[0] == "tanh, width 16: test accuracy by depth"
    assert lines[1].split() == ["init", "σ_w", "σ_b", "6", "ξ_c", "2", "4"]
    assert [line.split()[:3] for line in lines[2:4]] == [["0.5", "0.5", "0"], ["critical", "1", "0"]]
    assert lines[2].count("@") == 2 and "±" in lines[2]
    assert max(map(len, lines)) <= 100
    assert "Dataset: out/train.nc" in ran.stdout and ran.stderr == ""


def test_saved_training_is_drawn_again(shell, trained):
    folder, _ = trained
    ran = shell("draw", "out/train.nc", "--out", "again.svg", cwd=folder)
    assert (ran.returncode, ran.stdout) == (0, "Figure: again.svg\n")
    assert "<svg" in (folder / "again.svg").read_text()


def test_what_is_no_training_is_not_replaced(shell, tmp_path):
    (tmp_path / "train.nc").write_text("somebody's")
    ran = shell("train", *WORDS[:-1], ".", cwd=tmp_path)
    assert ran.returncode == 2 and "is not a training of jaxgain; move it away" in ran.stderr
    assert (tmp_path / "train.nc").read_text() == "somebody's"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--depths", "0"], "depths must be at least 1, got 0"),
        (["--learning-rates", "0"], "learning_rates must be finite and above 0"),
        (["--optimizer", "adm"], "did you mean 'adam'? Use one of sgd, momentum, adam, adamw, hypergradient. See"),
        (["--dataset", "mnist"], "did you mean 'mnist1d'? Use one of digits, mnist1d"),
        (["--datset", "digits"], "did you mean --dataset?"),
        (["--inits", "critcal"], "did you mean 'critical'?"),
        (["--activations", "gelu", "--inits", "torch", "--depths", "2"], "gelu"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(shell, tmp_path, words, sentence):
    ran = shell("train", *words, cwd=tmp_path)
    assert ran.returncode == 2 and sentence in ran.stderr
    assert len(ran.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())
