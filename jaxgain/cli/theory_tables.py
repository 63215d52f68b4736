"""Tables of a theory, readable at 100 columns, with and without colours."""

import math
from collections.abc import Iterator

import numpy as np
import xarray
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from jaxgain.cli.tables import MISSING, with_error
from jaxgain.figures.theory import verdict

STYLES = {"stable": "green", "unstable": "red", "ordered": "blue", "collapsing": "blue", "chaotic": "red"}


def theory_tables(dataset: xarray.Dataset) -> Iterator[RenderableType]:
    """Yield the initialization with its phase, its fixed points, the critical initialization, the edge of chaos."""
    about = dataset.attrs
    yield Text(str(about["activation"]), style="bold")
    yield Text(
        f"sigma_w = {_number(about['init_sigma_w'])}, sigma_b = {_number(about['init_sigma_b'])} "
        f"({about['init']})\n{verdict(about)}"
    )
    yield _title("fixed points of the length, and the correlation that each has")
    yield fixed_points_table(dataset)
    yield Text(_LEGEND, style="dim")
    yield _title(f"critical initialization: {about['critical_kind']}")
    if not math.isnan(about["critical_sigma_w"]):
        names = ("sigma_w", "sigma_b", "q")
        yield Text(", ".join(f"{name} = {about[f'critical_{name}']:.12g}" for name in names))
    yield Text(str(about["critical_reason"]), style="dim")
    if dataset.sizes.get("edge"):
        yield _title("edge of chaos: χ⊥ = 1 at the fixed length q")
        yield from edge_table(dataset)
    yield _title(f"at layer {about['depth']} of networks of width {about['width']}, inputs of mean square 1")
    yield from _bands(dataset)


def fixed_points_table(dataset: xarray.Dataset) -> Table:
    """A row per fixed point, the one that the networks reach marked."""
    table = _table("", "q*", "c*", "χ∥", "χ⊥", "ξ_q", "ξ_c", "gradient", "length", "attracts", "phase")
    for i in range(dataset.sizes["fixed_point"]):
        one = {name: dataset[f"fixed_{name}"].values[i] for name in _FIXED}
        every = one["stability"] == "neutral"
        table.add_row(
            "→" if one["reached"] else "",
            f"any, {_number(one['q'])}" if every else _number(one["q"]),
            _correlation(float(one["one_minus_c"])),
            *(_number(one[name]) for name in ("chi_par", "chi_perp")),
            *(_layers(float(one[name])) for name in ("xi_q", "xi_c")),
            _efold(float(one["xi_grad"]), float(one["chi_perp"])),
            _worded(str(one["stability"])),
            MISSING if every or math.isinf(one["q"]) else _basin(float(one["basin_low"]), float(one["basin_high"])),
            _worded(str(one["phase"])),
        )
    return table


_FIXED = ("q", "one_minus_c", "chi_par", "chi_perp", "xi_q", "xi_c", "xi_grad", "stability", "phase", "reached")
_FIXED += ("basin_low", "basin_high")
_LEGEND = """→         the one reached by inputs of mean square 1
ξ_q, ξ_c  layers in which a deviation of q, or of c, falls to 1/e; negative: grows by e
gradient  layers in which its mean square, going back, grows (×) or falls (÷) by e
attracts  the lengths that end there"""


def edge_table(dataset: xarray.Dataset) -> Iterator[RenderableType]:
    """Yield a row per point of the edge of chaos, and the biases that have none."""
    table, without = _table("sigma_b", "sigma_w", "q", "χ∥", "length"), []
    for i in range(dataset.sizes["edge"]):
        one = {name: dataset[f"edge_{name}"].values[i] for name in ("sigma_b", "sigma_w", "q", "chi_par", "stability")}
        if one["stability"] == "none":
            without.append(f"{one['sigma_b']:g}")
            continue
        cells = (_number(one["sigma_b"]), f"{one['sigma_w']:.10g}", _number(one["q"]), _number(one["chi_par"]))
        table.add_row(*cells, _worded(str(one["stability"])))
    if table.row_count:
        yield table
    if without:
        yield Text(f"there is none with sigma_b = {', '.join(without)}", style="dim")


