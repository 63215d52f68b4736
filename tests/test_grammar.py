import math
import subprocess
import sys

import pytest

from jaxgain.grammar import Call, number, split_call


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5/3", 5 / 3),
        ("sqrt(2)", math.sqrt(2)),
        ("1e-3", 1e-3),
        ("pi", math.pi),
        ("2*sqrt(2)", 2 * math.sqrt(2)),
        (" -1 ", -1.0),
        ("2**0.5", math.sqrt(2)),
        ("1/(1 + 1)", 0.5),
        ("exp(1) - e", 0.0),
    ],
)
def test_numbers_are_read_as_written(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,2",
     "nan", "inf", "1e999", "1/0", "(-1)**0.5", "sqrt(-1)", "9**9**9**9", "True", "'1'", "[1]",
     "1 if 1 else 2", "__import__('os')", "sqrt", "sqrt(1, 2)", "().__class__", "lambda: 1", "1;2",
     "1+" * 300 + "1"],
)  # fmt: skip
def test_everything_else_is_one_value_error(text):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        number(text)


def test_a_number_that_is_no_text_is_a_type_error():
    with pytest.raises(TypeError, match="must be text"):
        number(3)  # type: ignore


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("gelu", Call("gelu", (), 1.0)),
        ("gelu()", Call("gelu", (), 1.0)),
        (" leaky_relu( 0.2 ) ", Call("leaky_relu", (0.2,), 1.0)),
        ("leaky_relu(1/5, 2x)", Call("leaky_relu", (0.2,), 2.0)),
        ("tanh(x)", Call("tanh", (), 1.0)),
        ("tanh(2x)", Call("tanh", (), 2.0)),
        ("tanh(1.81x)", Call("tanh", (), 1.81)),
        ("tanh(2x/3)", Call("tanh", (), 2 / 3)),
        ("tanh(2*x/3)", Call("tanh", (), 2 / 3)),
        ("tanh(x/2)", Call("tanh", (), 0.5)),
        ("tanh(1e3x)", Call("tanh", (), 1e3)),
        ("tanh(sqrt(2)x)", Call("tanh", (), math.sqrt(2))),
        ("tanh(sqrt(2))", Call("tanh", (math.sqrt(2),), 1.0)),
        ("relu6(-x)", Call("relu6", (), -1.0)),
    ],
)
def test_a_call_splits_into_name_parameters_and_input_scale(text, call):
    assert split_call(text) == call


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2x",
        "tanh(x+1)",
        "tanh(x*x)",
        "tanh(2/x)",
        "tanh(0x)",
        "tanh(2x",
        "tanh(2x))",
        "elu(2x, 1)",
        "elu(a)",
    ],
)
def test_a_call_that_cannot_be_read_is_one_value_error(text):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        split_call(text)


def test_names_are_known_without_importing_numpy_or_jax():
    code = "import sys, jaxgain.activations as a; a.activation('gelu'); print({'jax', 'numpy'} & {*sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
