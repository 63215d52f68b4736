import numpy as np
import pytest
import xarray

from experiments.training_speed import LOOPS, SMOKE, grid_of, judge, main, measure, ratios

WAYS = ("jaxgain", *LOOPS)


def made(jitted, *, apart=1e-6):
    """Networks of the sizes of the claim and a larger one, at which nothing is faster."""
    seconds = np.ones((len(WAYS), 2, 2, 3))
    seconds[WAYS.index("nnx.jit"), 0] = 9
    seconds[WAYS.index("nnx.jit"), 1, 0] = 9
    seconds[WAYS.index("nnx.jit"), 0, 0] = jitted
    difference = np.zeros((len(LOOPS), 2, 2, 5))
    difference[1, 0, 0, 4] = apart
    return xarray.Dataset(
        {
            "seconds": (("way", "depth", "width", "round"), seconds),
            "difference": (("loop", "depth", "width", "step"), difference),
        },
        coords={"way": list(WAYS), "loop": list(LOOPS), "depth": [2, 10], "width": [16, 64]},
    )


def test_the_loop_in_nnx_jit_is_judged_by_its_median_at_the_sizes_of_the_claim():
    assert judge(made([7, 8, 2])) == {"ratio": 7.0, "difference": 1e-6, "difference_anywhere": 1e-6}
    assert judge(made([20, 30, 40]))["ratio"] == 9.0


def test_ratios_are_those_of_one_round():
    dataset = made([9, 9, 9])
    dataset["seconds"].loc[{"way": "jaxgain", "round": 1}] = 3
    assert ratios(dataset).sel(way="nnx.jit", depth=2, width=16).values.tolist() == [9, 3, 9]


@pytest.mark.slow
def test_every_loop_learns_what_the_scanned_grid_learns():
    seconds, apart = next(measure(grid_of(SMOKE, 3, 16), looped=2))
    assert len(seconds) == len(WAYS) and min(seconds) > 0
    assert np.shape(apart) == (len(LOOPS), SMOKE.steps)
    assert np.max(apart) < 1e-5


@pytest.mark.slow
def test_the_experiment_runs(tmp_path, capsys):
    main(["--out", str(tmp_path)], default=SMOKE)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["training_speed.nc", "training_speed.png"]
    assert "The claim " in capsys.readouterr().out
