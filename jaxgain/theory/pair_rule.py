r"""One expectation over two inputs of one length, at traced scalars: compiles and batches."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation
from jaxgain.theory.increments import is_symmetric
from jaxgain.theory.panels import mesh

_x_sum, _w_sum = np.polynomial.legendre.leggauss(10)
_x_difference, _w_difference = np.polynomial.legendre.leggauss(8)
_SUM_EDGES = np.array([0.0, 2.0, 4.0, 6.0, 9.0])
_DIFFERENCE_EDGES = np.array([0.0, 0.75, 1.75, 3.0, 4.5, 6.5, 9.0])


def own_edges(phi: Activation, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges at which to cut integrals over (u + v)/2 and over (u - v)/2, up to `reach`."""
    own = np.array([edge for edge in mesh(phi) if abs(edge) < reach])
    kinks = np.array(phi.kinks or ())
    meetings = np.abs(kinks[:, None] - kinks[None, :]).ravel() / 2
    spans = np.unique(np.concatenate([[0.5], np.abs(own), meetings]))[1:]
    spans = spans[spans < 0.65 * reach]  # nine standard deviations
    return (own[own >= 0] if is_symmetric(phi) else own), spans


def separation_ratio(phi: Activation, own: Array, spans: Array, t: Array, q: Array) -> Array:
    r"""Return $E(\phi(u) - \phi(v))^2/(2 q t^2)$ for u, v of length q and correlation $1 - t^2$, $0 < t \le 1$.

    u = a + b, v = a - b with a and b independent: $E a^2 = q(1 - t^2/2)$, $E b^2 = q t^2/2$. For every b the
    integral over a is cut where a + b or a - b is one of the edges `own` of phi, and is smooth in b but where two
    kinks meet, which is among the `spans`; both are those of `own_edges`.
    """
    symmetric = is_symmetric(phi)
    scale_a, scale_b = jnp.sqrt(q * (1 - t * t / 2)), jnp.sqrt(q / 2) * t
    fixed = _SUM_EDGES if symmetric else np.concatenate([-_SUM_EDGES[:0:-1], _SUM_EDGES])

    def given(w: Array) -> Array:
        b = scale_b * w
        cuts = jnp.concatenate([jnp.abs(own - b) if symmetric else own - b, own + b])
        cuts = jnp.clip(cuts / scale_a, float(fixed[0]), float(fixed[-1]))
        z, weight = _rule(jnp.sort(jnp.concatenate([jnp.asarray(fixed, q.dtype), cuts])), _x_sum, _w_sum)
        return jnp.sum(weight * jnp.square(phi(scale_a * z + b) - phi(scale_a * z - b)))

    cuts = jnp.clip(spans / scale_b, 0.0, float(_DIFFERENCE_EDGES[-1]))
    edges = jnp.sort(jnp.concatenate([jnp.asarray(_DIFFERENCE_EDGES, q.dtype), cuts]))
    w, weight = _rule(edges, _x_difference, _w_difference)
    sides = 2 if symmetric else 1
    return sides * jnp.sum(weight.ravel() * jax.vmap(given)(w.ravel())) / (q * t * t)


def _rule(edges: Array, x: Any, w: Any) -> tuple[Array, Array]:
    """Return the nodes and weights, (panels, order), of integrals over the normal density."""
    x, w = jnp.asarray(x, edges.dtype), jnp.asarray(w, edges.dtype)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    z = (edges[1:] + edges[:-1])[:, None] / 2 + half * x[None, :]
    return z, half * w[None, :] * jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
