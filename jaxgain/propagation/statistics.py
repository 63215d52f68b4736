r"""What is observed of one layer's rows, the same for every kind of weights, and how it leaves the network.

Arrays here belong to one network: B inputs, n neurons. Rows come divided by their size (`peak`, a
`magnitude`), so that squares neither overflow nor underflow; logarithms are natural.
"""

from functools import reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxgain.propagation.means import fractions
from jaxgain.propagation.rows import Factor, Rows, mean, norm, reciprocal, small_product, stack

NOT_RECORDED: Any = None

Record = dict[str, Any]
"""Statistics of one layer by name; per input (B,) but for those of `OF_ALL_INPUTS`."""

OF_ALL_INPUTS = (
    *("correlation", "correlation_h", "dead", "log_weight_grad_rms", "peak"),
    *("correlations", "log_one_minus_correlations", "effective_rank", "grad_correlation"),
)


class Propagation(NamedTuple):
    """Statistics of one network, per layer 0 … depth; see the fields. Layer 0 is the input.

    Every field has shape (depth + 1, …), where … are the axes it names, and the inputs last when they are kept apart;
    it is None when it was not asked for. `first_nonfinite` and `first_vanished` are scalars. Here z are the arguments
    of φ, of all its calls in a layer together (`correlation` and the cosines of pairs: of the last), and W all maps of
    a layer together.
    """

    q: Array = NOT_RECORDED
    """Mean of z² over the neurons; NaN at layer 0."""
    mean: Array = NOT_RECORDED
    """Mean of h over the neurons."""
    std: Array = NOT_RECORDED
    """Population standard deviation of h over the neurons."""
    second_moment: Array = NOT_RECORDED
    """Mean of h² over the neurons."""
    log_grad_rms: Array = NOT_RECORDED
    """Log of the rms over the neurons of ∂loss/∂h."""
    log_grad_mean_abs: Array = NOT_RECORDED
    """Log of the mean absolute value over the neurons of ∂loss/∂h."""
    log_weight_grad_rms: Array = NOT_RECORDED
    """Log of the rms entry of ∂loss/∂W, summed over the inputs; NaN at layer 0."""
    log_jacobian_rms: Array = NOT_RECORDED
    """Log of ‖J u‖/‖u‖ from the input to this layer, random u, both norms rms; 0 at layer 0."""
    correlation: Array = NOT_RECORDED
    """Cosine of the first two inputs' z; NaN at layer 0 and with one input."""
    correlation_h: Array = NOT_RECORDED
    """Cosine of the first two inputs' h; NaN with one input."""
    saturated: Array = NOT_RECORDED
    """Fraction of neurons with |φ'(z)| < 0.01 sup |φ'| over |z| ≤ 10; NaN at layer 0."""
    dead: Array = NOT_RECORDED
    """Fraction of neurons with φ'(z) = 0 for every input; NaN at layer 0."""
    correlations: Array = NOT_RECORDED
    """Cosines of all pairs of inputs' z, (..., inputs, inputs); NaN at layer 0."""
    log_one_minus_correlations: Array = NOT_RECORDED
    """Log of 1 minus those, without loss where inputs are close; −inf on the diagonal, NaN at layer 0."""
    effective_rank: Array = NOT_RECORDED
    """Effective rank of the inputs' h: the exponential of the entropy of their singular values' shares."""
    grad_correlation: Array = NOT_RECORDED
    """Cosine of the first two inputs' ∂loss/∂h; NaN with one input."""
    grad_alignment: Array = NOT_RECORDED
    """Cosine of ∂loss/∂h and h."""
    log_jacobian_second_moment: Array = NOT_RECORDED
    """Log of the mean of (‖J u‖/‖u‖)² over the directions, both norms rms; 0 at layer 0."""
    log_largest_singular_value: Array = NOT_RECORDED
    """Log of the largest singular value of the Jacobian from the input, between norms that are rms, on the span of
    the directions; 0 at layer 0."""
    log_singular_values: Array = NOT_RECORDED
    """Logs of all of them, falling, (..., directions); NaN below 1e-6 of the largest, lost in rounding."""
    first_nonfinite: Array = NOT_RECORDED
    """First layer at which some activation is not finite; −1 if none."""
    first_vanished: Array = NOT_RECORDED
    """First layer at which max |h| over all inputs is below the smallest normal number; −1 if none."""


