"""What holds for every config, job and array, tried on whatever hypothesis thinks of."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from jaxgain.propagation.config import STATISTICS, SweepConfig
from jaxgain.propagation.labels import slabs_of, variables_of
from jaxgain.propagation.plan import plan_sweep
from jaxgain.runs.job import joined, missing_of, united
from jaxgain.runs.parts import Piece, read_part, write_part

quickly = settings(max_examples=100, deadline=None, derandomize=True, database=None)
in_one_folder = settings(quickly, suppress_health_check=[HealthCheck.function_scoped_fixture])


@some.composite
def configs(draw):
    """A legal config of any shape."""
    inputs = draw(some.integers(1, 4))
    depth = draw(some.integers(1, 50))
    several = lambda values: draw(some.lists(values, min_size=1, max_size=3, unique=True).map(tuple))
    free = {} if draw(some.booleans()) else {"widths": several(some.integers(1, 5000))}
    return SweepConfig(
        activations=several(some.sampled_from(["tanh", "relu", "gelu", "leaky_relu(0.2)"])),
        gains=several(some.floats(0.1, 5.0)),
        sigma_b=several(some.floats(0.0, 2.0)),
        width=draw(some.integers(1, 5000)),
        depth=depth,
        seeds=draw(some.integers(1, 100)),
        inputs=inputs,
        statistics=several(some.sampled_from([name for name in STATISTICS if inputs > 1 or "corr" not in name])),
        record_every=draw(some.integers(1, depth)),
        keep_inputs=draw(some.booleans()),
        seed=draw(some.integers(0, 2**32 - 1)),
        memory=draw(some.floats(1e-3, 64.0)),
        **free,
    )


@given(configs())
@quickly
def test_a_config_of_a_configs_fields_is_that_config(config):
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    assert SweepConfig(**fields) == config
    assert SweepConfig(**fields).hash() == config.hash()


@given(configs(), some.floats(1e-3, 64.0))
@quickly
def test_the_hash_is_of_all_settings_but_the_memory(config, memory):
    assert dataclasses.replace(config, memory=memory).hash() == config.hash()
    assert dataclasses.replace(config, seed=(config.seed + 1) % 2**32).hash() != config.hash()
    assert "NaN" not in config.to_json() and json.loads(config.to_json())["seeds"] == config.seeds


@given(configs(), some.integers(1, 16), some.booleans())
@quickly
def test_a_plan_keeps_to_the_memory_whatever_the_config_or_refuses_in_a_sentence(config, devices, in_memory):
    try:
        plan = plan_sweep(config, len(config.activations), len(config.gains), devices, in_memory=in_memory)
    except ValueError as refusal:
        if "raise memory" not in str(refusal):
            raise
        return
    assert plan.bytes <= config.memory * 2**30
    assert 1 <= plan.devices <= devices and plan.seeds_at_once >= 2
    assert plan.tasks == len(plan.at_widths) * len(config.activations) * plan.batches * config.seeds


@given(configs())
@quickly
def test_the_results_of_all_tasks_fill_every_variable_exactly_once(config):
    config = dataclasses.replace(config, seeds=min(config.seeds, 4), memory=64.0)
    counts = len(config.activations), len(config.gains)
    plan = plan_sweep(config, *counts, 2, in_memory=False)
    variables = {name: np.zeros(variable.shape) for name, variable in variables_of(config, *counts).items()}
    beside = int(np.prod([len(values) for name, values in config.swept().items() if name != "width"]))
    for task in range(0, plan.tasks, config.seeds):
        width, phi, gains = plan.place(task)
        ones = {}
        for name, x in variables.items():
            own = x.shape[x.ndim - (len(variables_of(config, *counts)[name].dims) - 3 - len(config.swept())) :]
            raw = {"q": "rms_z", "second_moment": "rms_h"}.get(name, name)
            ones[raw] = np.ones((config.seeds, plan.gains_at_once * beside, *own))
        for name, at, values in slabs_of(config, ones, width=width, phi=phi, gains=gains, seeds=slice(0, config.seeds)):
            variables[name][at] += values
    for name, x in variables.items():
        assert (x == 1).all(), name


@given(some.sets(some.integers(0, 59)), some.integers(1, 30))
@quickly
def test_done_and_missing_tasks_are_all_tasks_once(done, group):
    ranges = united([(task, task + 1) for task in done])
    missing = missing_of(ranges, 60, group)
    tasks = sorted([task for start, stop in [*ranges, *missing] for task in range(start, stop)])
    assert tasks == [*range(60)]


@given(some.integers(1, 8), some.integers(1, 5))
@quickly
def test_joined_pieces_hold_what_the_pieces_held(group, step):
    cuts = sorted({*range(0, 24, step), *range(0, 24, group), 24})
    pieces = [Piece(a, b, {"x": np.arange(a, b)}) for a, b in itertools.pairwise(cuts)]
    whole = joined(pieces, group)
    assert np.concatenate([piece.arrays["x"] for piece in whole]).tolist() == [*range(24)]
    assert all(piece.start // group == (piece.stop - 1) // group for piece in whole)
    assert len(whole) == -(-24 // group)


kinds = some.sampled_from(["float32", "float64", "int32", "uint8", "float16", "bool"])
of_any_shape = arrays.arrays(kinds, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))


@given(some.dictionaries(some.text(max_size=10), of_any_shape, max_size=4))
@in_one_folder
def test_any_arrays_come_back_from_a_part_bit_for_bit(tmp_path, named):
    write_part(tmp_path / "a.part", [Piece(0, 3, named)])
    ((_, _, found),), _ = read_part(tmp_path / "a.part")
    assert [*found] == [*named]
    for name, array in named.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@given(some.one_of(some.text(), some.integers(), some.floats(), some.none(), some.booleans(), some.binary()))
@quickly
@pytest.mark.parametrize("field", ["width", "depth", "seeds", "gains", "sigma_b", "memory", "seed", "statistics"])
def test_whatever_a_field_is_given_it_is_taken_or_refused_in_a_sentence(field, value):
    try:
        config = SweepConfig(**{field: value})
    except (ValueError, TypeError) as refusal:
        sentence = str(refusal)
    else:
        assert config == dataclasses.replace(config)
        return
    assert field.rstrip("s") in sentence or sentence.startswith(("unknown", "cannot", "the "))
