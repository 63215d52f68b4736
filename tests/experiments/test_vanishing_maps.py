import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from experiments import vanishing_maps
from experiments.vanishing_maps import SMOKE, MapsConfig, draw, judge, main, run


@pytest.fixture(scope="module")
def small():
    return run(MapsConfig(grid=15, networks=1000))


def test_a_tiny_run_prints_a_row_per_part_and_draws(tmp_path, capsys):
    main(["--out", str(tmp_path)], default=SMOKE)
    printed = capsys.readouterr().out
    assert printed.count("by area:") == 2 and printed.count("P(vanish)") == 3
    assert "40 chains each. The claim " in printed
    assert imread(tmp_path / "vanishing_maps.png").std() > 0.05


def test_the_claim_holds_on_a_coarse_grid_at_its_own_depth(small):
    assert [holds for _, holds in judge(small)] == [True] * 5


def judged(found, **replaced):
    return [holds for _, holds in judge(found | replaced)]


def test_a_map_in_the_wrong_order_is_not_as_claimed(small):
    backwards = small["scales"].copy(deep=True)
    backwards["outcome"].values[:] = backwards["outcome"].values[::-1]
    assert judged(small, scales=backwards)[0] is False


def test_a_map_that_explodes_or_survives_too_often_is_not_as_claimed(small):
    for word, share in (("explodes", 1), ("survives", 40)):
        other = small["weights"].copy(deep=True)
        other["outcome"].values.reshape(-1)[:share] = word
        assert judged(small, weights=other)[1] is False


def test_probabilities_of_the_wrong_n_are_not_as_claimed(small):
    swapped = small["chances"].isel(scale=[1, 0, 2]).assign_coords(scale=small["chances"]["scale"].values)
    assert judged(small, chances=swapped)[2:] == [False, False, True]


def test_the_curves_are_the_probabilities(small):
    figure = Figure()
    draw(figure, small)
    lines = figure.axes[2].lines
    assert [line.get_label() for line in lines] == ["n = 1", "n = 2", "n = 5"]
    for line, n in zip(lines, (1, 2, 5), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), small["chances"]["vanishing"].sel(scale=n))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--depth", "0"], "depth"), (["--networks", "many"], "--networks")],
)
def test_a_bad_option_is_one_line(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        vanishing_maps.main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in error and error.count("\n") == 1
