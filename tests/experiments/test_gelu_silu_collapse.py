import numpy as np
import pytest
import xarray
from matplotlib.image import imread

from experiments import gelu_silu_collapse
from experiments.gelu_silu_collapse import SMOKE, CollapseConfig, inits, judge, main, run


@pytest.mark.slow
def test_a_tiny_run_prints_a_row_per_initialization_and_draws(tmp_path, capsys):
    main(["--out", str(tmp_path)], default=SMOKE)
    printed = capsys.readouterr().out
    assert printed.count("geometric mean of E h²") == 8 and "3 networks each. The claim FAILS in" in printed
    assert imread(tmp_path / "gelu_silu_collapse.png").std() > 0.05


def test_every_network_starts_at_mean_square_1_and_meets_its_own_initialization():
    dataset = run(SMOKE)
    np.testing.assert_allclose(dataset["power"].isel(layer=0), 0.0, atol=1e-6)
    silu = dataset.sel(activation="silu").sel(init="critical")
    assert float(silu["sigma_b"]) == pytest.approx(0.55514317072**0.5, rel=1e-10)
    assert float(dataset["sigma_b"].sel(init="√2").max()) == 0.0


def made(**ends):
    """Sixteen networks per initialization that end at so many powers of ten, evenly spread over twice that."""
    spread = np.linspace(0, 2, 16)
    power = [[np.outer(end * spread, [0.0, 1.0]) for end in ends.values()]] * 2
    coords = {"activation": ["silu", "gelu"], "init": list(inits("gelu"))}
    return xarray.Dataset({"power": (("activation", "init", "seed", "layer"), np.array(power))}, coords=coords)


def test_the_claim_is_judged_as_it_is_written():
    assert all(holds for _, holds in judge(made(a=0.5, b=-28.0, c=6.0, d=13.0)))
    assert not any(holds for _, holds in judge(made(a=1.5, b=-3.0, c=3.0, d=9.0)))


@pytest.mark.parametrize(
    ("ends", "wrong"), [(dict(a=0.5, b=28.0, c=6.0, d=13.0), "√2"), (dict(a=0.5, b=-28.0, c=-6.0, d=13.0), "forward")]
)
def test_a_loss_in_the_other_direction_is_not_the_claimed_one(ends, wrong):
    assert [words.split()[1] for words, holds in judge(made(**ends)) if not holds] == [wrong, wrong]


@pytest.mark.slow
def test_the_claim_holds_at_its_own_sizes():
    assert all(holds for _, holds in judge(run(CollapseConfig())))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--width", "0"], "width must be at least 1, got 0"), (["--seeds", "many"], "--seeds")],
)
def test_a_bad_option_is_one_line(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        gelu_silu_collapse.main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in error and error.count("\n") == 1
