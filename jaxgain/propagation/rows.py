r"""Few vectors of many entries: the algebra that propagation needs, safe at every scale.

A layer meets a handful of vectors (signals, tangents, cotangents), the *rows*, each with one entry per
neuron. Everything that a Gaussian weight matrix does to them depends on their triangular factor alone.
Inner products here are means over the neurons, so a vector of ones has norm 1 at every width.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

# A row whose part outside the rows before it is smaller than this, relative to the row itself, lies in their
# span: in float32 projection leaves a few units in the last place of such a row.
DEAD = 1.2e-6

# Up to this many rows the loops are unrolled into fused elementwise passes; beyond, they are matrix products.
UNROLLED = 4

# Up to this width there may be as many rows as directions, differences of nearly equal numbers matter, and no time.
NARROW = 64

# What brings the smallest numbers of float32 so far up that means of them do not underflow.
RAISED = 2.0**64

# Parts of a row that are added to one another before they are summed up: fewer and longer sums per pass.
PARTS = 4


Rows = list[Array]
"""K vectors of shape (n,). Kept apart, not stacked: a stack inside a loop over neurons is not vectorized."""


class Factor(NamedTuple):
    """Rows written in an orthonormal basis of their span, `rows = lower @ basis` and `basis = inverse @ rows`."""

    lower: Array
    """(K, K) lower triangular; the norm of its row i is the rms of row i."""
    inverse: Array
    """(K, K) lower triangular; zero rows where a row adds no direction of its own."""


def products_are_faster() -> bool:
    """Whether a sum over neurons is faster as a product with ones: on a CPU, where XLA's own reductions are slow."""
    return jax.default_backend() == "cpu"


def mean(x: Array) -> Array:
    """Mean over the neurons, (n,) -> ()."""
    return mean_of_parts(parts_of(x))


def parts_of(x: Array) -> Rows:
    """One row of many neurons as `PARTS` of equal length, where that makes sums faster; else the row itself."""
    width = x.shape[0]
    divided = products_are_faster() and width > NARROW and width % PARTS == 0
    return list(x.reshape(PARTS, -1)) if divided else [x]


def mean_of_parts(parts: Rows) -> Array:
    """Mean over the neurons of a row that is given as `parts_of` it -> ()."""
    added = sum_of(parts)
    if not products_are_faster():
        return jnp.mean(added) / len(parts)
    return product(added, jnp.full(added.shape, 1 / (len(parts) * added.shape[0]), added.dtype))


def magnitude(row: Array, *, whole_range: bool = False) -> Array:
    """A size between max |row| / n and n max |row|, 0 only for a row of zeros, (n,) -> ().

    On a CPU, whose subnormal numbers are zero, a row whose entries are all below n times the smallest normal number
    has a size only with `whole_range`; elsewhere this is max |row|.
    """
    if not products_are_faster():
        return jnp.max(jnp.abs(row))
    average = mean(jnp.abs(row))
    if not whole_range:
        return average
    return lowered(average, mean(jnp.abs(row) * RAISED), row.shape[0])


def lowered(plain: Array, raised: Array, width: int) -> Array:
    """A size of x >= 0 over the whole range of float32: its mean, or where that may underflow n times its mean.

    `raised` is the mean of `RAISED` x, which overflows at the upper end of the format.
    """
    return jnp.where(plain > 2.0**-40, plain, raised * (width / RAISED))


