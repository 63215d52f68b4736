"""Probe any JAX model: one row per linear operation, with signal, gradient, verdict and suggestion."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jaxgain.probing.verdicts import Limits

if TYPE_CHECKING:
    from jaxgain.probing.report import Report


def probe(
    model: Any,
    *args: Any,
    loss: Callable[[Any], Any] | None = None,
    cotangent: Any = None,
    data: Sequence[int] | None = None,
    limits: Limits | None = None,
) -> "Report":
    r"""Return a dataset with one row per linear operation that touches the data, in the order of the program.

    The model is traced, not edited: a Flax nnx or Equinox module with its input, `probe(model, x)`; a linen module
    `probe(module, variables, x)`; a Haiku transform `probe(transform, params, x)`; a function of parameters and data
    `probe(function, params, x)`, or of data alone. `data` gives the positions of the data among the arguments where
    that is not so. Sites inside of jit, scan, remat, vmap, cond, while and custom derivatives are found; those inside
    of a scan have a row for each turn.

    The gradient is that of `loss(output)`, a scalar; or of the inner product of the output with `cotangent`, which is
    `random` (Gaussian from a fixed key, of rms 1; the default), `sum` (ones), or arrays as the output.

    The batch is the leading axis of the data. Statistics are float32, or float64 of what is float64. `rms_in` of a
    product is of its first operand. Gradients and the rms of numbers as small as 1e-30 do not underflow.

    Raises what the model raises when it is traced, with advice; ValueError where no linear operation touches the
    data, integers of the input enter one unconverted, the input is not finite, or the loss is no scalar.

    >>> import jax, jax.numpy as jnp, jaxgain as jg
    >>> weights = jax.random.normal(jax.random.key(0), (30, 64, 64)) * 0.7 / 8
    >>> def mlp(weights, x):
    ...     return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]
    >>> report = jg.probe(mlp, weights, jax.random.normal(jax.random.key(1), (8, 64)))
    >>> report.sizes["site"], str(report["verdict"].values[-1]), round(float(report["sigma_w"][0]), 1)
    (30, 'vanishes', 0.7)
    """
    import jax
    import numpy as np

    from jaxgain.probing.measure import finish
    from jaxgain.probing.prepared import prepared
    from jaxgain.probing.report import report_of

    ready = prepared(model, args, loss, cotangent, data)
    arrays = list(ready.traced.arrays)
    raw = jax.jit(lambda arrays: ready.probed(arrays)[1]).lower(arrays).compile(once_only())(arrays)
    statistics = finish(ready.traced, jax.tree.map(np.asarray, raw), np)
    return report_of(ready.traced, statistics, limits or Limits(), ready.attributes)


def once_only() -> dict[str, Any]:
    """Return options for a program that runs once: on a CPU, to optimize it takes far longer than to run it."""
    import jax

    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
