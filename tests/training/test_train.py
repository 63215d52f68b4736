import jax
import numpy as np
import pytest

from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.gains import gain
from jaxgain.theory.meanfield import Init
from jaxgain.training.config import TrainConfig
from jaxgain.training.train import train

SMALL = dict(widths=16, steps=20, measure_every=10, batch=16)


@pytest.fixture(scope="module")
def grid():
    said = []
    config = TrainConfig(inits=("critical", 0.5, 2), depths=(2, 5), learning_rates=(0.01, 0.1), seeds=2, **SMALL)
    return train(config, progress=lambda *what: said.append(what)), said


def test_every_combination_has_its_run(grid):
    runs, said = grid
    assert dict(runs.loss.sizes) == {
        "activation": 1, "init": 3, "depth": 2, "width": 1, "learning_rate": 2, "seed": 2, "step": 20,
    }  # fmt: skip
    assert runs.init.values.tolist() == ["0.5", "2", "critical"]
    assert np.isfinite(runs.loss).all() and np.isfinite(runs.test_accuracy).all()
    assert said[-1] == (24, 24, "tanh, depth 5, width 16")


def test_what_is_beyond_a_networks_depth_is_nan(grid):
    runs, _ = grid
    shallow, deep = (runs.isel(depth=d) for d in (0, 1))
    assert runs.layer.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isfinite(shallow.q.sel(layer=[1, 2])).all() and np.isnan(shallow.q.sel(layer=slice(3, None))).all()
    assert np.isfinite(deep.log_grad_norm).all() and np.isnan(deep.q.sel(layer=6)).all()
    assert np.isfinite(shallow.log_grad_norm.sel(layer=3)).all()


def test_scales_and_depths_of_the_theory_are_coordinates(grid):
    runs, _ = grid
    assert runs.sigma_w.sel(activation="tanh").values.tolist() == [0.5, 2, 1]
    assert float(runs.xi_c.sel(activation="tanh", init="2")) == fixed_point("tanh", Init(2.0)).xi_c
    assert float(runs.xi_c.sel(activation="tanh", init="0.5")) == pytest.approx(1 / np.log(4))


@pytest.mark.slow
def test_a_run_does_not_depend_on_the_others_of_its_grid(grid):
    runs, _ = grid
    alone = train(TrainConfig(inits=2, depths=5, learning_rates=0.1, seeds=2, **SMALL))
    together = runs.sel(init=["2"], depth=[5], learning_rate=[0.1])
    # compiled for another number of runs at a time: the last bits may differ
    np.testing.assert_allclose(alone.loss, together.loss, rtol=1e-4)


def test_the_first_loss_is_that_of_the_initialization(grid):
    runs, _ = grid
    small = runs.loss.sel(init="0.5", depth=5).isel(step=0)
    np.testing.assert_allclose(small, np.log(10), rtol=0.02)  # a signal of 2^-5 tells no class from another
    assert float(abs(runs.loss.sel(init="2").isel(step=0) - np.log(10)).min()) > 0.02


@pytest.mark.slow
def test_float64_runs_are_close_to_those_in_float32(grid):
    runs = grid[0].sel(init="2", depth=2, learning_rate=0.01).isel(seed=0)
    double = train(TrainConfig(inits=2, depths=2, learning_rates=0.01, seeds=1, dtype="float64", **SMALL))
    assert double.loss.dtype == np.float64 and not jax.config.jax_enable_x64
    # other normal numbers: close as two seeds are
    np.testing.assert_allclose(double.loss.mean(), runs.loss.mean(), rtol=0.3)


@pytest.mark.slow
def test_residual_networks_train_at_depth():
    config = TrainConfig(activations="relu", block="prenorm", inits="critical", depths=30, widths=32, steps=200)
    runs = train(config)
    assert float(runs.test_accuracy.squeeze()) > 0.8
    assert runs.layer.values[0] == 0 and np.isnan(runs.q.sel(layer=0)).all()
    assert float(runs.sigma_w.squeeze()) != float(runs.sigma_w.squeeze())  # no one number
    assert gain("relu") > 1


def test_a_gain_that_does_not_exist_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="gelu"):
        train(TrainConfig(activations="gelu", inits="torch", depths=2, **SMALL))