def product(a: Array, b: Array) -> Array:
    """Matrix product in full float32 precision on every device, (..., i, k), (k, j) -> (..., i, j)."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def small_product(a: Array, b: Array) -> Array:
    """Matrix product of matrices of a few entries, (i, k), (k, j) -> (i, j), fused with what is around it."""
    if a.shape[1] > 2 * UNROLLED:
        return jnp.sum(a[:, :, None] * b[None, :, :], axis=1)
    return sum_of(a[:, k, None] * b[None, k, :] for k in range(a.shape[1]))


def projections(rows: Rows, noise: Rows) -> Array:
    """Means over the neurons of every product of I rows and J rows of noise -> (I, J).

    A sweep does not batch the noise, so each of these is one matrix–vector product for all gains.
    """
    scaled = [e / e.shape[0] for e in noise]
    if len(rows) * len(noise) <= UNROLLED**2:
        return jnp.stack([jnp.stack([product(row, e) for e in scaled]) for row in rows])
    return product(jnp.stack(rows), jnp.stack(scaled).T)


def combine(coefficients: Array, rows: Rows) -> Rows:
    """Linear combinations (I, K) of K rows -> I rows."""
    if coefficients.shape[0] * len(rows) <= UNROLLED**2:
        return [sum_of(c[k] * row for k, row in enumerate(rows)) for c in coefficients]
    return list(product(coefficients, jnp.stack(rows)))


def combine_lower(lower: Array, rows: Rows) -> Rows:
    """`combine` for a lower triangular (K, K) matrix: row i is a combination of the first i + 1 rows."""
    if len(rows) <= UNROLLED:
        return [sum_of(c[k] * rows[k] for k in range(i + 1)) for i, c in enumerate(lower)]
    return list(product(lower, jnp.stack(rows)))


def sum_of(terms: Iterable[Array]) -> Array:
    """The sum of one or more arrays, without the zero that `sum` starts from."""
    first, *others = terms
    for term in others:
        first = first + term
    return first


def reciprocal(x: Array) -> Array:
    """1 / x, and 0 where x is 0 (or too small to have a reciprocal in its format)."""
    usable = jnp.abs(x) >= jnp.finfo(x.dtype).tiny
    return jnp.where(usable, 1 / jnp.where(usable, x, 1), jnp.where(jnp.isnan(x), x, 0))


def norm(x: Array) -> Array:
    """Euclidean norm over the last axis without overflow or underflow of the squares, (..., K) -> (...)."""
    peak = jnp.max(jnp.abs(x), axis=-1)
    return peak * jnp.sqrt(jnp.sum((x * reciprocal(peak)[..., None]) ** 2, axis=-1))


def sizes_of(rows: Rows, *, whole_range: int = 0) -> Array:
    """The `magnitude` of each of the K rows (K,), over the whole range of float32 for the first ones."""
    return stack([magnitude(row, whole_range=i < whole_range) for i, row in enumerate(rows)])


def scaled(rows: Rows, factors: Array) -> Rows:
    """Each of the K rows times its factor (K,)."""
    return [row * factor for row, factor in zip(rows, factors, strict=True)]


def unit_size(rows: Rows) -> tuple[Rows, Array]:
    """Rows divided by their magnitudes, and those: squares of what is left neither overflow nor underflow."""
    sizes = sizes_of(rows, whole_range=len(rows))
    return scaled(rows, reciprocal(sizes)), sizes


def unit_rows(rows: Array) -> tuple[Array, Array]:
    """`unit_size` of rows (K, n) in one array."""
    few = len(rows) <= UNROLLED
    sizes = sizes_of(list(rows), whole_range=len(rows)) if few else jnp.max(jnp.abs(rows), axis=1)
    return rows * reciprocal(sizes)[:, None], sizes


def mean_squares(rows: Array) -> Array:
    """Mean over the neurons of each row's squares, (K, n) -> (K,)."""
    return stack([mean(row * row) for row in rows]) if len(rows) <= UNROLLED else jnp.mean(rows * rows, axis=1)


def units_and_lower(rows: Array) -> tuple[Rows, Array, Array]:
    """Rows (K, n) of any type over their magnitudes, in float32, those (K,), and the `lower` of their `Factor`."""
    units, sizes = unit_size(list(rows.astype(jnp.float32)))
    return units, sizes, factor(units, careful=len(units)).lower


def stack(scalars: list[Array]) -> Array:
    """Scalars as a vector, also when there are none."""
    return jnp.stack(scalars) if scalars else jnp.zeros(0, jnp.float32)


def factor(rows: Rows, careful: int) -> Factor:
    r"""Gram–Schmidt in row order with residuals formed explicitly, K rows -> K × K factors.

    Rows must be of order one (see `magnitude`). Explicit residuals keep what a Gram matrix loses: two rows at
    angle $10^{-3}$ in float32 have a residual good to four digits, while $p - b^2$ has none. A row that lies
    in the span of the rows before it gets a zero on the diagonal and a zero row in the inverse. The first
    `careful` rows are projected twice, which makes them orthogonal to rounding however close they are; the
    others once, which leaves them good to rounding of the row but not of its residual (narrow rows: all twice).

    >>> factor([jnp.array([3.0, 3.0]), jnp.array([1.0, 2.0])], careful=2).lower.round(6).tolist()
    [[3.0, 0.0], [1.5, 0.5]]
    """
    if len(rows) == 1 or (len(rows) <= UNROLLED and rows[0].shape[0] > NARROW):
        return _factor_unrolled(rows, careful)
    return factor_array(jnp.stack(rows))


