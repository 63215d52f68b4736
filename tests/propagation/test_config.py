import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.propagation.config import GAIN_KINDS, STATISTICS, SweepConfig, read_gains
from jaxgain.theory.gains import KINDS


def test_the_contract_example_is_legal():
    config = SweepConfig(activations=("tanh",), gains=(1.0, 5 / 3), width=1000, depth=100, seeds=16)
    assert read_gains(config.gains) == ((1.0, 5 / 3), ())


def test_the_kinds_of_gains_are_those_of_the_theory():
    assert GAIN_KINDS == KINDS


def test_the_default_grid_contains_three_quarters_and_one_exactly():
    numbers, kinds = read_gains(SweepConfig().gains)
    assert {0.5, 0.75, 1.0, 3.0} <= set(numbers)
    assert len(numbers) == 11
    assert kinds == GAIN_KINDS


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5/3", 5 / 3),
        ("sqrt(2)", math.sqrt(2)),
        (" 1 ", 1.0),
        (2, 2.0),
        (np.float32(0.5), 0.5),
        (0, 0.0),
    ],
)
def test_a_gain_is_a_number_however_written(written, meant):
    assert SweepConfig(gains=[written]).gains == (meant,)


def test_a_range_has_both_ends_and_the_decimals_that_were_meant():
    assert read_gains(["0.1:0.5:5"])[0] == (0.1, 0.2, 0.3, 0.4, 0.5)


def test_numbers_ranges_and_kinds_are_gathered_without_repetition():
    assert read_gains(["torch", 2, "1:2:2", "forward", "sqrt(4)"]) == ((1.0, 2.0), ("forward", "torch"))
    assert read_gains(["named"]) == ((), GAIN_KINDS)


def test_lists_arrays_and_lone_values_become_tuples():
    config = SweepConfig(activations="tanh", gains=np.linspace(0, 1, 3), statistics=["std"])
    assert (config.activations, config.gains, config.statistics) == (("tanh",), (0.0, 0.5, 1.0), ("std",))
    assert SweepConfig(gains=1.5).gains == (1.5,)


