"""A sick model for each verdict, found at the right site; a healthy one passes; bad input is one clear line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgain as jg

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (32, 64))
WIDE = jax.random.normal(KEY, (12, 64, 64)) / 8


def mlp(phi):
    """Layers in a scan: a site per turn, and one body to compile."""

    def model(layers, x):
        return jax.lax.scan(lambda h, w: (phi(h @ w), None), x, layers)[0]

    return model


def verdicts(report):
    return [str(verdict) for verdict in report["verdict"].values]


def test_a_critical_network_is_healthy():
    report = jg.probe(mlp(jax.nn.relu), 2**0.5 * WIDE, X)
    assert set(verdicts(report)) == {"healthy"} and "All 12 sites are healthy" in repr(report)
    assert jg.assert_healthy(report) is None


def test_a_signal_that_vanishes_is_named_where_it_does():
    layers = (2**0.5 * WIDE).at[7].multiply(1e-5)
    report = jg.probe(mlp(jax.nn.relu), layers, X)
    assert verdicts(report)[7:] == ["vanishes"] * 5 and report.attrs["first_bad"] == "layers[7]"
    assert "σ_w 1.414" in str(report["suggestion"].values[7])
    with pytest.raises(jg.Unhealthy, match=r"^layers\[7\] vanishes: .*σ_w 1.414, critical for relu"):
        jg.assert_healthy(report)


def test_a_signal_that_explodes_is_named_where_it_does():
    report = jg.probe(mlp(jax.nn.relu), (2**0.5 * WIDE).at[5].multiply(1e5), X)
    assert report.attrs["first_bad"] == "layers[5]" and verdicts(report)[5] == "explodes"
    assert verdicts(jg.probe(mlp(jax.nn.relu), 1e8 * WIDE, X))[-1] == "explodes"  # beyond float32


def test_a_gradient_that_vanishes_is_found_with_a_signal_that_is_fine():
    def model(layers, x):
        def layer(x, w):
            x = x @ w
            return 0.3 * x + 0.7 * jax.lax.stop_gradient(x), None

        return jax.lax.scan(layer, x, layers)[0]

    report = jg.probe(model, WIDE, X)
    assert verdicts(report)[0] == "vanishes" and verdicts(report)[-1] == "healthy"
    assert report["cause"].values[0] == "gradient"
    with pytest.raises(jg.Unhealthy, match="gradient's rms is"):
        jg.assert_healthy(report)


def test_a_saturated_site_is_named():
    report = jg.probe(mlp(jnp.tanh), WIDE.at[4].multiply(50), X)
    assert verdicts(report)[4] == "saturates" and report.attrs["first_bad"] == "layers[4]"
    assert "σ_w 1," in str(report["suggestion"].values[4])


def test_dead_units_are_named():
    def model(params, x):
        return jax.lax.scan(lambda x, wb: (jax.nn.relu(x @ wb[0] + wb[1][None]), None), x, params)[0]

    biases = jnp.zeros((12, 64)).at[6].set(-50)
    report = jg.probe(model, (2**0.5 * WIDE, biases), X)
    assert verdicts(report)[6] == "dead" and report.attrs["first_bad"] == "params[0][6]"


def test_numbers_near_the_formats_limit_are_named():
    layers = (2**0.5 * WIDE).at[3].multiply(300).astype(jnp.float16)
    report = jg.probe(mlp(jax.nn.relu), layers, (10 * X).astype(jnp.float16))
    assert verdicts(report)[3] == "near limit" and "bfloat16" in str(report["suggestion"].values[3])
    small = jg.probe(mlp(jax.nn.relu), (2**0.5 * WIDE).astype(jnp.float16), X.astype(jnp.float16),
                     loss=lambda y: 1e-6 * y.sum())  # fmt: skip
    assert set(verdicts(small)) == {"near limit"} and "scale the loss" in str(small["suggestion"].values[0])


def test_a_last_layer_of_zeros_is_healthy_and_so_is_what_it_lets_nothing_back_to():
    def residual(params, x):
        return jax.lax.scan(lambda x, ud: (x + jax.nn.relu(x @ ud[0]) @ ud[1], None), x, params)[0]

    report = jg.probe(residual, (2**0.5 * WIDE, jnp.zeros_like(WIDE)), X)
    assert set(verdicts(report)) == {"healthy"}


def test_tanh_at_five_thirds_keeps_its_signal_and_grows_its_gradient_by_a_tenth_per_layer():
    # 1.10 is exp(0.095), which the README's sweep has with a bound of 0.004.
    layers = 5 / 3 * jax.random.normal(KEY, (100, 500, 500)) / 500**0.5
    report = jg.probe(mlp(jnp.tanh), layers, jax.random.normal(KEY, (32, 500)))
    inner = slice(10, 90)
    signal = np.log(report["growth_signal"].values[inner])
    gradient = np.log(report["growth_gradient"].values[inner])
    assert abs(signal.mean()) < 4 * signal.std() / 80**0.5 + 1e-3
    assert abs(gradient.mean() - 0.095) < 0.01
    assert "signal × 0.99" in repr(report) and "gradient × 1.09" in repr(report)
    assert verdicts(report)[0] == "explodes" and report["cause"].values[0] == "gradient"
    assert "critical for tanh (now 1.67)" in str(report["suggestion"].values[0])


def test_limits_are_settings():
    report = jg.probe(mlp(jnp.tanh), 0.8 * WIDE, X)
    jg.assert_healthy(report, limits=jg.Limits(vanishing=1e-4))
    with pytest.raises(jg.Unhealthy, match="vanishes"):
        jg.assert_healthy(report, limits=jg.Limits(vanishing=0.5))
    jg.assert_healthy(report, limits=jg.Limits(vanishing=0.5), ignore=["layers"])
    assert issubclass(jg.Unhealthy, AssertionError)
    with pytest.raises(ValueError, match="vanishing must be below 1 and exploding above"):
        jg.Limits(vanishing=2.0)
    with pytest.raises(TypeError, match=r"needs a report of jaxgain.probe"):
        jg.assert_healthy(3)


def test_a_report_is_a_dataset():
    report = jg.probe(mlp(jnp.tanh), WIDE[:2], X)
    assert dict(report.sizes) == {"site": 2} and report["rms_out"].attrs["long_name"] == "rms of the output"
    assert list(report.isel(site=[1])["name"].values) == ["layers[1]"]
    assert "verdict" in repr(report).splitlines()[0] and "<pre>" in report._repr_html_()
    assert "xarray" in repr(report.drop_vars("verdict"))
    assert max(map(len, repr(report).splitlines())) <= 100


def test_a_report_survives_a_file(tmp_path):
    import xarray

    report = jg.probe(mlp(jnp.tanh), WIDE[:2], X)
    report.to_netcdf(tmp_path / "report.nc")
    with xarray.open_dataset(tmp_path / "report.nc") as again:
        assert list(again["verdict"].values) == verdicts(report)


BAD = [
    ((lambda x: jnp.tanh(x), X), {}, ValueError, "no linear operation .* touches the data"),
    ((lambda w, x: w @ w, WIDE[0], X), {}, ValueError, "no linear operation .* touches the data"),
    ((lambda w, x: x @ w, WIDE[0], X), {"loss": lambda y: y}, ValueError, r"loss must be a scalar, got .*\(32, 64\)"),
    ((lambda w, x: x @ w, WIDE[0], X), {"loss": lambda y: 1}, ValueError, "real floating-point number"),
    ((lambda w, x: x @ w, WIDE[0], X), {"loss": 3}, TypeError, "loss must be a function"),
    ((lambda w, x: x @ w, WIDE[0], X), {"loss": jnp.sum, "cotangent": "sum"}, ValueError, "not both"),
    ((lambda w, x: x @ w, WIDE[0], X), {"cotangent": "ones"}, ValueError, "'random', 'sum' or arrays"),
    ((lambda w, x: x @ w, WIDE[0], X), {"cotangent": X[:2]}, ValueError, "shapes of the model's output"),
    ((lambda w, x: x @ w, WIDE[0], X), {"data": [5]}, ValueError, "no position of the 2 arguments"),
    ((lambda w, x: x @ w, WIDE[0], X.at[0, 0].set(jnp.nan)), {}, ValueError, "1 entries that are not finite"),
    ((lambda w, x: x @ w, WIDE[0], jnp.ones((2, 64), int)), {}, ValueError, "integers of the input enter"),
    ((lambda w, x: x.astype(float) @ w, WIDE[0], jnp.ones((2, 64), int)), {}, ValueError, "embedding or convert"),
    ((3, X), {}, TypeError, "a module or a function, got int"),
    ((mlp(jnp.tanh),), {}, ValueError, "an example of its input"),
    ((lambda w, x: (x @ w).argmax(-1), WIDE[0], X), {}, ValueError, "no floating-point array"),
]


@pytest.mark.parametrize(("args", "settings", "error", "message"), BAD, ids=[case[3] for case in BAD])
def test_bad_input_is_one_clear_line(args, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        jg.probe(*args, **settings)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_trace_raises_its_own_error_with_advice():
    def model(w, x):
        return x @ w if x.sum() > 0 else x

    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        jg.probe(model, WIDE[0], X)
    assert sum("traces the model as jax.jit does" in note for note in caught.value.__notes__) == 1


def test_integers_may_enter_an_embedding():
    def model(params, tokens):
        return jnp.tanh(params["table"][tokens] @ params["w"])

    params = dict(table=jax.random.normal(KEY, (10, 64)), w=WIDE[0])
    report = jg.probe(model, params, jnp.arange(8).reshape(2, 4))
    assert list(report["name"].values) == ["w"]
    one_hot = jg.probe(lambda p, t: jax.nn.one_hot(t, 10) @ p["table"], params, jnp.arange(8).reshape(2, 4))
    assert list(one_hot["name"].values) == ["table"]


def test_a_readout_of_its_own_kind_has_lost_the_signal_that_vanished_before_it():
    def model(params, x):
        return mlp(jnp.tanh)(params["layers"], x) @ params["readout"]

    params = {"layers": 0.4 * jnp.tile(WIDE, (2, 1, 1)), "readout": WIDE[0, :, :10]}
    report = jg.probe(model, params, X)
    assert str(report["name"].values[-1]) == "readout" and verdicts(report)[-1] == "vanishes"
    assert verdicts(jg.probe(model, params | {"layers": WIDE[:3]}, X))[-1] == "healthy"
