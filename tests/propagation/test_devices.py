"""A sweep's numbers do not depend on how many devices share its seeds."""

import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import sys, jax, numpy, jaxgain
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
config = jaxgain.SweepConfig(("tanh", "gelu"), (0.9, "forward"), width=100, depth=20, seeds=int(sys.argv[2]))
dataset = jaxgain.sweep(config)
numpy.savez(sys.argv[3], **{name: x.values for name, x in dataset.data_vars.items()})
"""


@pytest.mark.slow
def test_sweep_is_bitwise_the_same_on_one_two_and_eight_devices(tmp_path):
    results = []
    for devices, seeds in ((1, 5), (2, 7), (8, 5)):
        path = tmp_path / f"{devices}.npz"
        environment = os.environ | {"PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", SCRIPT, str(devices), str(seeds), str(path)]
        subprocess.run(command, check=True, env=environment)
        results.append(np.load(path))
    for name in results[0]:
        for other in results[1:]:
            np.testing.assert_array_equal(results[0][name], other[name][:, :, :5], err_msg=name)
