"""A sweep's numbers do not depend on how many devices share its seeds, nor on how many each runs at a time."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys, jax, numpy, jaxgain
from jaxgain.propagation import plan
devices, seeds, at_once = map(int, sys.argv[1:4])
jax.config.update("jax_num_cpu_devices", devices)
plan.SEEDS_AT_ONCE = (at_once, at_once)
config = jaxgain.SweepConfig(("tanh", "gelu"), (0.9, "forward"), depth=20, seeds=seeds, **json.loads(sys.argv[4]))
dataset = jaxgain.sweep(config)
assert dataset.attrs["chunks"].startswith(f"3 gains × {min(devices, seeds) * at_once} seeds"), dataset.attrs["chunks"]
numpy.savez(sys.argv[5], **{name: x.values for name, x in dataset.data_vars.items()})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        dict(width=100),
        dict(width=100, inputs=1),
        dict(width=30, block="residual", sigma_b=0.1),
        dict(width=30, weights="dense"),
    ],
)
def test_sweep_is_bitwise_the_same_on_one_two_and_eight_devices_and_in_chunks_of_any_size(tmp_path, setting):
    results = []
    for devices, seeds, at_once in ((1, 5, 2), (2, 7, 4), (8, 5, 2), (2, 7, 3), (1, 6, 16)):
        path = tmp_path / f"{devices}.npz"
        environment = os.environ | {"PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
        numbers = [str(number) for number in (devices, seeds, at_once)]
        command = [sys.executable, "-c", SCRIPT, *numbers, json.dumps(setting), str(path)]
        subprocess.run(command, check=True, env=environment)
        results.append(dict(np.load(path)))
    for name in results[0]:
        for other in results[1:]:
            np.testing.assert_array_equal(results[0][name], other[name][:, :, :5], err_msg=name)