def orthonormal(rows: Array, careful: int) -> tuple[Array, Array]:
    """Rows (K, n) of order one -> an orthonormal basis (K, n) and `lower` (K, K), rows = lower @ basis; see `factor`.

    >>> basis, lower = orthonormal(jnp.array([[3.0, 3.0], [1.0, 2.0], [5.0, 5.0]]), careful=3)
    >>> basis.round(6).tolist()
    [[1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]]
    """
    count, width = rows.shape
    if count == 1 or (count <= UNROLLED and width > NARROW):
        basis, over, lower = _gram_schmidt(list(rows), careful)
        return jnp.stack(scaled(basis, jnp.stack(over))), lower
    return orthonormalized(rows, width)[:2]


def _factor_unrolled(rows: Rows, careful: int) -> Factor:
    _, over, lower = _gram_schmidt(rows, careful)
    count = len(rows)
    inverse: list[list[Array]] = []
    for i in range(count):
        before = [-sum_of(lower[i, m] * inverse[m][j] for m in range(j, i)) * over[i] for j in range(i)]
        inverse.append([*before, over[i], *[jnp.zeros((), rows[0].dtype)] * (count - i - 1)])
    return Factor(lower, jnp.stack([jnp.stack(row) for row in inverse]))


def _gram_schmidt(rows: Rows, careful: int) -> tuple[Rows, list[Array], Array]:
    """An orthogonal basis, the reciprocals of its norms, and the matrix `lower` of `Factor`."""
    count = len(rows)
    zero = jnp.zeros((), rows[0].dtype)
    basis: list[Array] = []  # not normalized: a factor on a number is cheaper than one on every neuron
    over: list[Array] = []
    lower: list[list[Array]] = []
    for i, row in enumerate(rows):
        along = [mean(row * w) * o for w, o in zip(basis, over, strict=True)]
        rest = _without(row, along, basis, over)
        squared = mean(rest * rest)
        if 0 < i < careful:
            again = [mean(rest * w) * o for w, o in zip(basis, over, strict=True)]
            rest = _without(rest, again, basis, over)
            squared = sum_of([squared, *(-p * p for p in again)])
            along = [p + correction for p, correction in zip(along, again, strict=True)]
        size, reciprocal_size = _residual(squared, sum_of([zero, *(p * p for p in along)]))
        basis.append(rest)
        over.append(reciprocal_size)
        lower.append([*along, size, *[zero] * (count - i - 1)])
    return basis, over, jnp.stack([jnp.stack(row) for row in lower])


def _without(row: Array, along: list[Array], basis: Rows, over: list[Array]) -> Array:
    return sum_of([row, *(-(p * o) * w for p, w, o in zip(along, basis, over, strict=True))])


def factor_array(rows: Array) -> Factor:
    """`factor` of rows (K, n) in one array, as a loop: for many rows, or for very short ones."""
    return Factor(*orthonormalized(rows, rows.shape[1])[1:])


def orthonormalized(rows: Array, width: int) -> tuple[Array, Array, Array]:
    """Rows (K, n) -> their orthonormal basis (K, n) itself and both matrices of their `Factor`.

    Inner products are sums over the columns divided by `width`. The basis is orthonormal to rounding however close
    the rows are, `inverse @ rows` only to rounding divided by the angle between them.
    """
    count = rows.shape[0]

    def add_row(i, state):
        basis, lower, inverse = state
        first = product(basis, rows[i]) / width
        rest = rows[i] - product(first, basis)
        second = product(basis, rest) / width
        rest = rest - product(second, basis)
        along = first + second
        size, over = _residual(jnp.sum(rest * rest) / width, jnp.sum(along * along))
        unit = jnp.zeros(count, rows.dtype).at[i].set(1)
        return (
            basis.at[i].set(rest * over),
            lower.at[i].set(along + size * unit),
            inverse.at[i].set((unit - product(along, inverse)) * over),
        )

    empty = jnp.zeros((count, count), rows.dtype)
    return lax.fori_loop(0, count, add_row, (jnp.zeros_like(rows), empty, empty))


def _residual(squared: Array, squared_along: Array) -> tuple[Array, Array]:
    """Norm of a residual and its reciprocal, both 0 where the residual is only rounding."""
    size = jnp.sqrt(jnp.maximum(squared, 0))
    dead = size <= DEAD * jnp.sqrt(squared + squared_along)
    size = jnp.where(dead, 0, size)
    return size, reciprocal(size)
