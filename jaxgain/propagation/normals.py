r"""Standard normal numbers by their position, several times faster than in bulk from `jax.random` on a CPU.

Threefry-2x32 turns a key and a position of 64 bits into 64 random bits. Here both halves are used, each for one
number; the rounds and the inverse error function are written out, so that the compiler makes two passes in all, one
to the bits and one to the numbers.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Threefry-2x32 with 20 rounds: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA

# erf⁻¹(x)/x as a polynomial in t = s/2 − 1, s² = −log(1 − x²), highest power first: interpolation in Chebyshev nodes
# on −1 ≤ t ≤ 1, which is |x| ≤ 1 − 2⁻²⁴; relative error 1.5e-7. One polynomial and no choice between two, as
# in Giles, "Approximating the erfinv function", GPU Computing Gems, 2012, keeps the compiler's pass in one piece.
QUANTILE = (
    *(0.0289249167, -0.00263279002, -0.153486495, 0.0206393034, 0.366479223, -0.0742547809),
    *(-0.533335371, 0.168904831, 0.544923274, -0.284632203, -0.414252409, 0.388588124),
    *(0.213664426, -0.566673319, 0.45130903, 1.82683927, 1.85877889),
)


def standard_normal(key: Array, stream: Array | int, rows: int, width: int) -> Array:
    """Independent standard normal numbers (rows, width), float32, the same for a row however many rows follow.

    The key is two random words (2,), uint32. Each of its streams, a whole number below 2**32, has numbers of its own;
    rows × width may be up to 2**33.

    >>> x = standard_normal(jnp.array([3, 4], np.uint32), 7, rows=2, width=500_000)
    >>> bool(jnp.abs(jnp.mean(x)) < 3e-3), bool(jnp.abs(jnp.mean(x * x) - 1) < 5e-3)
    (True, True)
    """
    half = -(-width // 2)
    position = lax.iota(np.uint32, rows * half).reshape(rows, half)
    words = threefry(key, jnp.asarray(stream, np.uint32), position)
    # Without the barrier XLA runs Threefry once for each half, or one number at a time.
    return normal_of(jnp.concatenate(lax.optimization_barrier(words), axis=1))[:, :width]


def threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Encrypt positions of two words with a key (2,); words are uint32, `high` a scalar, `low` of any shape.

    >>> [hex(word) for word in threefry(jnp.zeros(2, np.uint32), jnp.uint32(0), jnp.uint32(0))]  # the authors' test
    ['0x6b200159', '0x99ba4efe']
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(PARITY))
    high, low = jnp.broadcast_arrays(high + schedule[0], low + schedule[1])
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            high = high + low
            low = high ^ _rotated(low, bits)
        high = high + schedule[(group + 1) % 3]
        low = low + (schedule[(group + 2) % 3] + np.uint32(group + 1))
    return high, low


def normal_of(word: Array) -> Array:
    """The standard normal quantile at one of 2**24 equal steps, symmetric about 0, from a random uint32.

    >>> largest, smallest = normal_of(jnp.array([0x7FFFFFFF, 0], np.uint32))
    >>> round(float(largest), 3), round(float(smallest) * 2**24, 3)
    (5.42, 1.253)
    """
    steps = lax.shift_right_arithmetic(lax.bitcast_convert_type(word, np.int32), np.int32(7)) | np.int32(1)
    return np.float32(2**0.5) * erf_inv(steps.astype(np.float32) * np.float32(2**-24))


def erf_inv(x: Array) -> Array:
    """Inverse error function of |x| < 1, float32, to 5e-7 relative."""
    # The product keeps the tails: 1 − x² of a rounded x² loses them.
    t = 0.5 * jnp.sqrt(-jnp.log((1 - x) * (1 + x))) - 1
    polynomial = jnp.full_like(t, QUANTILE[0])
    for coefficient in QUANTILE[1:]:
        polynomial = polynomial * t + np.float32(coefficient)
    return polynomial * x


def _rotated(word: Array, bits: int) -> Array:
    return lax.shift_left(word, np.uint32(bits)) | lax.shift_right_logical(word, np.uint32(32 - bits))