NOT_LEGAL = [
    ({"gains": ["1", "nan"]}, ValueError, "gains must be finite and at least 0, got 'nan' at position 1"),
    ({"gains": [float("nan")]}, ValueError, "finite and at least 0, got nan"),
    ({"gains": [float("inf")]}, ValueError, "finite and at least 0, got inf"),
    ({"gains": [-1]}, ValueError, "finite and at least 0, got -1"),
    ({"gains": ["0:inf:3"]}, ValueError, "finite and at least 0"),
    ({"gains": []}, ValueError, "gains must not be empty"),
    ({"gains": [None]}, TypeError, "a gain must be a number or a string, got None"),
    ({"gains": [True]}, TypeError, "a gain must be a number or a string, got True"),
    ({"gains": ["forwrad"]}, ValueError, "did you mean 'forward'"),
    ({"gains": ["5/0"]}, ValueError, "cannot read the gain '5/0'"),
    ({"gains": ["1:2"]}, ValueError, "start:stop:count"),
    ({"gains": ["1:2:1"]}, ValueError, "count of at least 2"),
    ({"gains": ["2:1:3"]}, ValueError, "must rise"),
    ({"width": 0}, ValueError, "width must be at least 1, got 0"),
    ({"depth": 0}, ValueError, "depth must be at least 1, got 0"),
    ({"seeds": 0}, ValueError, "seeds must be at least 1, got 0"),
    ({"seeds": True}, TypeError, "seeds must be a whole number, got True"),
    ({"width": 10.0}, TypeError, "width must be a whole number, got 10.0"),
    ({"seed": -1}, ValueError, "seed must be at least 0"),
    ({"seed": 2**32}, ValueError, "larger ones repeat smaller ones"),
    ({"activations": ()}, ValueError, "activations must not be empty"),
    ({"activations": ["tahn"]}, ValueError, "tanh"),
    ({"activations": [3]}, TypeError, "an activation must be a name or an elementwise callable"),
    ({"activations": ["tanh", "tanh"]}, ValueError, "activations must differ"),
    ({"weights": "dens"}, ValueError, "did you mean 'dense'"),
    ({"cotangent": "none"}, ValueError, "unknown cotangent 'none'"),
    ({"distribution": "unform"}, ValueError, "unknown distribution 'unform'; did you mean 'uniform'?"),
    ({"distribution": "uniform"}, ValueError, "matrix_free weights are normal or orthogonal, got uniform; use weights"),
    ({"tied": True}, ValueError, "tied = True needs the matrices themselves; use weights='dense'"),
    ({"dtype": "bfloat16"}, ValueError, "dtype = 'bfloat16' needs the matrices themselves"),
    ({"block": "residul"}, ValueError, "unknown block 'residul'; did you mean 'residual'?"),
    ({"block": "batchnorm", "inputs": 1}, ValueError, "batchnorm needs at least 2 inputs"),
    ({"branch": "three"}, ValueError, "unknown branch 'three'"),
    ({"alpha": 0.5}, ValueError, "alpha multiplies the branch of a residual block, and block is 'plain'"),
    ({"alpha": float("nan"), "block": "residual"}, ValueError, "alpha must be finite, got nan"),
    ({"alpha": "1/M", "block": "residual"}, ValueError, "cannot read alpha '1/M'"),
    ({"alpha": (1, 1.0), "block": "residual"}, ValueError, "alpha must differ, got 1.0 twice"),
    ({"alpha": (), "block": "residual"}, ValueError, "alpha must not be empty"),
    ({"width": (3, 4)}, ValueError, "width must be one number, or depth + 1 = 101 of them, input first, got 2"),
    ({"width": (3, 4, 5), "depth": 2, "block": "residual"}, ValueError, "so all widths must be equal, got (3, 4, 5)"),
    ({"width": ()}, ValueError, "width must not be empty"),
    ({"width": "wide"}, ValueError, "width must be a whole number, got 'wide'"),
    ({"width": (3, 4, 5), "depth": 2, "depths": (1,)}, ValueError, "depths need one width"),
    (
        {"width": (3, 4, 5), "depth": 2, "weights": "dense", "tied": True},
        ValueError,
        "tied weights are one matrix, so width must be one number, got (3, 4, 5)",
    ),
    ({"depths": (3,), "readout_gain": 2.0}, ValueError, "depths are networks that end there"),
    ({"depths": (3,), "block": "residual", "alpha": "1/L"}, ValueError, "depths are networks that end there"),
    ({"widths": (10, 10)}, ValueError, "widths must differ"),
    ({"widths": (10, 0)}, ValueError, "widths must be at least 1, got 0"),
    ({"directions": 5, "width": 4}, ValueError, "directions must be at most the width, 4, got 5"),
    ({"sparsity": 1.0}, ValueError, "sparsity must be at least 0 and below 1"),
    ({"sparsity": 0.5}, ValueError, "sparsity = 0.5 would change nothing: it is of the distribution 'sparse'"),
    (
        {"mode": "fan_out", "weights": "dense", "distribution": jax.nn.initializers.he_normal()},
        ValueError,
        "mode = 'fan_out' would change nothing: an initializer brings its own scale; leave it out",
    ),
    ({"norm": "rmsnorm"}, ValueError, "norm = 'rmsnorm' would change nothing: it is of the blocks 'prenorm' and"),
    (
        {"block": lambda linear, phi, h: phi(linear(h)), "branch": "glu"},
        ValueError,
        "branch = 'glu' would change nothing: a block of yours is all of a layer",
    ),
    ({"depth": 1, "first_gain": 1.0, "readout_gain": 2.0}, ValueError, "are of the same layer where depth is 1"),
    ({"dropout": -0.1}, ValueError, "dropout must be at least 0 and below 1"),
    ({"layer_gains": (1.0, 2.0)}, ValueError, "layer_gains must be one number per layer, 100, got 2"),
    ({"first_gain": -1.0}, ValueError, "first_gain must be finite and at least 0"),
    ({"sigma_b": "0:1"}, ValueError, "a range of sigma_b is start:stop:count"),
    ({"sigma_b": "much"}, ValueError, "cannot read sigma_b 'much'"),
    ({"statistics": ["stdd"]}, ValueError, "did you mean 'std'"),
    ({"sigma_b": -0.1}, ValueError, "sigma_b must be finite and at least 0"),
    ({"sigma_b": float("nan")}, ValueError, "sigma_b must be finite"),
    ({"sigma_b": [None]}, TypeError, "sigma_b must be a number"),
    ({"input_scale": 0.0}, ValueError, "input_scale must be finite and positive"),
    ({"input_correlation": 1.5}, ValueError, "between -1 and 1"),
    ({"input_correlation": 0.5, "inputs": 1}, ValueError, "set inputs=2"),
    ({"input_correlation": 0.5, "width": 1}, ValueError, "width 1"),
    ({"keep_inputs": 1}, TypeError, "keep_inputs must be True or False"),
    ({"depths": [0]}, ValueError, "depths must be at least 1, got 0"),
    ({"depths": [101]}, ValueError, "depths must be at most the depth, 100, got 101"),
    ({"depths": ["ten"]}, TypeError, "depths must be a whole number, got 'ten'"),
    ({"depths": 1.5}, TypeError, "depths must be a whole number, got 1.5"),
    ({"depths": "1:4"}, ValueError, "a range of depths is start:stop:count"),
    ({"memory": 0}, ValueError, "memory must be finite and positive, in GiB"),
]


