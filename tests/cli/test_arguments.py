import dataclasses
from pathlib import Path

import pytest

import jaxgain as jg
from jaxgain.cli import arguments
from jaxgain.cli.arguments import experiment, part_of, refusing
from jaxgain.propagation.config import SweepConfig


def test_bad_input_found_by_jaxgain_is_one_line_and_code_2(capsys):
    from jaxgain.runs.files import load_dataset

    with pytest.raises(SystemExit) as stop, refusing():
        load_dataset("no/such/file.nc")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "jaxgain: cannot read the dataset no/such/file.nc: there is no such file\n"


def test_an_error_of_the_program_itself_is_not_hidden():
    with pytest.raises(ValueError, match="invalid literal"), refusing():
        int("x")
    with pytest.raises(KeyError), refusing():
        _ = {}["x"]


def test_a_part_of_a_command_s_arguments_has_the_fields_of_its_kind():
    @dataclasses.dataclass(frozen=True)
    class More(SweepConfig):
        out: Path = Path("somewhere")

    assert part_of(SweepConfig, More(width=7)) == SweepConfig(width=7)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of an experiment."""

    width: int = 10
    """Neurons."""
    scales: tuple[float, ...] = (1.0, 2.0)
    """Standard deviations."""
    out: Path = Path("results")
    """Folder."""

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")


@pytest.fixture
def prepared(monkeypatch):
    """A list with an entry for each time that JAX was prepared."""
    times = []
    monkeypatch.setattr(arguments, "prepare_jax", lambda: times.append(None))
    return times


def test_words_change_the_default_settings_of_an_experiment(prepared, tmp_path):
    default = Sizes(width=3, out=tmp_path)
    with experiment("sizes", default, ["--scales", "0.5", "4"]) as config:
        assert config == Sizes(3, (0.5, 4.0), tmp_path)
        assert len(prepared) == 1


def test_words_are_those_of_the_process_by_default(monkeypatch, prepared, tmp_path):
    monkeypatch.setattr("sys.argv", ["sizes.py", "--width", "5"])
    with experiment("sizes", Sizes(out=tmp_path)) as config:
        assert config.width == 5


def test_an_experiment_in_processes_of_its_own_leaves_jax_alone(prepared, tmp_path):
    with experiment("sizes", Sizes(out=tmp_path), [], here=False):
        assert prepared == []


SEE = "See python -m experiments.sizes --help\n"
REFUSED = [
    (["--width", "0"], "width must be at least 1, got 0."),
    (["--width", "wide"], "invalid literal for int()"),
    (["--widht", "3"], "did you mean --width?"),
    (["--out", "/dev/null"], "cannot write to the folder /dev/null"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_a_bad_option_of_an_experiment_is_one_line_and_code_2(words, sentence, prepared, capsys):
    with pytest.raises(SystemExit) as stop, experiment("sizes", Sizes(), words):
        pytest.fail("it ran")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and prepared == []
    assert error.startswith("sizes: ") and sentence in error and error.endswith(SEE) and error.count("\n") == 1


def test_what_jaxgain_refuses_while_an_experiment_runs_is_one_line(prepared, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop, experiment("sizes", Sizes(out=tmp_path), []):
        jg.SweepConfig(width=0)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("sizes: width must be at least 1, got 0") and error.endswith(SEE) and error.count("\n") == 1


def test_an_error_of_an_experiment_itself_is_not_hidden(prepared, tmp_path):
    with pytest.raises(ValueError, match="invalid literal"), experiment("sizes", Sizes(out=tmp_path), []):
        int("x")


def test_help_of_an_experiment_names_its_fields(capsys, prepared):
    with pytest.raises(SystemExit) as stop, experiment("sizes", Sizes(), ["--help"]):
        pytest.fail("it ran")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "python -m experiments.sizes" in printed and "Standard deviations." in printed
