import numpy as np
import pytest

from jaxgain.runs.files import load_dataset

WORDS = ["theory", "tanh", "--sigma-w", "5/3", "--grid", "4", "--depth", "10", "--width", "200", "--out", "out"]


@pytest.fixture(scope="module")
def shown(shell, tmp_path_factory):
    """A folder in which `jaxgain theory` has run, and what it printed."""
    folder = tmp_path_factory.mktemp("theory")
    ran = shell(*WORDS, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return folder, ran


def rows(text, title):
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title)) + 2
    return [line.split() for line in lines[start : lines.index("", start) if "" in lines[start:] else None]]


def test_a_theory_writes_its_dataset_and_figure_and_says_where(shown):
    folder, ran = shown
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["theory.nc", "theory.png"]
    dataset = load_dataset(folder / "out" / "theory.nc")
    assert dataset.attrs["activation"] == "tanh" and dataset.attrs["init_sigma_w"] == 5 / 3
    assert dataset.sizes["sigma_w"] == 4 and "measured_log_grad_mean" not in dataset
    assert "Dataset: out/theory.nc" in ran.stdout and "Figure:  out/theory.png" in ran.stdout
    assert ran.stderr == "" and max(map(len, ran.stdout.splitlines())) <= 100


def test_the_table_has_fixed_points_critical_point_and_edge(shown):
    _, ran = shown
    zero, one, *_ = rows(ran.stdout, "fixed points")
    assert zero[:2] == ["0", "1"] and zero[-1] == "chaotic" and "unstable" in zero
    assert one[0] == "→" and float(one[1]) == pytest.approx(1.178480492, rel=1e-6) and "stable" in one
    assert "critical initialization: K*=0" in ran.stdout
    edge = {row[0]: row[1:] for row in rows(ran.stdout, "edge of chaos")}
    assert edge["0.2"][0] == "1.30414584" and edge["0.2"][-1] == "stable"


@pytest.mark.slow
def test_the_comparison_has_a_row_per_statistic_and_a_verdict(shell, tmp_path):
    ran = shell(*WORDS, "--compare", "--seeds", "40", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert np.isfinite(load_dataset(tmp_path / "out" / "theory.nc")["measured_log_grad_mean"]).all()
    found = rows(ran.stdout, "theory against 40 sampled networks of width 200")
    assert [" ".join(row[:4]) for row in found[:2]] == ["mean of ln q", "variance of ln q"]
    assert all(abs(float(row[-1])) < 4 for row in found[:5])
    assert "agrees: no farther off than chance allows (p = " in ran.stdout


def test_a_saved_theory_is_drawn_again(shell, shown):
    folder, _ = shown
    ran = shell("draw", "out/theory.nc", "--out", "again.svg", cwd=folder)
    assert (ran.returncode, ran.stdout) == (0, "Figure: again.svg\n")
    assert "<svg" in (folder / "again.svg").read_text()


def test_a_theory_may_be_replaced_and_no_other_file_may(shell, shown, tmp_path):
    folder, _ = shown
    again = shell(*WORDS, "--edges", cwd=folder)
    assert again.returncode == 0 and "theory.nc (replaced)" in again.stdout
    assert "edge of chaos" not in again.stdout
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theory.nc").write_text("somebody's")
    ran = shell(*WORDS, cwd=tmp_path)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert "exists and is not a theory of jaxgain" in ran.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["tanh", "--sigma-w", "-1"],
            "sigma_w must be finite and at least 0, a standard deviation up to 3.4e38, got -1",
        ),
        (
            ["tanh", "--sigma-b", "nan"],
            "sigma_b must be finite and at least 0, a standard deviation up to 3.4e38, got nan",
        ),
        (["tahn"], "unknown activation 'tahn'; did you mean tanh"),
        (["relu", "--sigma-b", "0.1"], "relu has no edge of chaos with sigma_b = 0.1"),
        (
            ["tanh", "--sigma-w", "0", "--grid", "2", "--edges", "--compare"],
            "nothing to compare with: the length of tanh",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(shell, tmp_path, words, sentence):
    ran = shell("theory", *words, cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
    assert ran.stderr.startswith("jaxgain: ") and sentence in ran.stderr
    assert not list(tmp_path.rglob("theory.*"))
