"""Five hundred command lines, from typos to nonsense: one line and a known exit code, and nothing half done."""

import random

import numpy as np
import pytest
import xarray

from jaxgain import cli
from jaxgain.cli import sweep, train
from jaxgain.runs.files import save_dataset
from jaxgain.theory import gains, portrait

FLAGS = {
    "sweep": [
        *("--activations", "--gains", "--sigma-b", "--width", "--widths", "--depth", "--depths", "--seeds", "--inputs"),
        *("--input-scale", "--input-correlation", "--weights", "--distribution", "--sparsity", "--mode", "--tied"),
        *("--first-gain", "--layer-gains", "--block", "--branch", "--norm", "--alpha", "--dropout", "--dtype"),
        *("--cotangent", "--directions", "--statistics", "--record-every", "--seed", "--memory", "--out", "--rows"),
        *("--devices", "--coordinator", "--processes", "--process"),
    ],
    "gain": ["--kind", "--q", "--out", "tanh", "relu"],
    "theory": ["tanh", "--sigma-w", "--sigma-b", "--grid", "--depth", "--edges", "--input-correlation", "--out"],
    "train": ["--activations", "--inits", "--depths", "--learning-rates", "--seeds", "--steps", "--batch", "--out"],
    "draw": ["broken.nc", "other.nc", "empty.nc", "--out", "none.nc", "folder"],
    "status": ["folder", "none", "broken.nc", "readonly"],
    "swep": ["--width"],
    "": ["--help", "--version", "--helpp", "--versio"],
}
VALUES = [
    *("0", "-1", "1", "3", "nan", "inf", "-inf", "1e400", "1e-400", "99999999999999999999999", "2**64", "1/0", "5/3"),
    *(
        "",
        " ",
        "tanh",
        "tahn",
        "relu(",
        "tanh(2x",
        "Ünïcødé",
        "漢字",
        "\u202e",
        "☃",
        "'",
        '"',
        "--",
        "-",
        "none",
        "None",
    ),
    *(
        "sqrt(-1)",
        "0.5:3:64",
        "3:0.5:0",
        "0:1:99999999999",
        "true",
        "[1,2]",
        "../../x",
        "folder",
        "readonly/x",
        "none.nc",
    ),
    *("__import__('os').system('false')", "%s%n", "a" * 5000, "forward", "dense", "normal", "orthogonal", "named"),
    *("\n", "1\n2", "0x10", "1_000", "1e9", "3.5", "{}", "$HOME", "~", "*", "file/x", "/dev/null/x", "0.1", "residual"),
]
CODES = {0, 1, 2, 130}


def command_lines(count):
    """So many command lines, always the same."""
    choose = random.Random(8)
    for _ in range(count):
        command = choose.choice([*FLAGS, "sweep", "sweep", "theory"])
        words = [command] if command else []
        for _ in range(choose.choice([1, 1, 2, 3])):
            flag = choose.choice(FLAGS[command])
            if choose.random() < 0.1:
                flag = flag.replace(choose.choice(flag), choose.choice("xé-"), 1)
            words += [flag, *choose.choices(VALUES, k=choose.choice([0, 1, 1, 1, 2]))]
        yield words


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with files that are no datasets, and a folder that cannot be written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "empty.nc").write_bytes(b"")
    save_dataset(xarray.Dataset({"x": ("y", np.arange(3))}), tmp_path / "other.nc")
    whole = (tmp_path / "other.nc").read_bytes()
    (tmp_path / "broken.nc").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "readonly").mkdir(mode=0o500)
    return tmp_path


def contents(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


class Reached(Exception):
    """The words were accepted: what they ask for would be computed now."""


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """Every command stops where its words have been read, and the long work would begin."""

    def reached(*_, **__):
        raise Reached

    monkeypatch.setattr(sweep, "stoppable", reached)
    monkeypatch.setattr(sweep, "prepare_jax", lambda *_: None)
    monkeypatch.setattr(train, "prepare_jax", reached)
    monkeypatch.setattr(portrait, "default_init", reached)
    monkeypatch.setattr(gains, "gain", reached)
    monkeypatch.setattr(gains, "gain_table", reached)


def run(words, capsys):
    """Exit code, stdout and stderr of a command line in this process; None where it was accepted."""
    try:
        cli.main(words)
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except Reached:
        code = None
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.slow
def test_no_command_line_ends_in_a_traceback_or_leaves_a_partial_file(place, nothing_is_computed, capsys):
    before = contents(place)
    codes = []
    for words in command_lines(500):
        code, out, err = run(words, capsys)
        codes.append(code)
        assert code in CODES or code is None, words
        assert "Traceback" not in out + err, words
        if code:
            assert err.startswith("jaxgain: ") and err.count("\n") == 1, (words, err)
            assert out == "", words
        assert contents(place) == before, words
    assert codes.count(2) > 300
    assert None in codes and 0 in codes


@pytest.mark.slow
def test_command_lines_as_processes_end_as_they_do_here(place, shell):
    before = contents(place)
    for words in [words for words in command_lines(500) if "\0" not in "".join(words)][:400:40]:
        ran = shell(*words, cwd=place)
        assert ran.returncode in CODES, words
        assert "Traceback" not in ran.stdout + ran.stderr, words
        if ran.returncode:
            assert ran.stderr.startswith("jaxgain: ") and ran.stderr.count("\n") == 1, words
            assert contents(place) == before, words


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_dataset_is_refused_in_one_line(tmp_path, capsys, kept):
    dataset = xarray.Dataset({"x": ("y", np.arange(1000.0))}, attrs={"config": "{}", "config_hash": "0"})
    save_dataset(dataset, tmp_path / "a.nc")
    whole = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "a.nc").write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    code, out, err = run(["draw", str(tmp_path / "a.nc")], capsys)
    assert (code, out) == (2, "")
    assert err.startswith("jaxgain: cannot read the dataset") and err.count("\n") == 1


@pytest.mark.slow
def test_a_dataset_with_any_damage_is_read_or_refused_and_nothing_else(tmp_path, capsys):
    dataset = xarray.Dataset({"x": ("y", np.arange(50.0))}, attrs={"config": "{}", "config_hash": "0"})
    save_dataset(dataset, tmp_path / "a.nc")
    whole = bytearray((tmp_path / "a.nc").read_bytes())
    choose = random.Random(1)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(choose.choice([1, 10, 100])):
            damaged[choose.randrange(len(whole))] = choose.randrange(256)
        (tmp_path / "a.nc").write_bytes(damaged)
        code, _, err = run(["draw", str(tmp_path / "a.nc")], capsys)
        assert code in CODES and "Traceback" not in err
        assert err.count("\n") == 1
