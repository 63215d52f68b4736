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

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxgain.activations import Activation, activation
from jaxgain.theory.critical import Edge, edge_at, is_scale_invariant, root, sigma_w_at_zero
from jaxgain.theory.finite import check_finite
from jaxgain.theory.lengths import extrema, fixed_lengths, scan
from jaxgain.theory.meanfield import Init, unchecked_init
from jaxgain.theory.panels import Expectation, resolve
from jaxgain.theory.phases import is_stable
from jaxgain.theory.quadrature import NotFinite, check_length, moments
from jaxgain.theory.traced_edge import EdgePoint, places, preferred, traced_edge_at, traced_edges

if TYPE_CHECKING:
    import xarray


class NoEdge(ValueError):
    """An edge of chaos that does not exist; the message is the reason."""


class EdgeOfChaos(NamedTuple):
    r"""A point of the edge of chaos: $\chi_\perp = 1$ at the fixed length q of `init`.

    `stability` is that of the length: "stable" ($\chi_\parallel < 1$), "unstable" (above 1: the length leaves q,
    and $\chi_\perp$ does not stay 1), "half-stable" (1, the critical point), or "neutral" (every length is
    preserved).

    For arrays of scales every field is an array, with NaN and "none" where there is no edge; in traced code `stability`
    is a place in `STABILITIES`, as in `FixedPoint`, and -1 where there is none.
    """

    init: Init
    q: Any
    chi_par: Any
    stability: Any

    @property
    def stable(self) -> Any:
        """Whether the lengths on both sides of q are attracted to it."""
        return is_stable(self.stability)


def edge_of_chaos(
    phi: "str | Activation | Callable[..., Any]", sigma_b: Any = None, *, sigma_w: Any = None, q: Any = None
) -> EdgeOfChaos:
    r"""Return the point of the edge of chaos that has this `sigma_b`, or this `sigma_w`, or this length `q`.

    Of several the stable one at the smallest length; where none is stable the one at the smallest length, which
    says so: GELU below $\sigma_b = 0.4158$ and SiLU below 0.7451 have $\chi_\perp = 1$ only where the length is
    unstable.

    Arrays are taken number by number, and are NaN where there is no edge. Under `jit`, `vmap` and `grad` it is
    computed in the dtype of the traced scale, from a table of the edge at lengths from 1e-12 to 1e6 or as far as it is
    known: to 1e-9 in float64, or, next to a largest or smallest scale of the edge, where two of its points meet, to the
    root of 1e-12, and where $\sigma_b^2/q$ is small, to 1e-14 of its inverse. A length is called half-stable then
    where $\chi_\parallel$ is 1 to 1e-9 (4e-6 in float32).

    Raises `NoEdge`, with the reason, where there is none, for one number, and `ValueError` unless exactly one of
    `sigma_b`, `sigma_w` and `q` is given, finite and not negative (q: positive).

    >>> eoc = edge_of_chaos("tanh", sigma_b=0.2)
    >>> round(eoc.init.sigma_w, 12), eoc.stable, edge_of_chaos("gelu", sigma_b=0.2).stable
    (1.304145840057, True, False)
    >>> import jax
    >>> with jax.enable_x64(True):
    ...     slope = jax.jit(jax.grad(lambda sigma_b: edge_of_chaos("tanh", sigma_b).init.sigma_w))(0.2)
    >>> round(float(slope), 6)
    0.988716
    """
    phi, wanted, given = _asked(phi, sigma_b=sigma_b, sigma_w=sigma_w, q=q)
    if isinstance(given, Tracer):
        return _from_table(phi, wanted, given, every=False)
    if np.ndim(given):
        points = [_preferred(_found(phi, wanted, number)) for number in np.ravel(given).tolist()]
        return _stacked(points, np.shape(given))
    found = _preferred(_found(phi, wanted, float(given)))
    if found is None:
        raise NoEdge(_reason(phi, wanted, float(given)))
    return found


