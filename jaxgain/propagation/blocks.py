r"""How random linear maps and an activation make one layer: `block(linear, phi, h)`, signals (B, n) -> (B, m).

`linear(h)` is a new random map at each call, with biases; `linear(h, features=…, sigma_w=…, sigma_b=…)` sets what is
otherwise the layer's. `phi` is the activation, elementwise. Blocks are plain JAX functions of these; that of a user
may be any other.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

Linear = Callable[..., Array]
Phi = Callable[[Array], Array]
Block = Callable[[Linear, Phi, Array], Array]

# Added to variances before they divide, as in most networks.
EPSILON = 1e-6


# Branches


def one_layer(linear: Linear, phi: Phi, h: Array) -> Array:
    """φ(W h)."""
    return phi(linear(h))


def two_layer(linear: Linear, phi: Phi, h: Array) -> Array:
    """W₂ φ(W₁ h), σ_w = 1 and no bias in W₂."""
    return linear(phi(linear(h)), sigma_w=1.0, sigma_b=0.0)


def glu(linear: Linear, phi: Phi, h: Array) -> Array:
    """φ(W h) ⊙ V h, the gated linear unit: SwiGLU with silu, GEGLU with gelu (Shazeer, arXiv:2002.05202, 2020)."""
    return phi(linear(h)) * linear(h)


def glu_ffn(linear: Linear, phi: Phi, h: Array) -> Array:
    """W₂ (φ(W h) ⊙ V h), σ_w = 1 and no bias in W₂."""
    return linear(glu(linear, phi, h), sigma_w=1.0, sigma_b=0.0)


BRANCHES: dict[str, Block] = {"one_layer": one_layer, "two_layer": two_layer, "glu": glu, "glu_ffn": glu_ffn}


# Norms


def layer_norm(h: Array) -> Array:
    """Each input to mean 0 and variance 1 over the neurons, (B, n) -> (B, n)."""
    return _normalized(h, axis=-1, centred=True)


def rms_norm(h: Array) -> Array:
    """Each input to rms 1 over the neurons, (B, n) -> (B, n)."""
    return _normalized(h, axis=-1, centred=False)


def batch_norm(z: Array) -> Array:
    """Each neuron to mean 0 and variance 1 over the inputs, (B, n) -> (B, n)."""
    return _normalized(z, axis=0, centred=True)


def _normalized(x: Array, *, axis: int, centred: bool) -> Array:
    """In float32 whatever the type of x, as in most networks."""
    full = x.astype(jnp.float32)
    if centred:
        full = full - jnp.mean(full, axis=axis, keepdims=True)
    square = jnp.mean(full * full, axis=axis, keepdims=True)
    return (full * jax.lax.rsqrt(square + EPSILON)).astype(x.dtype)


NORMS: dict[str, Callable[[Array], Array]] = {"layernorm": layer_norm, "rmsnorm": rms_norm}


# Blocks


def plain(linear: Linear, phi: Phi, h: Array, *, branch: Block, norm: Callable, alpha: Array | float) -> Array:
    """The branch itself."""
    del norm, alpha
    return branch(linear, phi, h)


def residual(linear: Linear, phi: Phi, h: Array, *, branch: Block, norm: Callable, alpha: Array | float) -> Array:
    """H + α branch(h)."""
    del norm
    return h + _times(alpha, branch(linear, phi, h))


def prenorm(linear: Linear, phi: Phi, h: Array, *, branch: Block, norm: Callable, alpha: Array | float) -> Array:
    """H + α branch(norm(h))."""
    return h + _times(alpha, branch(linear, phi, norm(h)))


def postnorm(linear: Linear, phi: Phi, h: Array, *, branch: Block, norm: Callable, alpha: Array | float) -> Array:
    """norm(h + α branch(h))."""
    return norm(h + _times(alpha, branch(linear, phi, h)))


def batchnorm(linear: Linear, phi: Phi, h: Array, *, branch: Block, norm: Callable, alpha: Array | float) -> Array:
    """The branch with z normalized over the inputs of the batch, before each φ."""
    del norm, alpha
    return branch(linear, lambda z: phi(batch_norm(z)), h)


BLOCKS: dict[str, Callable[..., Array]] = {
    "plain": plain,
    "residual": residual,
    "prenorm": prenorm,
    "postnorm": postnorm,
    "batchnorm": batchnorm,
}


def block_of(name: str | Block, *, branch: str, norm: str, alpha: Array | float) -> Block:
    """The block of that name; a user's own is its own.

    >>> block = block_of("residual", branch="two_layer", norm="rmsnorm", alpha=0.5)
    >>> block(lambda h, **settings: 2 * h, jax.nn.relu, jnp.array([[1.0, -1.0]])).tolist()
    [[3.0, -1.0]]
    """
    if callable(name):
        return name
    return partial(BLOCKS[name], branch=BRANCHES[branch], norm=NORMS[norm], alpha=alpha)


def mixes_inputs(name: str | Block) -> bool:
    """Whether one input may change what becomes of another: not known of a user's block."""
    return callable(name) or name == "batchnorm"


def _times(alpha: Array | float, x: Array) -> Array:
    return jnp.asarray(alpha, x.dtype) * x
