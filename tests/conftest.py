"""Every test runs on the CPU with two devices, and an accidental broadcast between ranks is an error.

Programs are compiled without most optimizations, as in JAX's own tests: there are thousands, and most run once. With
`JAX_DISABLE_MOST_OPTIMIZATIONS=0`, as the slow tests in `.ci/run`, they are what users run.
"""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import numpy as np
import pytest
import xarray

from jaxgain.propagation.config import SweepConfig

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shell():
    """A function that runs `jaxgain` with some words as a shell does, in some folder."""

    def run(*words, cwd=None):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which JAX sets where it is imported
        return subprocess.run(
            [sys.executable, "-m", "jaxgain", *words],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def stopping_after():
    """A function of a number of chunks: a `progress` that stops a job like Ctrl-C after so many."""

    def of_chunks(chunks):
        left = iter(range(chunks))

        def progress(*_):
            if next(left, None) is None:
                raise KeyboardInterrupt

        return progress

    return of_chunks


@pytest.fixture
def exponential_sweep():
    """A function that makes a sweep's dataset in which std and gradient are exact exponentials of depth."""
    return _exponential_sweep


def _exponential_sweep(*, std_rate=0.0, gradient_rate=0.0, jitter=0.0, seeds=4, depth=50, gains=(1.0, 1.5, 2.0)):
    """Dataset of tanh and relu, `depth` layers: std e^(std_rate l), gradient e^(gradient_rate (depth - l)), c = 0.5.

    The seeds' gradient rates differ by `jitter` times -1.5, -0.5, 0.5, 1.5 and so on. The first gain is
    nobody's own, the second is tanh's forward gain, the last is relu's.
    """
    config = SweepConfig(activations=("tanh", "relu"), gains=("1:2:3", "forward"), depth=depth, seeds=seeds)
    layer, gain = np.arange(depth + 1), np.array(gains)
    names = np.full((2, len(gain)), "", dtype="<U20")
    names[0, len(gain) // 2], names[1, -1] = "forward", "forward, torch"
    rates = gradient_rate + jitter * (np.arange(seeds) - (seeds - 1) / 2)
    dims = ("activation", "gain", "seed", "layer")
    shape = (2, len(gain), seeds, depth + 1)
    profiles = {
        "std": np.exp(std_rate * layer),
        "correlation": np.where(layer > 0, 0.5, np.nan),
        "saturated": np.where(layer > 0, 0.0, np.nan),
        "log_grad_rms": rates[:, None] * (depth - layer),
    }
    return xarray.Dataset(
        {name: (dims, np.broadcast_to(values, shape).copy()) for name, values in profiles.items()}
        | {name: (dims[:3], np.full(shape[:3], -1)) for name in ("first_nonfinite", "first_vanished")},
        coords={
            "activation": ["tanh", "relu"],
            "gain": gain,
            "seed": np.arange(seeds),
            "layer": layer,
            "gain_name": (("activation", "gain"), names),
        },
        attrs={"config": config.to_json(), "config_hash": config.hash(), "compile_seconds": 0.0},
    )
