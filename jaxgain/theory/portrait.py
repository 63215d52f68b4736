r"""The theory of one activation and one initialization in one dataset: what `jaxgain theory` prints and draws.

Everything in it comes from the functions that compute it alone: `critical_init`, `edges_of_chaos`, `fixed_points`,
`phase_diagram`, the maps, and `fluctuations`.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.critical import critical_init, is_scale_invariant
from jaxgain.theory.edge import edge_curve, edge_of_chaos, edges_of_chaos
from jaxgain.theory.finite_width import NoLength, count, number
from jaxgain.theory.fixed_points import FixedPoint, fixed_point, fixed_points
from jaxgain.theory.fluctuations import fluctuations
from jaxgain.theory.lengths import next_length
from jaxgain.theory.meanfield import Init, decorrelation_map, length_map, one_init
from jaxgain.theory.panels import resolve
from jaxgain.theory.phase_diagram import phase_diagram
from jaxgain.theory.quadrature import NotFinite, moments

if TYPE_CHECKING:
    import xarray

EDGES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
_NODES = 24  # of the correlation map in t = sqrt(1 - c), in which it is analytic, kinks or not
_POINTS = 257  # of a drawn map
_COBWEB = 60  # steps after which a cobweb is no longer told apart


def portrait(
    phi: "str | Activation | Callable[..., Any]",
    init: Init | None = None,
    *,
    width: int = 1000,
    depth: int = 50,
    input_correlation: float = 0.5,
    edges: Iterable[float] = EDGES,
    grid: int = 64,
) -> "xarray.Dataset":
    r"""Return phases, fixed points, edge of chaos, maps with their cobwebs, and bands over depth, in one dataset.

    `init` is by default that of `default_init`. Inputs have mean square 1, so that $q^1 = \sigma_w^2 + \sigma_b^2$,
    and two of them the correlation `input_correlation`. Dims: `sigma_w` and `sigma_b`, the phase diagram of `grid`
    by `grid`; `curve`, the edge of chaos; `edge`, its points at the biases `edges`; `fixed_point`; `length` and
    `correlation`, the maps; `length_step`, the first layers' lengths; `correlation_step`, their correlations at the
    length `map_q`; `layer`, the network of that depth, with bands at that width.

    Raises `ValueError` on scales that are negative or not finite, on a width, depth or grid that is no whole number of
    at least 1, on a correlation outside -1 … 1, and where phi is not finite or has no finite expectation.

    >>> tanh = portrait("tanh", Init(2.5, 0.3), depth=8, edges=[0.2], grid=4)
    >>> tanh.attrs["phase"], round(float(tanh.edge_sigma_w[0]), 12), round(tanh.attrs["xi_c"], 4)
    ('chaotic', 1.304145840057, 5.1089)
    """
    import xarray

    width, depth, grid = count("width", width), count("depth", depth), count("grid", grid)
    input_correlation = number("input_correlation", input_correlation)
    if not -1 <= input_correlation <= 1:
        raise ValueError(f"input_correlation must be between -1 and 1, got {input_correlation!r}; it is a cosine")
    phi = resolve(activation(phi))
    chosen = Init(*one_init(default_init(phi)[0] if init is None else init, "a portrait is that"))
    points = fixed_points(phi, chosen)
    first = float(chosen.sigma_w) ** 2 + float(chosen.sigma_b) ** 2
    reached = fixed_point(phi, chosen, first)
    parts = [
        _phases(phi, chosen, grid),
        _curve(phi),
        _edges(phi, edges),
        _fixed(points, reached),
        _length_map(phi, chosen, first, [point.q for point in points], reached.q),
        _correlation_map(phi, chosen, first, reached.q, depth, input_correlation),
        _bands(phi, chosen, width, depth),
    ]
    critical = critical_init(phi)
    attributes = {
        "activation": phi.name,
        "init_sigma_w": float(chosen.sigma_w),
        "init_sigma_b": float(chosen.sigma_b),
        "width": width,
        "depth": depth,
        "input_correlation": input_correlation,
        "critical_kind": critical.kind,
        "critical_reason": critical.reason,
        "critical_sigma_w": math.nan if critical.init is None else critical.init.sigma_w,
        "critical_sigma_b": math.nan if critical.init is None else critical.init.sigma_b,
        "critical_q": critical.q,
        **{name: getattr(reached, name) for name in ("q", "phase", "chi_par", "chi_perp", "xi_q", "xi_c", "xi_grad")},
        "one_minus_c": reached.one_minus_c,
        "converged": int(reached.converged),
    }
    merged = xarray.merge(parts, combine_attrs="drop_conflicts")
    return merged.assign_attrs(merged.attrs | attributes)


def default_init(
    phi: "str | Activation | Callable[..., Any]", sigma_w: float | None = None, sigma_b: float | None = None
) -> tuple[Init, str]:
    r"""Return an initialization that has what was given of it, and which one it is, in words.

    With neither: the critical one, else its substitute, else the forward gain at q = 1, $1/\sqrt{E\phi^2}$. With
    `sigma_w` alone $\sigma_b = 0$; with `sigma_b` alone the edge of chaos.

    Raises `NoEdge` where the edge has no such `sigma_b`, and `ValueError` on a scale that is negative or not finite.

    >>> default_init("step")
    (Init(sigma_w=1.4142135623730951, sigma_b=0.0), 'forward gain, having no critical point')
    """
    phi = resolve(activation(phi))
    if sigma_w is not None:
        return Init(sigma_w, 0.0 if sigma_b is None else sigma_b), "as given"
    if sigma_b is not None:
        point = edge_of_chaos(phi, one_init(Init(0.0, sigma_b), "a point of the edge is that")[1])
        return point.init, f"edge of chaos at this sigma_b, where the length is {point.stability}"
    critical = critical_init(phi)
    if critical.init is None:
        second = moments(phi, 1.0).second.value
        return Init(second**-0.5 if second > 0 else 1.0), "forward gain, having no critical point"
    return critical.init, "critical initialization" if critical.kind != "none" else "best substitute for a critical one"


def _phases(phi: Activation, chosen: Init, grid: int) -> "xarray.Dataset":
    """Return the phase diagram on a grid that holds the critical and the chosen initialization."""
    critical = critical_init(phi).init or Init(0.0)
    sigma_w, sigma_b = float(chosen.sigma_w), float(chosen.sigma_b)
    widest = max(2.5 * float(critical.sigma_w), 1.4 * sigma_w) or 2.0
    highest = max(widest / 2, 2 * float(critical.sigma_b), 1.4 * sigma_b)
    # Centres of cells: at sigma_b = 0 itself a length may be 0, where the depths are those of no neighbour.
    centres = (np.arange(grid) + 0.5) / grid
    diagram = phase_diagram(phi, widest * centres, highest * centres)
    return diagram.rename({name: f"grid_{name}" for name in diagram.data_vars})


def _curve(phi: Activation) -> "xarray.Dataset":
    import xarray

    critical = critical_init(phi)
    lengths = np.logspace(-4, 4, 161)
    if critical.q > 0:
        lengths = np.sort(np.append(lengths, critical.q))
    names = ("q", "sigma_w", "sigma_b", "chi_par", "stability")
    columns = {name: np.array([], "<U11" if name == "stability" else float) for name in names}
    # With a scale-invariant phi the edge is one point, its length any; with a jump there is none.
    if not (is_scale_invariant(phi) or math.isinf(moments(phi, 1.0).slope_second.value)):
        curve = edge_curve(phi, lengths)
        there = curve["stability"].values != "none"
        columns = {name: curve[name].values[there] for name in names}
    return xarray.Dataset({f"curve_{name}": ("curve", column) for name, column in columns.items()})


def _edges(phi: Activation, edges: Iterable[float]) -> "xarray.Dataset":
    import xarray

    rows = []
    for sigma_b in edges:
        found = edges_of_chaos(phi, sigma_b)
        rows += [(sigma_b, point.init.sigma_w, point.q, point.chi_par, point.stability) for point in found] or [
            (sigma_b, math.nan, math.nan, math.nan, "none")
        ]
    names = ("sigma_b", "sigma_w", "q", "chi_par", "stability")
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return xarray.Dataset({f"edge_{name}": ("edge", np.array(c)) for name, c in zip(names, columns, strict=True)})


def _fixed(points: tuple[FixedPoint, ...], reached: FixedPoint) -> "xarray.Dataset":
    import xarray

    shown = [*points] if any(point.q == reached.q for point in points) else [*points, reached]
    names = ("q", "one_minus_c", "chi_par", "chi_perp", "slope", "xi_q", "xi_c", "xi_grad", "stability", "phase")
    columns = {name: np.array([getattr(point, name) for point in shown]) for name in names}
    columns["basin_low"], columns["basin_high"] = np.array([point.basin for point in shown]).T
    columns["reached"] = np.array([point.q == reached.q for point in shown])
    return xarray.Dataset({f"fixed_{name}": ("fixed_point", column) for name, column in columns.items()})


def _length_map(phi: Activation, chosen: Init, first: float, fixed: list[float], reached: float) -> "xarray.Dataset":
    import xarray

    scale = max(first, reached if math.isfinite(reached) else 3 * first) or 1.0
    # Fixed points beside the one that is reached are shown as long as that one can still be seen.
    length = np.linspace(0.0, 1.2 * max([scale, *(q for q in fixed if q < 5 * scale)]), _POINTS)
    path = [first]
    while len(path) < _COBWEB and path[-1] <= length[-1]:
        path.append(next_length(phi, float(chosen.sigma_w), float(chosen.sigma_b), path[-1]))
    return xarray.Dataset(
        {"length_map": ("length", length_map(phi, chosen, length)), "length_path": ("length_step", np.array(path))},
        coords={"length": length},
    )


def _correlation_map(
    phi: Activation, chosen: Init, first: float, reached: float, depth: int, input_correlation: float
) -> "xarray.Dataset":
    import xarray

    q = reached
    if not 0 < q < math.inf:  # the map has no limit there: the one of the last layer is drawn
        path = lengths_over_depth(phi, chosen, depth)
        q = next((each for each in reversed(path.tolist()) if 1e-12 < each < 1e6), 0.0)
    correlation = np.linspace(0.0, 1.0, _POINTS)
    if q == 0:
        gaps, steps = np.full(_POINTS, math.nan), [math.nan]
    else:
        t = (1 - np.cos(np.pi * np.arange(_NODES) / (_NODES - 1))) / 2
        values = np.array([0.0, *(decorrelation_map(phi, chosen, x, q) for x in (t[1:] ** 2).tolist())])
        gaps = interpolated(values, np.sqrt(1 - correlation))
        steps = [float(chosen.sigma_w) ** 2 * (1 - input_correlation) / first]
        while len(steps) < _COBWEB:
            steps.append(float(interpolated(values, np.sqrt(np.clip(steps[-1], 0, 1)))))
    return xarray.Dataset(
        {
            "correlation_map": ("correlation", 1 - gaps),
            "correlation_path": ("correlation_step", 1 - np.array(steps)),
        },
        coords={"correlation": correlation},
        attrs={"map_q": q},
    )


def interpolated(values: np.ndarray, t: Any) -> np.ndarray:
    """Return the polynomial through `values`, at Chebyshev's extrema on [0, 1] ascending, at every t in [0, 1].

    >>> nodes = (1 - np.cos(np.pi * np.arange(8) / 7)) / 2
    >>> round(float(interpolated(nodes**5, 0.3)) / 0.3**5, 12)
    1.0
    """
    angle = np.arccos(1 - 2 * np.asarray(t, np.float64))
    order = values.size - 1
    orders = np.arange(order + 1)
    ends = np.where((orders == 0) | (orders == order), 0.5, 1.0)
    coefficients = 2 / order * ends * (np.cos(np.pi * np.outer(orders, orders) / order) @ (ends * values))
    return np.cos(angle[..., None] * orders) @ coefficients


def lengths_over_depth(phi: Activation, init: Init, depth: int) -> np.ndarray:
    """Return the mean-field lengths of the layers 1 to `depth`, from inputs of mean square 1."""
    sigma_w, sigma_b = float(init.sigma_w), float(init.sigma_b)
    path = [sigma_w**2 + sigma_b**2]
    while len(path) < depth:
        path.append(next_length(phi, sigma_w, sigma_b, path[-1]) if math.isfinite(path[-1]) else math.inf)
    return np.array(path)


def _bands(phi: Activation, chosen: Init, width: int, depth: int) -> "xarray.Dataset":
    """Return mean and variance over networks, or, where a length vanishes or overflows, infinite width alone."""
    import xarray

    try:
        with np.errstate(divide="ignore"):  # without weights there is no gradient
            found = fluctuations(phi, chosen, width=width, depth=depth, method="auto")
    # An expectation that stops being finite along the layers is that of a length which grows without bound.
    except (NoLength, NotFinite) as error:
        method, missing = "none", str(error)
        found = xarray.Dataset(coords={"layer": np.arange(depth + 1)})
        q = np.append(math.nan, lengths_over_depth(phi, chosen, depth))
        chi = np.append([growth_at(phi, chosen, each) for each in q[1:]], 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found["log_q_mean"] = "layer", np.log(q)
            found["log_grad_mean"] = "layer", np.cumsum(np.log(chi)[::-1])[::-1]
    else:
        names = {"log_sample_q_mean": "log_q_mean", "log_sample_q_var": "log_q_var"}
        found, method, missing = found.drop_vars(names.values()).rename(names), found.attrs["method"], ""
    if math.isinf(moments(phi, 1.0).slope_second.value):
        found["log_grad_mean"] = xarray.full_like(found["log_grad_mean"], math.nan)
    kept = found[[name for name in ("log_q_mean", "log_q_var", "log_grad_mean", "log_grad_var") if name in found]]
    return kept.assign_attrs({"bands_method": method, "bands_missing": missing})


def growth_at(phi: Activation, init: Init, q: float) -> float:
    """Return chi_perp at q, NaN where it is not known."""
    try:
        return float(init.sigma_w) ** 2 * moments(phi, q).slope_second.value if math.isfinite(q) else math.nan
    except NotFinite:
        return math.nan