def edges_of_chaos(phi: "str | Activation | Callable[..., Any]", sigma_b: Any = None, *, sigma_w: Any = None) -> Any:
    r"""Return every point of the edge of chaos that has this `sigma_b`, or this `sigma_w`, by increasing length.

    Of one number a tuple, empty where there is none. Of arrays, and under `jit` and `vmap`, as `edge_of_chaos`, one
    `EdgeOfChaos` whose fields have a first axis more, of as many places as phi can have points: one for every piece of
    the edge on which the scale is monotonic, and one for the end of the edge at q = 0. Places that are left over come
    last: NaN, and "none" or -1.

    Raises `ValueError` as `edge_of_chaos`.

    >>> [point.stability for point in edges_of_chaos("gelu", sigma_b=0.2)], edges_of_chaos("softplus", sigma_b=0.2)
    (['unstable'], ())
    >>> edges_of_chaos("gelu", sigma_w=np.array([1.408, 1.6])).stability.tolist()
    [['stable', 'unstable'], ['stable', 'none'], ['none', 'none']]
    """
    phi, wanted, given = _asked(phi, sigma_b=sigma_b, sigma_w=sigma_w, q=None)
    if isinstance(given, Tracer):
        return _from_table(phi, wanted, given, every=True)
    if np.ndim(given):
        rows = [_found(phi, wanted, number) for number in np.ravel(given).tolist()]
        size = max([places(phi, by_bias=wanted == "sigma_b"), *map(len, rows)])
        columns = [_stacked([row[k] if k < len(row) else None for row in rows], np.shape(given)) for k in range(size)]
        return jax.tree.map(lambda *parts: np.stack(parts), *columns)
    return _found(phi, wanted, float(given))


def _asked(phi: Any, **scales: Any) -> tuple[Activation, str, Any]:
    """Return phi, and the name and the value of the one scale that is given."""
    phi = resolve(activation(phi))
    check_finite(phi)
    given = {name: value for name, value in scales.items() if value is not None}
    if len(given) != 1:
        shown = ", ".join(f"{name} = {value!r}" for name, value in scales.items() if value is not None or name != "q")
        raise ValueError(f"give one of sigma_b and sigma_w, or a length q to edge_of_chaos alone, got {shown}")
    ((name, value),) = given.items()
    if isinstance(value, Tracer):
        return phi, name, value
    if name == "q":
        return phi, name, np.vectorize(check_length, otypes=[float])(value) if np.ndim(value) else check_length(value)
    checked = Init(0.0, value) if name == "sigma_b" else Init(value)
    return phi, name, np.asarray(getattr(checked, name), np.float64)


def _found(phi: Activation, wanted: str, number: float) -> tuple[EdgeOfChaos, ...]:
    if wanted != "q":
        return _edges(phi, **({"sigma_b": None, "sigma_w": None} | {wanted: number}))
    if math.isinf(moments(phi, 1.0).slope_second.value):
        return ()
    point = _point(phi, number, None)
    return () if point is None else (point,)


def _preferred(found: tuple[EdgeOfChaos, ...]) -> EdgeOfChaos | None:
    return next((point for point in found if point.stable), found[0] if found else None)


def _stacked(points: "list[EdgeOfChaos | None]", shape: tuple[int, ...]) -> EdgeOfChaos:
    nothing = (math.nan, math.nan, math.nan, math.nan, "none")
    rows = [nothing if point is None else (point.init.sigma_w, point.init.sigma_b, *point[1:]) for point in points]
    columns = zip(*rows, strict=True) if rows else ([],) * 5
    sigma_w, sigma_b, *others = (np.array(column).reshape(shape) for column in columns)
    return EdgeOfChaos(unchecked_init(sigma_w, sigma_b), *others)


