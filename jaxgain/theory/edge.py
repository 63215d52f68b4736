r"""The edge of chaos, $\chi_\perp = 1$ at a fixed point of the length map (Poole et al., 2016; Hayou et al., 2019).

The edge is a curve in the plane of $\sigma_w$ and $\sigma_b$, with the length as its parameter: at every q there
is one $\sigma_w^2 = 1/E\phi'^2$ with $\chi_\perp = 1$, and one $\sigma_b^2 = q - E\phi^2/E\phi'^2$ that keeps q
fixed, where that is not negative. A $\sigma_b$ may be met at several lengths, or at none.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jax.core import Tracer

from jaxgain.activations import Activation, activation
from jaxgain.theory.critical import Edge, edge_at, is_scale_invariant, root, sigma_w_at_zero
from jaxgain.theory.finite import check_finite
from jaxgain.theory.lengths import extrema, fixed_lengths, scan
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import Expectation, resolve
from jaxgain.theory.quadrature import NotFinite, check_length, moments

if TYPE_CHECKING:
    import xarray


class NoEdge(ValueError):
    """An edge of chaos that does not exist; the message is the reason."""


class EdgeOfChaos(NamedTuple):
    r"""A point of the edge of chaos: $\chi_\perp = 1$ at the fixed length q of `init`.

    `stability` is that of the length: "stable" ($\chi_\parallel < 1$), "unstable" (above 1: the length leaves q,
    and $\chi_\perp$ does not stay 1), "half-stable" (1, the critical point), or "neutral" (every length is
    preserved).
    """

    init: Init
    q: float
    chi_par: float
    stability: str

    @property
    def stable(self) -> bool:
        """Whether the lengths on both sides of q are attracted to it."""
        return self.stability == "stable"


def edge_of_chaos(
    phi: "str | Activation | Callable[..., Any]", sigma_b: float | None = None, *, sigma_w: float | None = None
) -> EdgeOfChaos:
    r"""Return the point of the edge of chaos that has this `sigma_b`, or this `sigma_w`.

    Of several the stable one at the smallest length; where none is stable the one at the smallest length, which
    says so: GELU below $\sigma_b = 0.4158$ and SiLU below 0.7451 have $\chi_\perp = 1$ only where the length is
    unstable.

    Raises `NoEdge`, with the reason, where there is none, and `ValueError` unless exactly one of `sigma_b` and
    `sigma_w` is given, finite and not negative.

    >>> eoc = edge_of_chaos("tanh", sigma_b=0.2)
    >>> round(eoc.init.sigma_w, 12), eoc.stable, edge_of_chaos("gelu", sigma_b=0.2).stable
    (1.304145840057, True, False)
    """
    found = edges_of_chaos(phi, sigma_b, sigma_w=sigma_w)
    if not found:
        raise NoEdge(_reason(resolve(activation(phi)), sigma_b, sigma_w))
    return next((point for point in found if point.stable), found[0])


def edges_of_chaos(
    phi: "str | Activation | Callable[..., Any]", sigma_b: float | None = None, *, sigma_w: float | None = None
) -> tuple[EdgeOfChaos, ...]:
    r"""Return every point of the edge of chaos that has this `sigma_b`, or this `sigma_w`, by increasing length.

    Raises `ValueError` as `edge_of_chaos`, but is empty where there is none.

    >>> [point.stability for point in edges_of_chaos("gelu", sigma_b=0.2)], edges_of_chaos("softplus", sigma_b=0.2)
    (['unstable'], ())
    """
    phi = resolve(activation(phi))
    check_finite(phi)
    if (sigma_b is None) == (sigma_w is None):
        raise ValueError(f"give one of sigma_b and sigma_w, got sigma_b = {sigma_b!r} and sigma_w = {sigma_w!r}")
    if isinstance(sigma_b, Tracer) or isinstance(sigma_w, Tracer):
        name = "sigma_w" if sigma_b is None else "sigma_b"
        raise ValueError(
            f"the edge of chaos is found for one number, got a traced {name}; call this outside jit and vmap"
        )
    checked = Init(0.0 if sigma_w is None else sigma_w, 0.0 if sigma_b is None else sigma_b)
    if np.ndim(checked.sigma_w) or np.ndim(checked.sigma_b):
        raise ValueError(f"the edge of chaos is found for one number, got {checked!r}; the curve is edge_curve")
    if sigma_b is None:
        return _edges(phi, None, float(checked.sigma_w))
    return _edges(phi, float(checked.sigma_b), None)


@functools.lru_cache(maxsize=1024)
def _edges(phi: Activation, sigma_b: float | None, sigma_w: float | None) -> tuple[EdgeOfChaos, ...]:
    if math.isinf(moments(phi, 1.0).slope_second.value):
        return ()
    zero = _at_zero(phi, sigma_b, sigma_w)
    if is_scale_invariant(phi):
        return zero

    def excess(edge: Edge) -> Expectation:
        if sigma_b is None:
            return Expectation(edge.sigma_w.value - sigma_w, edge.sigma_w.error)  # type: ignore
        return Expectation(edge.q * edge.bias.value - sigma_b**2, edge.q * edge.bias.error)

    points = [_point(phi, q, sigma_b) for q in _roots(phi, excess)]
    return zero + tuple(point for point in points if point is not None)


def _at_zero(phi: Activation, sigma_b: float | None, sigma_w: float | None) -> tuple[EdgeOfChaos, ...]:
    """Return the end of the edge at sigma_b = 0 and q = 0, if there is one and it has this sigma_b or sigma_w."""
    end = sigma_w_at_zero(phi)
    if end is None or not (sigma_b == 0 if sigma_w is None else abs(sigma_w / end - 1) < 1e-13):
        return ()
    if is_scale_invariant(phi):
        return (EdgeOfChaos(Init(end), 1.0, 1.0, "neutral"),)
    return (EdgeOfChaos(Init(end), 0.0, 1.0, fixed_lengths(phi, end, 0.0)[0].stability),)


@functools.lru_cache(maxsize=512)
def _curve(phi: Activation) -> tuple[Edge, ...]:
    """Return the edge along the scan, and where sigma_w or sigma_b is largest or smallest on it."""
    edges = []
    for q, _ in scan(phi):
        try:
            edges.append(edge_at(phi, q))
        except (NotFinite, ZeroDivisionError, OverflowError):
            continue
    widths = extrema([(e.q, e.sigma_w) for e in edges], lambda q: edge_at(phi, q).sigma_w.value)
    squares = [(e.q, Expectation(e.q * e.bias.value, e.q * e.bias.error)) for e in edges]
    biases = extrema(squares, lambda q: q * edge_at(phi, q).bias.value)
    return tuple(sorted([*edges, *(edge_at(phi, q) for q in widths + biases)], key=lambda edge: edge.q))


def _roots(phi: Activation, excess: Callable[[Edge], Expectation]) -> list[float]:
    """Return the lengths at which `excess` changes sign; only a value beyond its error has one."""
    values = [(edge.q, excess(edge), edge) for edge in _curve(phi)]
    signed = [(q, e.value) for q, e, edge in values if abs(e.value) > 10 * e.error + 1e-14 * abs(edge.bias.value)]
    brackets = [(a, b) for (a, fa), (b, fb) in itertools.pairwise(signed) if (fa < 0) != (fb < 0)]
    return [root(lambda q: excess(edge_at(phi, q)).value, a, b) for a, b in brackets]


def _point(phi: Activation, q: float, sigma_b: float | None) -> EdgeOfChaos | None:
    edge = edge_at(phi, q)
    if sigma_b is None:
        if edge.bias.value < -10 * edge.bias.error:
            return None  # only a negative sigma_b^2 would keep this length
        sigma_b = math.sqrt(q * max(edge.bias.value, 0.0))
    chi_par = edge.chi_par.value
    rounding = 1e-12 + 10 * edge.chi_par.error
    stability = "half-stable" if abs(chi_par - 1) <= rounding else "stable" if chi_par < 1 else "unstable"
    return EdgeOfChaos(Init(edge.sigma_w.value, sigma_b), q, chi_par, stability)


def _reason(phi: Activation, sigma_b: float | None, sigma_w: float | None) -> str:
    wanted = f"sigma_w = {sigma_w:g}" if sigma_b is None else f"sigma_b = {sigma_b:g}"
    if math.isinf(moments(phi, 1.0).slope_second.value):
        return f"{phi.name} jumps, so chi_perp is infinite for every sigma_w > 0: it has no edge of chaos"
    if is_scale_invariant(phi):
        return (
            f"{phi.name} has no edge of chaos with {wanted}: at sigma_w = {sigma_w_at_zero(phi):.10g}, where "
            "chi_perp = 1, every length grows by sigma_b^2 per layer"
        )
    allowed = [edge for edge in _curve(phi) if edge.bias.value > 10 * edge.bias.error]
    if not allowed:
        return (
            f"{phi.name} has no edge of chaos: q - E phi^2/E phi'^2, which sigma_b^2 must be where chi_perp = 1, is "
            "negative for every q"
        )
    values = [edge.sigma_w.value if sigma_b is None else math.sqrt(edge.q * edge.bias.value) for edge in allowed]
    name = "sigma_w" if sigma_b is None else "sigma_b"
    return f"{phi.name} has no edge of chaos with {wanted}: on it, {name} is between {min(values):.6g} and " + (
        f"{max(values):.6g}"
    )


def edge_curve(phi: "str | Activation | Callable[..., Any]", q: Any = None) -> "xarray.Dataset":
    r"""Return the edge of chaos along the length q, by default from 1e-4 to 1e3: `sigma_w`, `sigma_b`, `chi_par`.

    And `stability`, "stable", "half-stable", "unstable", or "none" where no $\sigma_b$ keeps the length q fixed:
    there all else is NaN.

    Raises `ValueError` on a q that is not positive and on an empty q, and `NoEdge` where phi jumps.

    >>> curve = edge_curve("gelu", [1.0, (3 + 17**0.5) / 2, 5.0])
    >>> curve.stability.values.tolist(), round(float(curve.sigma_b[1]) ** 2, 10)
    (['unstable', 'half-stable', 'stable'], 0.1729223908)
    """
    import xarray

    phi = resolve(activation(phi))
    check_finite(phi)
    if math.isinf(moments(phi, 1.0).slope_second.value):
        raise NoEdge(_reason(phi, 0.0, None))
    if isinstance(q, Tracer):
        raise ValueError("the edge of chaos is found for numbers, got a traced q; call this outside jit and vmap")
    lengths = [check_length(value) for value in (np.logspace(-4, 3, 141) if q is None else np.atleast_1d(q))]
    if not lengths:
        raise ValueError("q must hold at least one length, got none; leave it out for 141 of them from 1e-4 to 1e3")
    points = [_point(phi, length, None) for length in lengths]
    rows = [
        (math.nan,) * 3 + ("none",)
        if point is None
        else (point.init.sigma_w, point.init.sigma_b, point.chi_par, point.stability)
        for point in points
    ]
    columns = dict(zip(("sigma_w", "sigma_b", "chi_par", "stability"), zip(*rows, strict=True), strict=True))
    return xarray.Dataset(
        {name: (("q",), np.array(column)) for name, column in columns.items()},
        coords={"q": lengths},
        attrs={"activation": phi.name, "description": "edge of chaos: chi_perp = 1 at the fixed length q"},
    )
