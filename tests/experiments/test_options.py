"""A bad option of an experiment is one line at the shell."""

from importlib import import_module

import pytest

from experiments.verdicts import NAMES

REFUSED = {
    "critical_trains": (["--depth", "0"], "depths must be at least 1, got 0"),
    "gelu_silu_collapse": (["--width", "0"], "width must be at least 1, got 0"),
    "trainable_depth": (["--sigma-w", "wide"], "unknown gain 'wide'"),
    "training_speed": (["--widths", "0"], "widths must be at least 1, got 0"),
    "vanishing_maps": (["--depth", "0"], "depth"),
}
CASES = [(name, *case) for name, case in REFUSED.items()]
CASES += [(name, ["--out", "/dev/null"], "cannot write to the folder /dev/null") for name in sorted({*REFUSED, *NAMES})]
CASES += [
    ("critical_trains", ["--seeds", "many"], "--seeds"),
    ("gelu_silu_collapse", ["--seeds", "many"], "--seeds"),
    ("gelu_silu_collapse", ["--seeds", "16", "--networks", "8"], "seeds must be at least 2 and at most networks, got"),
    ("trainable_depth", ["--seeds", "many"], "--seeds"),
    ("training_speed", ["--rounds", "0"], "rounds must be at least 1, got 0"),
    ("training_speed", ["--looped", "9"], "looped must be at most the number of inits, 4, got 9"),
    ("vanishing_maps", ["--networks", "many"], "--networks"),
    ("benchmark", ["--rounds", "0"], "rounds must be at least 1, got 0."),
    (
        "benchmark",
        ["--depths", "10"],
        "depths must be at least two rising numbers, got [10]; a line is fitted",
    ),
    ("benchmark", ["--activations", "geluu"], "unknown activation 'geluu'; did you mean"),
    ("benchmark", ["--diagrams", "geluu"], "unknown activation 'geluu'; did you mean"),
    ("benchmark", ["--only"], "only must name a part, one of job, dense, scaling, diagrams."),
    ("benchmark", ["--only", "speed"], "invalid choice 'speed'"),
    ("benchmark", ["--width", "wide"], "--width: invalid literal"),
    ("benchmark", ["--out", "/dev/null"], "cannot write to the folder /dev/null"),
]


IDS = [f"{name} {' '.join(words)}" for name, words, _ in CASES]


@pytest.mark.parametrize(("name", "words", "sentence"), CASES, ids=IDS)
def test_a_bad_option_is_one_line(name, words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        import_module(f"experiments.{name}").main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith(f"{name}: ") and sentence in error and error.count("\n") == 1
    assert error.endswith(f"See python -m experiments.{name} --help\n")
