"""Where sites are found: inside of every construct of jax, with the derivatives that the program has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxgain as jg
from jaxgain.probing.measure import instrument
from jaxgain.probing.models import as_model
from jaxgain.probing.trace import trace

KEY = jax.random.key(0)
STACK = jax.random.normal(KEY, (4, 8, 8)) / 8**0.5
X = jax.random.normal(jax.random.key(1), (5, 8))


def names(report):
    return [str(name) for name in report["name"].values]


def unrolled(stack, x):
    for w in stack:
        x = jnp.tanh(x @ w)
    return x


def scanned(stack, x):
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, stack)[0]


def test_a_scan_says_what_the_unrolled_loop_says():
    one, other = jg.probe(unrolled, STACK, X), jg.probe(scanned, STACK, X)
    assert names(one) == names(other) == [f"stack[{i}]" for i in range(4)]
    for name in ("rms_in", "rms_out", "sigma_w", "log_grad_output", "log_grad_parameter", "correlation"):
        np.testing.assert_allclose(one[name], other[name], rtol=2e-6, atol=1e-6, err_msg=name)
    assert set(other["activation"].values) == {"tanh"}


def test_jit_remat_and_vmap_change_nothing():
    def wrapped(stack, x):
        return jax.vmap(jax.jit(jax.checkpoint(unrolled)), in_axes=(None, 0))(stack, x)

    one, other = jg.probe(unrolled, STACK[:2], X), jg.probe(wrapped, STACK[:2], X)
    for name in ("rms_out", "log_grad_output", "log_grad_parameter", "correlation", "effective_rank", "fan_in"):
        np.testing.assert_allclose(one[name], other[name], rtol=2e-6, atol=1e-6, err_msg=name)


def test_a_reversed_scan_is_reported_in_the_order_in_which_it_runs():
    def backwards(stack, x):
        return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, stack, reverse=True)[0]

    one, other = jg.probe(unrolled, STACK[::-1], X), jg.probe(backwards, STACK, X)
    assert names(other) == [f"stack[{i}]" for i in (3, 2, 1, 0)]
    np.testing.assert_allclose(one["log_grad_parameter"], other["log_grad_parameter"], atol=1e-5)


def test_nested_scans_have_a_row_for_every_turn():
    def nested(stacks, x):
        return lax.scan(lambda h, stack: (scanned(stack, h), None), x, stacks)[0]

    one, other = jg.probe(unrolled, STACK, X), jg.probe(nested, STACK.reshape(2, 2, 8, 8), X)
    assert names(other) == [f"stacks[{i}][{j}]" for i in range(2) for j in range(2)]
    for name in ("rms_out", "log_grad_output", "log_grad_parameter"):
        np.testing.assert_allclose(one[name], other[name], rtol=2e-6, atol=1e-5)


def test_weights_shared_by_all_turns_have_the_gradient_of_all_of_them():
    def recurrent(w, xs):
        return lax.scan(lambda h, x: (jnp.tanh(h @ w + x), None), jnp.ones((5, 8)), xs)[0]

    xs = jax.random.normal(KEY, (3, 5, 8))
    report = jg.probe(recurrent, STACK[0], xs, cotangent="sum")
    expected = jax.grad(lambda w: recurrent(w, xs).sum())(STACK[0])
    assert names(report) == ["w@0", "w@1", "w@2"]
    np.testing.assert_allclose(np.exp(report["log_grad_parameter"]), float(jnp.sqrt(jnp.mean(expected**2))), rtol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_branch_taken_is_reported_and_the_other_one_is_not_run(sign):
    def branching(params, x):
        x = lax.cond(x.sum() > 0, lambda x: jnp.tanh(x @ params["a"]), lambda x: x @ params["b"], x)
        return x @ params["c"]

    params, x = dict(zip("abc", STACK, strict=False)), sign * jnp.abs(X)
    report = jg.probe(branching, params, x, cotangent="sum")
    taken = "a" if sign == 1 else "b"
    runs = {name: bool(value) for name, value in zip(names(report), report["executed"].values, strict=True)}
    assert runs == {"a": taken == "a", "b": taken == "b", "c": True}
    row = report.isel(site=names(report).index(taken))
    gradient = jax.grad(lambda w: branching(params | {taken: w}, x).sum())(params[taken])
    np.testing.assert_allclose(np.exp(row["log_grad_parameter"]), float(jnp.sqrt(jnp.mean(gradient**2))), rtol=1e-5)
    other = report.isel(site=names(report).index("b" if taken == "a" else "a"))
    assert np.isnan(other["rms_out"]) and np.isnan(other["log_grad_output"]) and other["verdict"] == "not run"


def test_a_while_loop_is_reported_at_its_last_turn_without_gradients_up_to_its_end():
    def looping(params, x):
        x = x @ params["first"]
        state = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.tanh(s[1] @ params["loop"])), (0, x))
        return state[1] @ params["last"]

    params = dict(zip(("first", "loop", "last"), STACK, strict=False))
    report = jg.probe(looping, params, X)
    assert names(report) == ["first", "loop", "last"]
    assert np.isnan(report["log_grad_output"].values).tolist() == [True, True, False]
    h = X @ params["first"]
    for _ in range(2):
        h = jnp.tanh(h @ params["loop"])
    np.testing.assert_allclose(report["rms_in"][1], float(jnp.sqrt(jnp.mean(h**2))), rtol=1e-6)


def test_a_derivative_that_a_function_brings_is_kept():
    @jax.custom_vjp
    def tripled(x, w):
        return x @ w

    tripled.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (3 * g @ kept[1].T, 3 * kept[0].T @ g))

    def model(params, x):
        return tripled(jnp.tanh(x @ params["a"]), params["b"])

    params = dict(a=STACK[0], b=STACK[1])
    report = jg.probe(model, params, X, cotangent="sum")
    gradient = jax.grad(lambda params: model(params, X).sum())(params)
    for name in "ab":
        row = report.isel(site=names(report).index(name))
        expected = float(jnp.sqrt(jnp.mean(gradient[name] ** 2)))
        np.testing.assert_allclose(np.exp(row["log_grad_parameter"]), expected, rtol=1e-6)
    np.testing.assert_allclose(report["rms_out"][1], float(jnp.sqrt(jnp.mean(model(params, X) ** 2))), rtol=1e-6)


def test_the_output_is_the_models_own_to_the_last_bit():
    # Promised: the same operations on the same numbers in the same order. The compiler may still fuse them otherwise;
    # here, on a CPU, it does not.
    for model in (unrolled, scanned):
        traced = trace(as_model(model, [STACK, X]))
        output, _ = jax.jit(instrument(traced))(list(traced.arrays))
        assert jnp.array_equal(output, jax.jit(model)(STACK, X))


def test_gradients_far_below_the_smallest_square_are_numbers():
    weights = jnp.stack([STACK[0], STACK[1] * 1e-25, STACK[2] * 1e-5])
    report = jg.probe(lambda stack, x: (x @ stack[0]) @ stack[1] @ stack[2], weights, X)
    scaled = jg.probe(lambda stack, x: (x @ stack[0]) @ stack[1] @ stack[2], STACK[:3], X)
    np.testing.assert_allclose(
        report["log_grad_output"][0] - scaled["log_grad_output"][0], -30 * np.log(10), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(report["rms_out"][2], 1e-30 * scaled["rms_out"][2], rtol=1e-5)


def test_constants_that_a_function_closes_over_are_its_parameters_by_name():
    params = {"inner": [STACK[0], STACK[1]]}

    @jax.jit
    def layer(x):
        return jnp.tanh(x @ params["inner"][1])

    report = jg.probe(lambda x: layer(x @ params["inner"][0]), X)
    assert names(report) == ["params.inner[0]", "params.inner[1]"]
    assert np.isfinite(report["log_grad_parameter"].values).all()


def test_batch_statistics_follow_the_batch_through_transposes_and_reshapes():
    def model(w, x):  # (batch, time, features) to (time, features, batch) and flattened
        return (jnp.einsum("btf,fg->tgb", x, w), x.reshape(-1, 8) @ w)

    x = jax.random.normal(KEY, (6, 3, 8))
    report = jg.probe(model, STACK[0], x)
    rows = np.asarray(x @ STACK[0]).reshape(6, -1).astype(np.float64)
    gram = rows @ rows.T
    expected = gram[0, 1] / np.sqrt(gram[0, 0] * gram[1, 1])
    np.testing.assert_allclose(report["correlation"], [expected] * 2, rtol=1e-5)
    np.testing.assert_allclose(report["effective_rank"], [np.trace(gram) ** 2 / np.sum(gram**2)] * 2, rtol=1e-5)


def test_low_precision_is_summed_in_float32():
    x = jnp.full((64, 512), 1.0, jnp.bfloat16)
    report = jg.probe(lambda w, x: x @ w, jnp.eye(512, dtype=jnp.bfloat16), x)
    assert report["mean_in"] == 1 and report["rms_out"] == 1
    assert report["dtype"].item() == "bfloat16" and report["rms_out"].dtype == np.float64


@pytest.mark.parametrize(
    ("phi", "name"),
    [
        (jnp.tanh, "tanh"),
        (jax.nn.relu, "relu"),
        (lambda x: jnp.maximum(x, 0), "relu"),
        (lambda x: jnp.where(x > 0, x, 0), "relu"),
        (jax.nn.gelu, "gelu_tanh"),
        (lambda x: jax.nn.gelu(x, approximate=False), "gelu"),
        (jax.nn.silu, "silu"),
        (lambda x: x / (1 + jnp.exp(-x)), "silu"),
        (jax.nn.selu, "selu"),
        (jax.nn.sigmoid, "sigmoid"),
        (jax.nn.softplus, "softplus"),
        (lambda x: x, ""),
        (lambda x: x + jax.nn.relu(x.T).T, ""),
        (lambda x: jax.nn.softmax(x), ""),
    ],
)
def test_activations_are_recognized_by_what_they_do(phi, name):
    traced = trace(as_model(lambda p, x: phi(x @ p[0] + p[1]) @ p[2], [(STACK[0], jnp.ones((1, 8)), STACK[1]), X]))
    found = traced.activations[0]
    assert (found.name if found else "") == name


def test_every_gated_and_scaled_activation_is_seen():
    def gated(p, x):
        return (2**0.5 * jax.nn.relu(x @ p[0])) * (x @ p[1])

    traced = trace(as_model(gated, [STACK, X]))
    found = traced.activations[0]
    assert found.name == "relu" and abs(found.scale - 2**0.5) < 1e-6
    assert traced.activations[1] is None


def test_memory_grows_with_sites_and_not_with_activations():
    def size(batch):
        traced = trace(as_model(scanned, [STACK, jnp.ones((batch, 8))]))
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(instrument(traced), list(traced.arrays))[1]))

    assert size(20) == size(2000)


def test_slices_of_one_array_are_the_parameters_of_their_sites_with_their_own_gradients():
    def listed(layers, x):
        for w in layers:
            x = jnp.tanh(x @ w)
        return x

    def sliced(stack, x):
        for place in range(stack.shape[1]):
            x = jnp.tanh(x @ stack[:, place])
        return x

    one, other = jg.probe(listed, STACK, X), jg.probe(sliced, jnp.stack(STACK, 1), X)
    for name in ("log_grad_parameter", "log_grad_output", "sigma_w", "rms_out"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-5)
    # The sums of all slices' gradients are taken at once: none of them is cut out of the whole.
    traced = trace(as_model(sliced, (jnp.stack(STACK, 1), X)))
    whole = jax.make_jaxpr(instrument(traced))(list(traced.arrays))
    cut = [eqn for eqn in whole.eqns if eqn.primitive.name == "slice" and eqn.invars[0].aval.shape == (8, 4, 8)]
    assert len(cut) == sum(eqn.primitive.name == "slice" for eqn in traced.body.program.eqns) == 4