def cosine(lower: Array) -> Array:
    """Cosine of the first two rows from their coordinates in an orthonormal basis; NaN with one row."""
    if lower.shape[0] < 2:
        return jnp.full((), jnp.nan, lower.dtype)
    sizes = norm(lower[:2])
    overlap = jnp.sum(lower[0] * reciprocal(sizes[0]) * lower[1] * reciprocal(sizes[1]))
    return jnp.where(jnp.all(sizes > 0), overlap, jnp.nan)


def directions_of(lower: Array) -> Array:
    """Coordinates of rows in an orthonormal basis, each row divided by its length, (B, B); 0 for a zero row."""
    return lower * reciprocal(norm(lower))[:, None]


def observe_preactivations(lower: Array, scale: Array) -> Record:
    """Rms of z and its correlation, from the coordinates `scale[:, None] * lower` of the rows of z."""
    return {"rms_z": scale * norm(lower), "correlation": cosine(lower)}


def observe_activations(rows: Rows, peak: Array, lower: Array) -> Record:
    """Moments of h over the neurons, h_b = peak[b] * rows[b]: B rows, (B,), (B, B) -> record."""
    centres = [mean(row) for row in rows]
    variances = [mean((row - centre) ** 2) for row, centre in zip(rows, centres, strict=True)]
    return {
        "mean": peak * stack(centres),
        "std": peak * jnp.sqrt(stack(variances)),
        "rms_h": peak * norm(lower),
        "correlation_h": cosine(lower),
        "peak": jnp.max(peak),
    }


def observe_slopes(slopes: Rows, steepest: Array | float) -> Record:
    """Saturated and dead fractions of the neurons from B rows of φ'(z); `steepest` = sup |φ'|."""
    flat = [[jnp.abs(slope) < 0.01 * steepest] for slope in slopes]
    asleep = reduce(jnp.logical_and, [slope == 0 for slope in slopes])
    *saturated, dead = fractions([*flat, [asleep]])
    return {"saturated": stack(saturated), "dead": dead}


def observe_gradients(gradients: Rows, squares: Array, log_scale: Array) -> Record:
    """Log rms and log mean absolute value of ∂loss/∂h_b = exp(log_scale[b]) * gradients[b]: B rows, (B,), (B,).

    `squares` are the mean squares of the rows.
    """
    return {
        "log_grad_rms": log_scale + 0.5 * jnp.log(squares),
        "log_grad_mean_abs": log_scale + jnp.log(stack([mean(jnp.abs(g)) for g in gradients])),
    }


def log_weight_gradient(delta: Factor, log_scale: Array, log_rms: Array, directions: Array) -> Array:
    r"""Log rms entry of $\sum_b \delta_b h_b^\top$: D = R_D Q_D and H = R_H Q_H make it $\|R_D^\top R_H\|$.

    `delta` factors the rows of D up to exp(log_scale); `log_rms` (B,) and `directions` (B, B) are log rms and
    unit coordinates of the rows of H.
    """
    if log_rms.shape[0] == 1:
        return log_scale[0] + jnp.log(delta.lower[0, 0]) + log_rms[0]
    weights = log_scale + log_rms
    largest = jnp.max(weights)
    relative = jnp.where(jnp.isneginf(weights), 0, jnp.exp(weights - jnp.where(jnp.isneginf(largest), 0, largest)))
    scaled = relative[:, None] * delta.lower
    return largest + jnp.log(norm(small_product(scaled.T, directions).ravel()))


def over_inputs(record: Record) -> Record:
    """Average each statistic over the inputs: rms for `rms_*`, mean for all others, (..., B) -> (...)."""

    def average(name: str, x: Array) -> Array:
        if name in OF_ALL_INPUTS:
            return x
        if not name.startswith("rms"):
            return jnp.mean(x, axis=-1)
        return norm(x) / jnp.sqrt(x.shape[-1]).astype(x.dtype)

    return {name: average(name, x) for name, x in record.items()}


def first_layer(condition: Array) -> Array:
    """Index of the first layer where the condition (depth + 1,) holds, −1 if nowhere."""
    return jnp.where(jnp.any(condition), jnp.argmax(condition), -1).astype(jnp.int32)
