"""What makes a sweep fast, read off its program instead of a clock: what is drawn, what is stored."""

import os
import re
import subprocess
import sys
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import pytest

from jaxgain.activations import activation
from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.network import Point, record_network, setting_of, steepest_slope, value_and_slope
from jaxgain.propagation.program import lower_program

WIDTH, DEPTH = 128, 40
CPU = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}


def numbers_drawn(jaxpr, times=1):
    """How many random numbers a program draws, loops of known length counted out: `standard_normal` bars its words."""
    drawn = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "optimization_barrier":
            drawn += times * sum(prod(word.aval.shape) for word in equation.outvars if word.aval.dtype == jnp.uint32)
        inside = times * equation.params.get("length", 1)
        for parameter in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            closed = getattr(parameter, "jaxpr", parameter)
            if hasattr(closed, "eqns"):
                drawn += numbers_drawn(closed, inside)
    return drawn


@pytest.mark.parametrize("gains", [2, 50])
@pytest.mark.parametrize(("inputs", "sigma_b"), [(1, 0.0), (2, 0.1)])
def test_noise_is_drawn_once_per_layer_and_seed_for_all_gains(gains, inputs, sigma_b):
    phi = activation("tanh")
    setting = setting_of(SweepConfig(("tanh",), (1.0,), width=WIDTH, depth=DEPTH, inputs=inputs))
    formulas = {"value_and_slope": partial(value_and_slope, phi), "steepest": steepest_slope(phi)}
    network = lambda gain: record_network(jax.random.key(0), Point(gain, sigma_b), setting, **formulas)
    program = jax.make_jaxpr(jax.vmap(network))(jnp.ones(gains))
    # Input, direction and cotangent; and in each layer and at the input what W makes of signal and tangent, and Wᵀ of
    # what comes back: three numbers per input and neuron, and for the bias one per input, of a pair.
    bias = 2 * inputs * (DEPTH + 1) * bool(sigma_b)
    assert numbers_drawn(program.jaxpr) == 3 * inputs * WIDTH * (1 + DEPTH + 1) + bias


@pytest.mark.parametrize("inputs", [1, 2])
def test_no_buffer_holds_gains_times_depth_times_width(inputs):
    gains = 11
    setting = setting_of(SweepConfig(("tanh",), (1.0,), width=WIDTH, depth=DEPTH, inputs=inputs))
    points = Point(sigma_w=(gains,), alpha=())
    program, _ = lower_program((activation("tanh"),), points, 2, tuple(jax.local_devices()), setting)
    shapes = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", program.compile().as_text())
    sizes = {prod(map(int, shape.split(","))) for shape in shapes}
    assert inputs * gains * WIDTH in sizes or gains * WIDTH in sizes or gains * WIDTH // 4 in sizes
    assert max(sizes) < gains * DEPTH * WIDTH


# VmHWM, in kB, counts from the start of the program; `ru_maxrss` would begin at the peak of the process that starts it.
LARGE = """
import re, sys
from pathlib import Path
from jaxgain.cli import main
main(sys.argv[1:])
print(1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak memory of a process is counted as Linux does")
@pytest.mark.parametrize(("width", "depth"), [(1_000_000, 100), (1000, 100_000)])
def test_a_large_sweep_needs_less_than_half_a_gigabyte_with_python_and_the_compiler(width, depth, tmp_path):
    sizes = f"--width {width} --depth {depth} --inputs 1 --seeds 1 --gains 0.75 1 1.5 5/3 --activations tanh".split()
    run = [sys.executable, "-c", LARGE, "sweep", *sizes, "--out", str(tmp_path / "large")]
    # Nothing compiled before.
    environment = os.environ | CPU | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    printed = subprocess.run(run, capture_output=True, text=True, check=True, env=environment).stdout
    assert 0.1e9 < int(printed.split()[-1]) < 0.5e9
