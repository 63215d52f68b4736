import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from experiments.verdicts import NAMES, SOURCES, main, page, source_of
from jaxgain.experiments import Verdict

ROOT = Path(__file__).parents[2]
CLAIMS = [f"{letter}{number}" for letter, count in {"A": 24, "B": 20, "C": 9}.items() for number in range(1, count + 1)]


def one(claim, verdict="right", number="1.0 ± 0.1"):
    return Verdict(claim, "it | is so", verdict, number, 3, "Because it is.")


def test_the_page_has_a_row_per_claim_in_the_order_of_its_source():
    text = page({"cures": [one("A10"), one("A2", "wrong")], "zero_weights": [one("C1")]}, "figures")
    rows = [line for line in text.splitlines() if line.startswith("| A")]
    assert [row.split(" | ")[0] for row in rows] == ["| A2", "| A10"]
    assert rows[0].count(r"it \| is so") == 1 and "**wrong**" in rows[0] and "1.0 ± 0.1 (3 seeds)" in rows[0]
    assert "3 of their claims" in text and "| right | 2 |" in text and "| wrong | 1 |" in text
    assert text.index(SOURCES["A"][0]) < text.index(SOURCES["C"][0])
    assert "](figures/zero_weights.png)" in text


def test_labels_belong_to_a_discussion_and_papers_do_not():
    assert [source_of(claim) for claim in ("A1", "B20", "C9", "Poole et al. 2016", "Cho 2009")] == [
        "A",
        "B",
        "C",
        "",
        "",
    ]


def test_names_that_are_no_experiments_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--only", "cure"])
    assert stop.value.code == 2 and "names of experiments, got cure" in capsys.readouterr().err


def test_every_experiment_is_there():
    for name in NAMES:
        assert (ROOT / "experiments" / f"{name}.py").exists()


def test_every_figure_is_small_enough_to_be_committed():
    figures = sorted((ROOT / "experiments" / "figures").glob("*.png"))
    assert {f"{name}.png" for name in NAMES} <= {figure.name for figure in figures}
    assert max(figure.stat().st_size for figure in figures) < 300_000


def test_the_committed_page_judges_every_claim_once():
    text = (ROOT / "experiments" / "README.md").read_text()
    assert re.findall(r"^\| ([ABC]\d+) \|", text, re.MULTILINE) == CLAIMS
    for name in re.findall(r"\((figures/\w+\.png)\)", text):
        assert (ROOT / "experiments" / name).exists()


@pytest.mark.slow
def test_tiny_runs_of_all_experiments_judge_every_claim_once_and_are_used_again(tmp_path, capsys):
    main(["--smoke", "--out", str(tmp_path / "figures")])
    text = (tmp_path / "README.md").read_text()
    assert re.findall(r"^\| ([ABC]\d+) \|", text, re.MULTILINE) == CLAIMS
    written = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "figures").glob("*.nc")}
    assert set(written) == {f"{name}.nc" for name in NAMES}
    assert all(imread(tmp_path / "figures" / f"{name}.png").std() > 0.05 for name in NAMES)
    capsys.readouterr()
    main(["--smoke", "--out", str(tmp_path / "figures")])
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "figures").glob("*.nc")} == written
    assert (tmp_path / "README.md").read_text() == text