def _bands(dataset: xarray.Dataset) -> Iterator[RenderableType]:
    about = dataset.attrs
    if about["bands_method"] == "none":
        yield Text(f"no prediction: {about['bands_missing']}", style="dim")
        return
    for name, words, layer in (("log_q", "ln q", about["depth"]), ("log_grad", "ln g²", 0)):
        mean = float(dataset[f"{name}_mean"].sel(layer=layer))
        std = math.sqrt(float(dataset[f"{name}_var"].sel(layer=layer)))
        if math.isfinite(mean):
            where = "" if name == "log_q" else " of the gradient at the input, that at the output being 0"
            yield Text(f"{words:<6} {mean:.4g} ± {std:.3g}{where}")
    method = {"leading": "to leading order in 1/width", "integrated": "by integrating the law of the length"}
    yield Text(f"±      standard deviation over networks, {method[str(about['bands_method'])]}", style="dim")


def comparison_table(dataset: xarray.Dataset) -> Iterator[RenderableType]:
    """Yield a row per statistic, at the layer where networks are farthest from the theory, and the verdict."""
    about = dataset.attrs
    yield _title(f"theory against {about['seeds']} sampled networks of width {about['width']}, where they differ most")
    table = _table("statistic", "layers", "at layer", "predicted", "measured", "standard errors")
    statistic = dataset["statistic"].values
    for name in dict.fromkeys(statistic.tolist()):
        rows = np.flatnonzero(statistic == name)
        worst = rows[np.argmin(dataset["probability"].values[rows])]
        one = {key: dataset[key].values[worst] for key in ("at_layer", "predicted", "measured", "standard_error")}
        table.add_row(
            f"{name}*" if name == "correlation" else str(name),
            str(len(rows)),
            str(one["at_layer"]),
            f"{one['predicted']:.5g}",
            with_error(float(one["measured"]), float(one["standard_error"])),
            f"{dataset['standard_errors'].values[worst]:+.1f}",
        )
    yield table
    yield Text(
        f"*   infinite width against {about['pairs_seeds']} networks of width {about['pairs_width']}", style="dim"
    )
    if about["dead"]:
        yield Text(f"{about['dead']} networks died: layers at which one had are left out", style="dim")
    chance = about["chance"]
    corrected = f"p = {about['probability']:.2g}, corrected for {statistic.size} comparisons"
    if about["agrees"]:
        yield Text(f"agrees: no farther off than chance allows ({corrected})", style="green")
    else:
        words = f"DISAGREES by more than chance allows ({corrected}; the limit is {chance:g})"
        yield Text(f"{words}; about {about['threshold']:.1f} standard errors are allowed", style="red")


def _title(words: str) -> Text:
    return Text(f"\n{words}", style="bold")


def _table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for header in headers:
        words = header in ("", "length", "phase", "statistic")
        table.add_column(header, justify="left" if words else "right", no_wrap=True)
    return table


def _number(value: float) -> str:
    """Seven digits, and no more than a reader needs.

    >>> _number(0.0), _number(1.0), _number(45.624277797), _number(1e300)
    ('0', '1', '45.62428', '1e+300')
    """
    return MISSING if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.7g}"


def _correlation(one_minus_c: float) -> str:
    """The correlation, or, very near 1, its distance from it.

    >>> _correlation(0.25), _correlation(1e-9), _correlation(0.0)
    ('0.75', '1 - 1e-09', '1')
    """
    return f"1 - {one_minus_c:.3g}" if 0 < one_minus_c < 1e-4 else _number(round(1 - one_minus_c, 9))


def _layers(depth: float) -> str:
    return MISSING if math.isnan(depth) else "∞" if math.isinf(depth) else f"{depth:.4g}"


def _efold(depth: float, growth: float) -> str:
    """Layers in which the gradient grows or falls by e.

    >>> _efold(-3.044, 1.39), _efold(2.0, 0.6), _efold(0.0, math.inf), _efold(math.inf, 1.0)
    ('× 3.044', '÷ 2', '× at once', '∞')
    """
    if not math.isfinite(depth):
        return _layers(depth)
    return f"{'×' if growth > 1 else '÷'} {f'{abs(depth):.4g}' if depth else 'at once'}"


def _basin(low: float, high: float) -> str:
    return f"{low:.4g} … {'∞' if math.isinf(high) else f'{high:.4g}'}" if low < high else "itself"


def _worded(word: str) -> Text:
    return Text(word, style=STYLES.get(word, ""))