@pytest.mark.parametrize(("settings", "error", "sentence"), NOT_LEGAL, ids=[case[2] for case in NOT_LEGAL])
def test_bad_input_is_one_sentence_with_what_came(settings, error, sentence):
    with pytest.raises(error) as raised:
        SweepConfig(**settings)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_json_holds_every_setting_and_the_same_settings_give_the_same_json():
    config = SweepConfig(gains=("5/3", "forward"))
    fields = json.loads(config.to_json())
    assert SweepConfig(**fields) == config
    assert fields["statistics"] == list(STATISTICS)
    assert config.to_json() == SweepConfig(gains=[5 / 3, "forward"]).to_json()


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        ("shape", ValueError, "must return float32 (1000, 1000), as it was asked for, got float32 (3,)"),
        ("dtype", ValueError, "must return float32 (1000, 1000), as it was asked for, got int32 (1000, 1000)"),
        ("call", TypeError, "an initializer is called as init(key, shape, dtype)"),
    ],
)
def test_a_users_initializer_that_returns_something_else_is_refused(wrong, error, sentence):
    initializers = {
        "shape": lambda key, shape, dtype: jnp.ones(3, dtype),
        "dtype": lambda key, shape, dtype: jnp.ones(shape, "int32"),
        "call": lambda: 0,
    }
    with pytest.raises(error) as raised:
        SweepConfig(distribution=initializers[wrong], weights="dense")
    assert sentence in str(raised.value)


def test_what_is_swept_beside_the_gain_rises_and_is_written_in_any_way():
    config = SweepConfig(sigma_b="0:0.2:3", widths=(30, 10), block="residual", alpha=("1/sqrt(L)", "1/L", 1), depth=4)
    assert config.swept() == {"width": (10, 30), "sigma_b": (0.0, 0.1, 0.2), "alpha": (0.25, 0.5, 1.0)}
    assert SweepConfig(input_correlation=(0.9, 0.5)).swept() == {"input_correlation": (0.5, 0.9)}
    assert SweepConfig(sigma_b="1/2").sigma_b == 0.5 and SweepConfig().swept() == {}


def test_equal_widths_are_one_width():
    assert SweepConfig(width=(7, 7, 7), depth=2).width == 7
    assert SweepConfig(width=(7, 8, 7), depth=2).width == (7, 8, 7)


def test_a_users_block_and_initializer_are_known_by_what_they_compute():
    def block(factor):
        return lambda linear, phi, h: factor * phi(linear(h))

    hashes = [SweepConfig(block=block(factor)).hash() for factor in (1.0, 1.0, 2.0)]
    assert hashes[0] == hashes[1] != hashes[2]
    draws = [lambda key, shape, dtype, by=by: by * jnp.ones(shape, dtype) for by in (1.0, 1.0, 2.0)]
    hashes = [SweepConfig(distribution=draw, weights="dense").hash() for draw in draws]
    assert hashes[0] == hashes[1] != hashes[2]


def test_final_depths_rise_and_end_with_the_whole_depth():
    assert SweepConfig(depths=["10:30:3", 7, "7"]).depths == (7, 10, 20, 30, 100)
    assert SweepConfig().depths == ()


@pytest.mark.parametrize(
    "change",
    [
        {"depths": [3]},
        {"seed": 1},
        {"gains": ["5/3"]},
        {"record_every": 2},
        {"sigma_b": 0.1},
        {"widths": (10, 20)},
        {"block": "prenorm"},
        {"branch": "glu"},
        {"distribution": "orthogonal"},
        {"dropout": 0.1},
    ],
)
def test_the_hash_changes_with_every_setting_that_changes_a_result(change):
    assert SweepConfig(**change).hash() != SweepConfig().hash()


def test_the_hash_does_not_depend_on_memory():
    assert SweepConfig(memory=1.0).hash() == SweepConfig().hash()


def test_activations_are_labelled_by_the_name_they_were_given():
    config = SweepConfig(activations=("swish", activation("tanh(2x)")))
    assert config.activation_names() == ("swish", "tanh(2x)")


def test_callables_are_labelled_by_what_they_compute():
    one, same, other = (
        SweepConfig(activations=[phi]).activation_names()[0]
        for phi in (lambda x: jnp.tanh(3 * x), lambda x: jnp.tanh(3 * x), lambda x: jnp.tanh(2 * x))
    )
    assert one == same != other
    assert one.startswith("<lambda>-")


@pytest.mark.slow
def test_the_label_of_a_callable_is_the_same_in_another_process():
    program = (
        "import jax; from jaxgain.propagation.config import SweepConfig; "
        "print(SweepConfig(activations=[lambda x: jax.nn.relu(x) + jax.nn.selu(x)]).hash())"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout != ""


@pytest.mark.parametrize("gain", [1e39, 1e-39])
def test_gains_beyond_float32_are_refused(gain):
    with pytest.raises(ValueError, match=r"between 1\.2e-38 and 3\.4e38"):
        SweepConfig(gains=(gain,))


def test_recording_less_often_than_once_is_refused():
    with pytest.raises(ValueError, match="record_every must be at most the depth, 5, got 6"):
        SweepConfig(depth=5, record_every=6)
