from typing import get_args

import pytest

import jaxgain
from jaxgain.cli.gain import Kind
from jaxgain.propagation.config import GAIN_KINDS


def test_help_names_every_command(shell):
    ran = shell("--help")
    assert ran.returncode == 0
    assert {"gain", "theory", "sweep", "draw", "status"} <= set(ran.stdout.split())
    assert shell().stdout == ran.stdout


def test_version(shell):
    assert shell("--version").stdout == f"jaxgain {jaxgain.__version__}\n"


def test_help_of_a_sweep_explains_every_setting_with_its_default(shell):
    ran = shell("sweep", "--help")
    assert ran.returncode == 0
    for flag in (
        "--activations",
        "--gains",
        "--sigma-b",
        "--width",
        "--keep-inputs",
        "--memory",
        "--out",
        "--rows",
    ):
        assert flag in ran.stdout
    for words in ("0.5:3:11 named", "GiB", "Layers", "standard deviation", "start:stop:count"):
        assert words in ran.stdout
    assert ">>>" not in ran.stdout


REFUSED = [
    (("swep",), "unknown command 'swep'; did you mean 'sweep'?"),
    (("sweep", "--widht", "3"), "Unrecognized options: --widht, 3; did you mean --width?"),
    (("sweep", "--width", "abc"), "width must be a whole number, got 'abc'"),
    (("sweep", "--width", "0"), "width must be at least 1, got 0"),
    (("sweep", "--gains", "1", "nan"), "gains must be finite and at least 0, got 'nan' at position 1"),
    (("sweep", "--gains", "-1"), "gains must be finite and at least 0, got '-1'"),
    (("sweep", "--gains", "inf"), "gains must be finite and at least 0, got 'inf'"),
    (("sweep", "--gains"), "gains must not be empty"),
    (("sweep", "--gains", "forwrad"), "unknown gain 'forwrad'; did you mean 'forward'?"),
    (("sweep", "--activations", "tahn"), "unknown activation 'tahn'"),
    (("sweep", "--weights", "dens"), "invalid choice 'dens' for argument '--weights'"),
    (("sweep", "--cotangent", "none"), "invalid choice 'none'"),
    (("sweep", "--depth", "0"), "depth must be at least 1"),
    (("sweep", "--seeds", "0"), "seeds must be at least 1"),
    (("gain", "tahn"), "unknown activation 'tahn'"),
    (("gain", "tanh", "--kind", "forwards"), "invalid choice 'forwards'"),
    (("gain", "tanh", "--q", "0"), "q must be finite and positive"),
    (("gain", "tanh", "--out", "table.txt"), "--out must end in .nc or .csv"),
    (("gain", "tanh", "--kind", "self_consistent"), "tanh has no self_consistent gain"),
    (("theory",), "Missing from jaxgain theory"),
    (("theory", "tahn"), "unknown activation 'tahn'"),
    (
        ("theory", "tanh", "--sigma-w", "-1"),
        "sigma_w must be finite and at least 0, a standard deviation up to 3.4e38, got -1.0",
    ),
    (
        ("theory", "tanh", "--sigma-w", "nan"),
        "sigma_w must be finite and at least 0, a standard deviation up to 3.4e38, got nan",
    ),
    (
        ("theory", "tanh", "--sigma-b", "inf"),
        "sigma_b must be finite and at least 0, a standard deviation up to 3.4e38, got inf",
    ),
    (("theory", "tanh", "--sigma-w", "wide"), "cannot read sigma_w 'wide'"),
    (("theory", "relu", "--sigma-b", "0.1"), "relu has no edge of chaos with sigma_b = 0.1"),
    (("theory", "tanh", "--grid", "1"), "grid must be at least 2, got 1"),
    (("theory", "tanh", "--depth", "0"), "depth must be at least 2, got 0"),
    (("theory", "tanh", "--edges", "-1"), "edges must be finite and at least 0"),
    (("theory", "tanh", "--input-correlation", "2"), "input_correlation must be between -1 and 1, got 2.0"),
    (("status", "none"), "there is no folder none"),
    (("draw",), "PATH"),
    (("draw", "none.nc"), "cannot read the dataset none.nc: there is no such file"),
    (("draw", "none.nc", "--out", "none.txt"), "--out must end in .png, .pdf, .svg"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_bad_input_is_one_line_on_stderr_and_code_2(shell, words, sentence, tmp_path):
    ran = shell(*words, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("jaxgain: ")
    assert ran.stderr.count("\n") == 1
    assert sentence in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_run(shell, tmp_path):
    (tmp_path / "file").write_text("")
    ran = shell("sweep", "--out", str(tmp_path / "file" / "folder"))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "cannot write to the folder" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_help_of_a_theory_explains_its_settings(shell):
    ran = shell("theory", "--help")
    assert ran.returncode == 0
    for words in ("--sigma-w", "--compare", "sqrt(2)", "edge of chaos", "standard errors", "theory.png"):
        assert words in ran.stdout


def test_the_kinds_at_the_shell_are_all_kinds():
    assert get_args(Kind) == GAIN_KINDS


def test_one_gain_is_the_bare_number(shell):
    ran = shell("gain", "relu", "--kind", "forward")
    assert ran.returncode == 0
    assert float(ran.stdout) == pytest.approx(2**0.5, rel=1e-14)
    assert ran.stderr == ""


def test_a_gain_that_needs_a_bias_says_so_beside_the_number(shell):
    ran = shell("gain", "gelu", "--kind", "critical")
    assert ran.returncode == 0
    assert float(ran.stdout) == pytest.approx(1.408211, abs=1e-6)
    assert "sigma_b" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_table_of_gains_is_written_where_it_is_asked_for(shell, tmp_path):
    from jaxgain.runs.files import load_dataset

    ran = shell("gain", "gelu", "tanh(2x)", "--out", str(tmp_path / "gains.nc"))
    assert ran.returncode == 0, ran.stderr
    assert "unstable" in ran.stdout
    assert max(map(len, ran.stdout.replace(str(tmp_path), "").splitlines())) <= 100
    saved = load_dataset(tmp_path / "gains.nc")
    assert saved["gain"].sel(activation="gelu").sel(kind="forward").item() == jaxgain.gain("gelu")
    shell("gain", "gelu", "--kind", "forward", "--out", str(tmp_path / "gains.csv"))
    assert f"gelu,forward,{jaxgain.gain('gelu')!r}," in (tmp_path / "gains.csv").read_text()
