import json

import pytest

from jaxgain.training.config import TrainConfig


def test_lone_values_become_tuples_and_ranges_numbers():
    config = TrainConfig(activations="tanh", inits="1", depths=5, widths="32", learning_rates="0.1:0.3:3")
    assert (config.activations, config.depths, config.widths) == (("tanh",), (5,), (32,))
    assert config.learning_rates == (0.1, 0.2, 0.3)


def test_the_json_holds_every_setting_and_the_same_settings_give_the_same_json():
    config = TrainConfig(inits=("critical", 1), layer_rates="1/l")
    assert TrainConfig(**json.loads(config.to_json())) == config
    assert config.hash() != TrainConfig(inits=("critical", 1)).hash()


def test_rates_of_layers_are_an_expression_three_numbers_or_all():
    assert TrainConfig(depths=2, layer_rates="l/L").rates_of_layers(2) == (1 / 3, 2 / 3, 1.0)
    assert TrainConfig(depths=4, layer_rates=(2, 1, 0)).rates_of_layers(4) == (2, 1, 1, 1, 0)
    assert TrainConfig(depths=3, layer_rates=(4, 3, 2, 1)).rates_of_layers(3) == (4, 3, 2, 1)
    residual = TrainConfig(depths=2, layer_rates="l", block="residual", inits="forward")
    assert residual.rates_of_layers(2) == (1, 2, 3, 4)  # one layer in front of the blocks


BAD = [
    ({"depths": 0}, ValueError, "depths must be at least 1, got 0"),
    ({"widths": (10, 0)}, ValueError, "widths must be at least 1, got 0"),
    ({"depths": ()}, ValueError, "depths must not be empty"),
    ({"learning_rates": 0}, ValueError, "learning_rates must be finite and above 0, got 0"),
    ({"learning_rates": -0.1}, ValueError, "learning_rates must be finite and above 0, got -0.1"),
    ({"learning_rates": float("nan")}, ValueError, "learning_rates must be finite and above 0"),
    ({"learning_rates": ()}, ValueError, "learning_rates must not be empty"),
    ({"optimizer": "adamm"}, ValueError, "unknown optimizer 'adamm'; did you mean 'adam'?"),
    ({"inits": "critcal"}, ValueError, "unknown gain 'critcal'; did you mean 'critical'?"),
    ({"inits": ()}, ValueError, "inits must not be empty; give at least one, e.g. inits=("),
    ({"inits": -1.0}, ValueError, "gains must be finite and at least 0"),
    ({"activations": "tahn"}, ValueError, "tanh"),
    ({"dataset": "digit"}, ValueError, "unknown dataset 'digit'; did you mean 'digits'?"),
    ({"schedule": "cosin"}, ValueError, "did you mean 'cosine'?"),
    ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    ({"batch": 1.5}, TypeError, "batch must be a whole number, got 1.5"),
    ({"steps": 70}, ValueError, "steps must be a multiple of measure_every, got 70 and 50"),
    ({"gradient_every": 20}, ValueError, "measure_every must be a multiple of gradient_every, got 50 and 20"),
    ({"sigma_b": -1.0}, ValueError, "sigma_b must be finite and at least 0"),
    ({"clip": 0}, ValueError, "clip must be finite and positive"),
    ({"seed": 2**32}, ValueError, "seed must be below 2**32"),
    ({"layer_rates": "1/k"}, ValueError, "cannot read layer_rates '1/k'"),
    ({"layer_rates": (1, 2)}, ValueError, "3 numbers or one for each of 3 layers, got 2"),
    ({"layer_rates": "-l"}, ValueError, "layer_rates must be finite and at least 0"),
    ({"block": "residual"}, ValueError, "block 'residual' takes kinds of gains as inits"),
]


@pytest.mark.parametrize(("settings", "error", "sentence"), BAD, ids=[case[2] for case in BAD])
def test_bad_input_is_one_sentence(settings, error, sentence):
    with pytest.raises(error) as raised:
        TrainConfig(**settings)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)
