import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from matplotlib.image import imread

from experiments.glorot_layer_sizes import PHI, SMOKE, judge, main, network
from jaxgain import activation


def made(narrow=1.0, alternating=0.92):
    """Factors of the signal's rms per layer of selu with Glorot's scaling."""
    rates = {"narrow": narrow, "wide": 1.0, "alternating": alternating}
    dims = ("activation", "mode", "shape", "seed", "layer")
    rows = np.stack([np.tile(rate ** np.arange(21.0), (2, 1)) for rate in rates.values()])
    signal = np.broadcast_to(rows, (2, 2, *rows.shape))
    arrays = {"signal": signal, "gradient": np.ones_like(signal), "forward": signal, "backward": signal}
    coords = {"activation": ["tanh", "selu"], "mode": ["fan_avg", "fan_in"], "shape": list(rates)}
    attrs = {"narrow": 100, "wide": 500}
    return {"networks": xarray.Dataset({name: (dims, values) for name, values in arrays.items()}, coords, attrs)}


def test_another_number_is_another_word():
    word = lambda **changed: judge(made(**changed))[0].verdict
    assert word() == "imprecise"
    assert word(alternating=1.0) == "right"
    assert word(narrow=0.9) == "wrong"


@pytest.mark.parametrize("phi", list(PHI))
def test_a_network_is_that_of_jax(phi):
    rng = np.random.default_rng(0)
    draws = [rng.standard_normal((m, n)).astype(np.float32) for n, m in ((6, 4), (4, 5))]
    x, last = rng.standard_normal(6), rng.standard_normal(5)
    found = network(draws, phi, 1.3, "fan_avg", x, last)

    def outputs(x):
        for w in draws:
            x = activation(phi)(jnp.float32(1.3 / (sum(w.shape) / 2) ** 0.5) * w @ x)
        return x

    h, back = jax.vjp(outputs, jnp.asarray(x / np.sqrt(np.mean(x**2)), jnp.float32))
    rms = lambda v: float(np.sqrt(np.mean(np.square(v))))
    np.testing.assert_allclose(found["signal"][-1], rms(h), rtol=1e-5)
    np.testing.assert_allclose(found["gradient"][0], rms(back(jnp.asarray(last, jnp.float32))[0]), rtol=1e-5)


def test_a_tiny_run_prints_the_claim_and_draws(tmp_path, capsys):
    main(["--out", str(tmp_path)], default=SMOKE)
    assert "A22  “" in capsys.readouterr().out
    assert imread(tmp_path / "glorot_layer_sizes.png").std() > 0.05


def test_a_bad_option_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--depth", "3"])
    assert stop.value.code == 2
    assert "depth must be even" in capsys.readouterr().err
