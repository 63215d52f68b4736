import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

from experiments.tanh_nx_rescaling import RULES, SMOKE, functions, judge, rule_of, task


def made(exact=1e-14, others=0.1, same=1e-15, every=2.0):
    """Pairs of two networks and 30 steps that are apart by so much with the first rule, and with the others."""
    apart = {"tanh_layers": same, "all_layers": every, "weights_only": 0.1}
    found = {"functions": xarray.Dataset({name: ("n", [value]) for name, value in apart.items()})}
    for name, rules in RULES.items():
        apart = np.full((len(rules), 1, 2, 30), others)
        apart[0] = exact
        loss = np.ones(apart.shape) + np.arange(2.0)[:, None]
        variables = {"deviation": apart, "loss_a": loss, "loss_b": 2 * loss}
        found[name] = xarray.Dataset(
            {key: (("rule", "n", "seed", "step"), value) for key, value in variables.items()},
            coords={"rule": [rule.name for rule in rules], "n": [3.0]},
        )
    return found


def words(found):
    return {one.claim: one.verdict for one in judge(found)}


def test_pairs_that_coincide_with_one_rule_alone_are_imprecise():
    assert words(made()) == {"B14": "imprecise", "B15": "imprecise"}


def test_pairs_that_never_coincide_are_wrong():
    assert words(made(exact=1e-6))["B15"] == "wrong"
    assert "No rates" in judge(made(exact=1e-6))[1].why


def test_pairs_that_coincide_with_every_rule_are_right():
    assert words(made(others=1e-12))["B15"] == "right"


def test_a_readout_that_may_be_scaled_too_makes_b14_right_and_another_function_wrong():
    assert words(made(every=1e-15))["B14"] == "right"
    assert words(made(same=0.1))["B14"] == "wrong"


def test_the_functions_are_equal_with_scaled_tanh_layers_alone():
    with jax.enable_x64(True):
        one = task(jax.random.key(0), SMOKE)
        found = functions(SMOKE, jax.tree.map(lambda value: value[None], one))
    assert float(found["tanh_layers"].max()) < 1e-14
    assert float(found["all_layers"].min()) > 0.1 and float(found["weights_only"].min()) > 0.01


def test_adam_keeps_an_epsilon_of_its_own_in_the_readout():
    grads = [jnp.array([0.5])] * 4
    rule = rule_of("adam", 1.0, 3.0)
    moves, _ = rule.update(grads, rule.init(grads))
    np.testing.assert_allclose(np.concatenate(moves), [0.5 / 1.5] * 2 + [0.5 / 3.5] * 2, rtol=1e-5)


def test_momentum_is_that_of_optax():
    grads = [jnp.array([1.0])] * 4
    rule = rule_of("momentum", 1.0, 1.0)
    state = rule.init(grads)
    assert isinstance(state, optax.TraceState)
    _, state = rule.update(grads, state)
    assert float(rule.update(grads, state)[0][0][0]) == pytest.approx(1.9)
