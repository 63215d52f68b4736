import dataclasses

import pytest

from jaxgain.cli.probe import Probe
from jaxgain.probing.verdicts import Limits
from jaxgain.runs.files import load_dataset

FACTORIES = """
import jax, jax.numpy as jnp

def mlp(weights, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]

def healthy():
    return mlp, jax.random.normal(jax.random.key(0), (4, 32, 32)) / 32**0.5, jnp.ones((2, 32))

def sick():
    _, weights, x = healthy()
    return mlp, 0.01 * weights, x

def number(): return 3
def crossed(): return lambda w, x: x @ w, jnp.ones((3, 4)), jnp.ones((2, 5))
def raising(): raise KeyError("no such file")
def wanting(depth): return healthy()
def vector(output): return output
def square(output): return jnp.sum(output.astype(jnp.float32) ** 2)
def nothing(): return lambda x: x + 1, jnp.ones(3)
value = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORIES)
    return tmp_path


def test_a_healthy_model_has_a_table_a_dataset_and_a_figure(shell, folder):
    ran = shell("probe", "mine:healthy", "--loss", "mine:square", "--dtype", "bfloat16", "--out", "out", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert "weights[3]" in ran.stdout and "All 4 sites are healthy." in ran.stdout
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["probe.nc", "probe.png"]
    dataset = load_dataset(folder / "out" / "probe.nc")
    assert dataset["dtype"].values.tolist() == ["bfloat16"] * 4 and dataset.attrs["cotangent"] == "loss"
    drawn = shell("draw", "out/probe.nc", "--out", "again.svg", cwd=folder)
    assert drawn.returncode == 0, drawn.stderr
    assert (folder / "again.svg").exists()


def test_a_model_that_is_not_healthy_ends_with_code_1(shell, folder):
    ran = shell("probe", "mine:sick", cwd=folder)
    assert ran.returncode == 1 and "vanishes" in ran.stdout and ran.stderr == ""


REFUSED = {
    ("mine",): "a model is named as package.module:factory, got 'mine'",
    ("nine:healthy",): "there is no module 'nine'; run from the folder it is in, or install it",
    ("mine:healty",): "mine has no 'healty'; did you mean 'healthy'?",
    ("mine:value",): "mine:value is not a function but int",
    ("mine:number",): "mine:number returned int; return a tuple of the model and its inputs",
    ("mine:raising",): "mine:raising() raised KeyError: 'no such file'",
    ("mine:wanting",): "mine:wanting needs depth; a factory is called without arguments",
    ("mine:crossed",): "the model does not trace: TypeError: dot_general requires contracting dimensions",
    ("mine:nothing",): "no linear operation",
    ("mine:healthy", "--loss", "mine:vector"): "the loss must be a scalar",
    ("mine:healthy", "--loss", "mine:square", "--cotangent", "sum"): "give --loss or --cotangent, not both",
    ("mine:healthy", "--vanishing", "2"): "vanishing must be below 1",
    ("mine:healthy", "--dtype", "int8"): "invalid choice 'int8'",
}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, marks=[] if words in list(REFUSED)[:1] + list(REFUSED)[7:8] else pytest.mark.slow)
        for words in REFUSED
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_code_2(shell, folder, words):
    ran = shell("probe", *words, cwd=folder)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith("jaxgain: ") and REFUSED[words] in ran.stderr
    assert not (folder / "jaxgain-probe").exists()


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_bad_input_is_refused_in_this_process_too(folder, words, monkeypatch, capsys):
    import sys

    from jaxgain.cli.probe import run

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("jaxgain.cli.probe.prepare_jax", lambda: None)
    sys.modules.pop("mine", None)
    with pytest.raises(SystemExit) as stop:
        run(words)
    assert stop.value.code == 2 and REFUSED[words] in capsys.readouterr().err


def test_the_limits_at_the_shell_are_those_of_the_verdicts():
    options = {field.name: field.default for field in dataclasses.fields(Probe)}
    for field in dataclasses.fields(Limits):
        assert options[field.name] == field.default