def _from_table(phi: Activation, wanted: str, given: Tracer, *, every: bool) -> EdgeOfChaos:
    def scalar(number: Array) -> EdgePoint:
        if wanted == "q":
            return traced_edge_at(phi, number)
        points = traced_edges(phi, number, by_bias=wanted == "sigma_b")
        return points if every else preferred(points)

    numbers = jnp.asarray(given, jnp.result_type(given, float))
    signature = "()->" + ",".join(["(p)" if every else "()"] * len(EdgePoint._fields))
    fields = jnp.vectorize(scalar, signature=signature)(numbers)
    sigma_w, sigma_b, *others = (jnp.moveaxis(field, -1, 0) for field in fields) if every else fields
    return EdgeOfChaos(unchecked_init(sigma_w, sigma_b), *others)


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
    rounding, without_bias = 10 * edge.bias.error + 1e-14, False
    if sigma_b is None:
        if edge.bias.value < -rounding:
            return None  # only a negative sigma_b^2 would keep this length
        without_bias = edge.bias.value <= rounding
        sigma_b = 0.0 if without_bias else math.sqrt(q * edge.bias.value)
    chi_par = edge.chi_par.value
    if abs(chi_par - 1) <= 1e-12 + 10 * edge.chi_par.error:
        # Without bias, phi is linear as far as lengths like q see of it.
        stability = "neutral" if without_bias else "half-stable"
    else:
        stability = "stable" if chi_par < 1 else "unstable"
    return EdgeOfChaos(Init(edge.sigma_w.value, sigma_b), q, chi_par, stability)


def _reason(phi: Activation, wanted: str, number: float) -> str:
    if math.isinf(moments(phi, 1.0).slope_second.value):
        return f"{phi.name} jumps, so chi_perp is infinite for every sigma_w > 0: it has no edge of chaos"
    if is_scale_invariant(phi):
        end = sigma_w_at_zero(phi)
        return (
            f"{phi.name} is 0: it has no edge of chaos"
            if end is None
            else (
                f"{phi.name} has no edge of chaos with {wanted} = {number:g}: at sigma_w = {end:.10g}, where "
                "chi_perp = 1, every length grows by sigma_b^2 per layer"
            )
        )
    allowed = [edge for edge in _curve(phi) if edge.bias.value > 10 * edge.bias.error]
    if not allowed:
        return (
            f"{phi.name} has no edge of chaos: q - E phi^2/E phi'^2, which sigma_b^2 must be where chi_perp = 1, is "
            "negative for every q"
        )
    if wanted == "q":
        return (
            f"{phi.name} has no edge of chaos with q = {number:g}: q - E phi^2/E phi'^2, which sigma_b^2 must be where "
            "chi_perp = 1, is negative there"
        )
    values = [edge.sigma_w.value if wanted == "sigma_w" else math.sqrt(edge.q * edge.bias.value) for edge in allowed]
    return f"{phi.name} has no edge of chaos with {wanted} = {number:g}: on it, {wanted} is between " + (
        f"{min(values):.6g} and {max(values):.6g}"
    )


def edge_curve(phi: "str | Activation | Callable[..., Any]", q: Any = None) -> "xarray.Dataset":
    r"""Return the edge of chaos along the length q, by default from 1e-4 to 1e3: `sigma_w`, `sigma_b`, `chi_par`.

    And `stability`, "stable", "half-stable", "unstable", "neutral" (with $\sigma_b = 0$ every length like q is fixed,
    to rounding), or "none" where no $\sigma_b$ keeps the length q fixed: there all else is NaN. A dataset cannot hold
    traced values; inside `jit` and `vmap` the curve is `edge_of_chaos(phi, q=q)`.

    Raises `ValueError` on a q that is not positive and on an empty q, and `NoEdge` where phi jumps.

    >>> curve = edge_curve("gelu", [1.0, (3 + 17**0.5) / 2, 5.0])
    >>> curve.stability.values.tolist(), round(float(curve.sigma_b[1]) ** 2, 10)
    (['unstable', 'half-stable', 'stable'], 0.1729223908)
    """
    import xarray

    phi = resolve(activation(phi))
    check_finite(phi)
    if math.isinf(moments(phi, 1.0).slope_second.value):
        raise NoEdge(_reason(phi, "sigma_b", 0.0))
    if isinstance(q, Tracer):
        raise ValueError(
            "a dataset holds numbers, got a traced q; call this outside jit and vmap, or take edge_of_chaos(phi, q=q)"
        )
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
