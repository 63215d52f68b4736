r"""Kernels over depth of a plain network of infinite width: of its outputs, and of its gradients.

The network ends in a linear layer: with `depth` weight matrices, $f = z^{\mathrm{depth}}$ in the names of this
package. NNGP: the covariance of f between inputs at initialization (Lee et al., *Deep neural networks as Gaussian
processes*, 2018). NTK: $\Theta(x, x') = \nabla f(x) \cdot \nabla f(x')$, over all parameters, which governs training
(Jacot et al., *Neural tangent kernel*, 2018). All inputs have one length; correlations are the cosines between them.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.finite import check_finite
from jaxgain.theory.meanfield import Init, one_init
from jaxgain.theory.pairs import separations
from jaxgain.theory.panels import resolve
from jaxgain.theory.quadrature import moments

if TYPE_CHECKING:
    import xarray

PARAMETERIZATIONS = ("ntk", "standard")
_WHAT = "kernels over depth are those"


def nngp(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    depth: int,
    correlation: Any,
    inputs: int = 2,
    second_moment: float = 1.0,
) -> "xarray.Dataset":
    r"""Return the covariance of the outputs of networks of 1 … `depth` weight layers (Lee et al., 2018).

    $K^1 = \sigma_w^2\,\overline{x x'} + \sigma_b^2$, $K^{l+1} = \sigma_w^2 E\,\phi(u)\phi(v) + \sigma_b^2$ with u, v of
    covariance $K^l$.

    `correlation` is one cosine between inputs, an array of them, or the matrix of all cosines of some inputs (square,
    symmetric, with a unit diagonal); `second_moment` the mean square of an input's entries. Variables over `layer`:
    `diagonal` K(x, x), `kernel` K(x, x') and `separation`, their difference to all its digits, shaped as the
    correlation; and of the kernel matrix `largest_eigenvalue` and `condition_number`. Where the correlation is not a
    matrix it is that of all pairs of `inputs` inputs.

    Raises `ValueError` and `TypeError` on correlations and sizes that are none, on lengths that vanish or overflow,
    and where phi is not finite or has no finite expectation.

    >>> kernel = nngp("relu", Init(2**0.5), depth=2, correlation=0.0)
    >>> round(float(kernel.kernel[-1]), 12) == round(2 / np.pi, 12)  # arc-cosine kernel of degree 1
    True
    """
    layers = _layers(phi, init, depth, correlation, second_moment)
    return _dataset(phi, init, ((layer.q, layer.separation) for layer in layers), correlation, inputs)


def ntk(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    depth: int,
    correlation: Any,
    parameterization: str = "ntk",
    width: int | None = None,
    input_width: int | None = None,
    biases: bool = True,
    inputs: int = 2,
    second_moment: float = 1.0,
) -> "xarray.Dataset":
    r"""Return the neural tangent kernel of networks of 1 … `depth` weight layers, as in `nngp` (Jacot et al., 2018).

    "ntk": $W = \sigma_w\omega/\sqrt n$, $b = \sigma_b\beta$, and the kernel is that of $\omega, \beta$:
    $\Theta^1 = K^1$, $\Theta^{l+1} = K^{l+1} + \sigma_w^2 E\,\phi'(u)\phi'(v)\,\Theta^l$. "standard": of W and b
    themselves, so that a layer adds $n\,\overline{h h'} + 1$ in the place of K, with n its inputs: `width`, and
    `input_width` for the first layer (by default the width), at leading order in them; the 1 is that of the
    `biases`, which may be absent (Sohl-Dickstein et al., *On the infinite width limit of neural networks with a
    standard parameterization*, 2020).

    Besides the variables of `nngp`: `largest_learning_rate`, $2/\lambda_{\max}$, below which full-batch gradient
    descent on $\tfrac12\sum_i (f(x_i) - y_i)^2$ is stable while the kernel stays what it is, learning all parameters
    of that parameterization at one rate; for the mean of the N squares multiply it by N/2.

    Raises as `nngp`, and `ValueError` where phi jumps, as nothing is learned through a jump, or where the standard
    parameterization has no width.

    >>> kernel = ntk("relu", Init(2**0.5), depth=2, correlation=0.0)
    >>> round(float(kernel.diagonal[-1]), 12), round(float(kernel.kernel[-1]), 12) == round(2 / np.pi, 12)
    (4.0, True)
    """
    if parameterization not in PARAMETERIZATIONS:
        raise ValueError(f"parameterization must be ntk or standard, got {parameterization!r}")
    standard = parameterization == "standard"
    if not standard and not (width is None and input_width is None):
        raise ValueError("the kernel in the ntk parameterization has no width; leave out width and input_width")
    if standard and width is None:
        raise ValueError("the kernel in the standard parameterization is proportional to the width: give width")
    widths = [_count("width", n, "counts neurons") for n in (input_width or width, width)] if standard else []
    sigma_w, sigma_b = one_init(init, _WHAT)
    of_weights = (lambda layer: float(widths[min(layer, 1)])) if standard else (lambda _: sigma_w**2)
    of_biases = float(biases) if standard else sigma_b**2
    if resolve(activation(phi)).jumps:
        raise ValueError(f"{activation(phi).name} jumps, and nothing is learned through a jump: its NTK is infinite")
    layers = _layers(phi, init, depth, correlation, second_moment)
    return _dataset(phi, init, _tangent(layers, of_weights, of_biases), correlation, inputs, learning=True)


class Layer(NamedTuple):
    r"""One layer's z: q, what separates pairs, and the second moment and separations of the h that enters it.

    `chi_perp` $= \sigma_w^2 E\phi'^2$ and `slope_separation` $= \sigma_w^2 E(\phi' - \phi'_{other})^2/2$ are those of
    the layer below, 0 in the first one.
    """

    q: float
    separation: np.ndarray
    entering: float
    entering_separation: np.ndarray
    chi_perp: float
    slope_separation: Any


def _layers(phi: Any, init: Init, depth: int, correlation: Any, second_moment: Any) -> Iterator[Layer]:
    phi = resolve(activation(phi))
    check_finite(phi)
    sigma_w, sigma_b = one_init(init, _WHAT)
    depth = _count("depth", depth, "counts the weight layers")
    if not (isinstance(second_moment, int | float | np.number) and 0 < second_moment < math.inf):
        raise ValueError(f"second_moment must be finite and positive, a mean square, got {second_moment!r}")
    entering, separation = float(second_moment), second_moment * (1 - _cosines(correlation))
    return _recursion(phi, sigma_w, sigma_b, depth, entering, separation)


def _recursion(
    phi: Activation, sigma_w: float, sigma_b: float, depth: int, entering: float, separation: np.ndarray
) -> Iterator[Layer]:
    chi_perp, slope_separation = 0.0, 0.0
    for layer in range(1, depth + 1):
        q = sigma_w**2 * entering + sigma_b**2
        if not 1e-290 < q < 1e290:
            raise ValueError(f"the length of layer {layer} is {q:g}, and has no kernel; choose fewer layers or an init")
        yield Layer(q, sigma_w**2 * separation, entering, separation, chi_perp, slope_separation)
        m, apart = moments(phi, q), separations(phi, q, sigma_w**2 * separation / q)
        entering, separation = m.second.value, apart.value
        chi_perp, slope_separation = sigma_w**2 * m.slope_second.value, sigma_w**2 * apart.slope


def _tangent(
    layers: Iterator[Layer], of_weights: Callable[[int], float], of_biases: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the diagonal of the NTK and its separation, which is a sum of positive terms."""
    diagonal, separation = 0.0, 0.0
    for place, layer in enumerate(layers):
        other = diagonal - separation
        separation = (
            of_weights(place) * layer.entering_separation + layer.chi_perp * separation + layer.slope_separation * other
        )
        diagonal = of_weights(place) * layer.entering + of_biases + layer.chi_perp * diagonal
        yield diagonal, separation


def _dataset(
    phi: Any,
    init: Init,
    kernels: Iterator[tuple[float, np.ndarray]],
    correlation: Any,
    inputs: int,
    learning: bool = False,
) -> "xarray.Dataset":
    import xarray

    inputs = _count("inputs", inputs, "counts the inputs")
    diagonal, separation = (np.array(part) for part in zip(*kernels, strict=True))
    matrix = _is_matrix(np.asarray(correlation, np.float64))
    dims = [(), ("pair",), ("input", "other")][separation.ndim - 1]
    kernel = diagonal.reshape(-1, *[1] * len(dims)) - separation
    if matrix:
        eigenvalues = np.linalg.eigvalsh(kernel)
        smallest, largest = eigenvalues[:, 0], eigenvalues[:, -1]
        dims_of_all: tuple[str, ...] = ("layer",)
    else:
        apart, together = separation, inputs * kernel + separation
        smallest, largest = np.minimum(apart, together), np.maximum(apart, together)
        dims_of_all = ("layer", *dims)
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.where(smallest > 0, largest / smallest, math.inf)
    variables = {
        "diagonal": ("layer", diagonal),
        "kernel": (("layer", *dims), kernel),
        "separation": (("layer", *dims), separation),
        "largest_eigenvalue": (dims_of_all, largest),
        "condition_number": (dims_of_all, condition),
    }
    if learning:
        variables["largest_learning_rate"] = (dims_of_all, 2 / largest)
    attributes = dict(activation=activation(phi).name, sigma_w=float(init.sigma_w), sigma_b=float(init.sigma_b))
    attributes["inputs"] = separation.shape[-1] if matrix else inputs
    return xarray.Dataset(variables, coords={"layer": np.arange(1, diagonal.size + 1)}, attrs=attributes)


# What is asked for


def _count(name: str, given: Any, why: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise TypeError(f"{name} must be a whole number, got {given!r}")
    if given < 1:
        raise ValueError(f"{name} must be at least 1, got {given}; it {why}")
    return int(given)


def _is_matrix(correlation: np.ndarray) -> bool:
    return correlation.ndim == 2


def _cosines(correlation: Any) -> np.ndarray:
    try:
        cosines = np.asarray(correlation, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"correlation must be a number or an array of numbers, got {correlation!r}") from None
    if not (np.abs(cosines) <= 1 + 1e-12).all():
        raise ValueError(f"correlations are cosines, from -1 to 1, got {correlation!r}")
    if cosines.ndim > 2:
        raise ValueError(f"correlation must be a number, a list or a matrix, got an array of shape {cosines.shape}")
    if _is_matrix(cosines):
        square = cosines.shape[0] == cosines.shape[1]
        if not (square and (np.diag(cosines) > 1 - 1e-12).all() and np.allclose(cosines, cosines.T, atol=1e-12)):
            raise ValueError("a matrix of correlations must be square and symmetric, with 1 on its diagonal")
        cosines = np.where(np.eye(len(cosines), dtype=bool), 1.0, cosines)
    return np.clip(cosines, -1, 1)
