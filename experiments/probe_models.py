"""A model that vanishes, probed, calibrated and trained, and what it costs to watch it.

`python -m experiments.probe_models` probes a GELU network of 50 layers as Flax initializes it, calibrates it, trains
both on handwritten digits while a monitor looks every 50 steps, and measures what the monitor adds to a step.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxgain as jg
from jaxgain.experiments import experiment, save_figure


@dataclass(frozen=True)
class ProbeModelsConfig:
    """How deep, how wide, how long."""

    depth: int = 50
    width: int = 128
    steps: int = 500
    learning_rate: float = 3e-4
    batch: int = 64
    every: int = 50
    """Steps from one look of the monitor to the next."""

    out: Path = Path("experiments/figures")
    """Folder for probe.png."""


SMOKE = ProbeModelsConfig(depth=4, width=16, steps=20, batch=16, every=10)


def network(params: Any, x: jax.Array) -> jax.Array:
    """GELU layers of one width, scanned, and a readout of ten classes."""
    z = x @ params["first"]
    z, _ = jax.lax.scan(lambda z, layer: (jax.nn.gelu(z) @ layer[0] + layer[1][None], None), z, params["hidden"])
    return jax.nn.gelu(z) @ params["readout"]


def loss_of(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross entropy, labels one-hot."""
    return optax.softmax_cross_entropy(network(params, x), labels).mean()


def flax_default(config: ProbeModelsConfig) -> Any:
    """Parameters as Flax draws them: LeCun normal, biases zero."""
    draw, keys = jax.nn.initializers.lecun_normal(), jax.random.split(jax.random.key(0), 3)
    hidden = jax.vmap(lambda key: draw(key, (config.width, config.width)))(jax.random.split(keys[1], config.depth - 1))
    return {
        "first": draw(keys[0], (64, config.width)),
        "hidden": (hidden, jnp.zeros((config.depth - 1, config.width))),
        "readout": draw(keys[2], (config.width, 10)),
    }


def train(config: ProbeModelsConfig, params: Any, monitor: Any = None) -> tuple[float, Any, float]:
    """Return test accuracy, what the monitor saw, and the seconds of all cores in the run, compiling apart."""
    data = jg.load_data("digits")
    x, y = jnp.asarray(data.x, jnp.float32), jax.nn.one_hot(data.y, 10)
    optimizer = optax.adam(config.learning_rate)

    def step(state: Any, number: jax.Array) -> tuple[Any, Any]:
        params, moments = state
        rows = jax.random.randint(jax.random.fold_in(jax.random.key(1), number), (config.batch,), 0, len(x))
        gradient = jax.grad(loss_of)(params, x[rows], y[rows])
        updates, moments = optimizer.update(gradient, moments, params)
        seen = monitor(params, x[rows], y[rows], when=number % config.every == 0) if monitor else None
        return (optax.apply_updates(params, updates), moments), seen

    steps = jnp.arange(config.steps)
    run = jax.jit(lambda state: jax.lax.scan(step, state, steps)).lower((params, optimizer.init(params))).compile()
    (trained, _), seen = run((params, optimizer.init(params)))
    seconds = []
    for _ in range(5):
        start = time.process_time()
        jax.block_until_ready(run((params, optimizer.init(params))))
        seconds.append(time.process_time() - start)
    right = network(trained, jnp.asarray(data.x_test, jnp.float32)).argmax(1) == jnp.asarray(data.y_test)
    return float(right.mean()), seen, min(seconds)


def main(words: Sequence[str] | None = None, default: ProbeModelsConfig = ProbeModelsConfig()) -> bool:
    """Run, draw, and return whether the calibrated network learns where Flax's default does not."""
    with experiment("probe_models", default, words) as config:
        params, data = flax_default(config), jg.load_data("digits")
        x, y = jnp.asarray(data.x[: config.batch], jnp.float32), jax.nn.one_hot(data.y[: config.batch], 10)
        found = jg.calibrate(network, params, x)
    save_figure(jg.draw_probe(found.before), config.out / "probe.png")
    print(f"Calibrated to rms {found.rms:g}: the gradient changes by {found.spread:.2f} over the layers.")
    monitor = jg.monitor(loss_of, params, x, y)
    before, _, _ = train(config, params)
    after, _, plain = train(config, found.model)
    _, seen, watched = train(config, found.model, monitor)
    drift = monitor.dataset(seen)
    print(f"Test accuracy after {config.steps} steps: {before:.3f} from Flax's default, {after:.3f} calibrated.")
    print(f"Looking every {config.every} steps at {drift.sizes['site']} sites adds {watched / plain - 1:.1%}.")
    return before < 0.2 < after


if __name__ == "__main__":
    main()
