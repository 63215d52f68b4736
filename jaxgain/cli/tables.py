"""Tables of datasets, readable at 100 columns, with and without colours."""

import math
from collections.abc import Iterator

import xarray
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from jaxgain.propagation.summary import gains_to_show, summarize

COLUMNS = 100
MISSING = "–"
STYLES = {
    "vanishes": "blue",
    "merges": "blue",
    "explodes": "red",
    "saturates": "red",
    "survives": "green",
    "unstable": "red",
    "stable": "green",
}
_SHORT = {"self_consistent": "self\nconsistent"}


def console() -> Console:
    """Return a console for stdout, as wide as the terminal and never below 100 columns."""
    wide = Console()
    return Console(width=max(COLUMNS, wide.width if wide.is_terminal else 0))


def sweep_tables(dataset: xarray.Dataset, *, all_gains: bool = False) -> Iterator[RenderableType]:
    """Yield a table per activation, a row per gain, and what its columns mean.

    Rows are the activation's own named gains and the gains given as numbers; every gain with `all_gains`.
    """
    summary = summarize(dataset)
    middle, last = summary.attrs["middle_layer"], summary.attrs["last_layer"]
    yield _sweep_columns(middle, last, header=True)
    for activation in summary["activation"].values:
        table = _sweep_columns(middle, last, header=False)
        for gain, name in gains_to_show(dataset, activation, all_gains=all_gains).items():
            table.add_row(*_sweep_row(gain, name, summary.sel(activation=activation).sel(gain=gain)))
        yield Text(str(activation), style="bold")
        yield table
    yield Text(_legend(middle, last, dataset.sizes["seed"]), style="dim")


def _sweep_columns(middle: int, last: int, *, header: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=header, header_style="bold")
    table.add_column("gain", width=8)
    table.add_column("its name", width=15)
    widths = {f"std at {middle}": 12, f"std at {last}": 13, "gradient ×": 13, "e-fold": 6, "corr.": 5}
    for name, width in widths.items():
        table.add_column(name, width=width, justify="right", no_wrap=True)
    table.add_column("signal", width=9)
    table.add_column("gradient", width=8)
    return table


def gain_tables(table: xarray.Dataset) -> Iterator[RenderableType]:
    """Yield the table of gains, a row per activation, and the reasons of those that do not exist."""
    kinds = [str(kind) for kind in table["kind"].values]
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    shown.add_column("activation", no_wrap=True)
    for kind in kinds:
        shown.add_column(_SHORT.get(kind, kind), justify="right", no_wrap=True)
    for header in ("χ∥", "χ⊥"):
        shown.add_column(header, justify="right", no_wrap=True)
    shown.add_column("length", no_wrap=True)
    for activation in table["activation"].values:
        one = table.sel(activation=activation)
        numbers = [*one["gain"].values, float(one["chi_par"]), float(one["chi_perp"])]
        shown.add_row(
            str(activation), *(_plain(number) for number in numbers), _worded(str(one["stability"].values))
        )
    yield shown
    yield Text(
        "\nχ∥ is the stability of the length that the forward gain preserves (above 1 it runs away);\n"
        "χ⊥ is the growth of the mean squared gradient per layer, at the same gain.",
        style="dim",
    )
    reasons: dict[str, list[str]] = {}
    for activation in table["activation"].values:
        for kind in kinds:
            reason = str(table["reason"].sel(activation=activation).sel(kind=kind).values)
            if reason:
                reasons.setdefault(f"no {kind} gain, {reason}", []).append(str(activation))
    for reason, activations in reasons.items():
        yield Text(f"{MISSING} {', '.join(activations)}: {reason}", style="dim")


def with_error(value: float, error: float) -> str:
    """Write a mean with its standard error, to the first digit of the error.

    >>> (
    ...     with_error(0.65123, 0.0012),
    ...     with_error(1.0992, 0.0004),
    ...     with_error(3.21e-11, 2e-12),
    ...     with_error(0.5, np.nan),
    ... )
    ('0.651±0.001', '1.0992±0.0004', '(3.2±0.2)e-11', '0.5')
    """
    if math.isnan(value):
        return MISSING
    if not error > 0 or value == 0:
        return f"{value:.4g}"
    exponent = 0 if 1e-3 <= abs(value) < 1e5 else math.floor(math.log10(abs(value)))
    value, error = value / 10.0**exponent, error / 10.0**exponent
    digits = max(0, min(4, -math.floor(math.log10(error))))
    text = f"{value:.{digits}f}±{error:.{digits}f}"
    return f"({text})e{exponent:+03d}" if exponent else text


def _sweep_row(gain: float, name: str, one: xarray.Dataset) -> list[str | Text]:
    value = {key: float(one[key]) for key in one.data_vars if one[key].dtype.kind in "fi"}
    growth = math.exp(min(value["log_growth"], 700.0))
    return [
        f"{gain:.6g}",
        name,
        with_error(value["std_middle"], value["std_middle_error"]),
        with_error(value["std_end"], value["std_end_error"]),
        with_error(growth, growth * value["log_growth_error"]),
        _efold(value["log_growth"], value["log_growth_error"]),
        MISSING if math.isnan(value["correlation_end"]) else f"{value['correlation_end']:.2f}",
        *(_worded(str(one[word].values)) for word in ("signal", "gradient")),
    ]


def _efold(growth: float, error: float) -> str:
    """Layers per e-fold, or the least they may be where the growth is within two standard errors of none."""
    if math.isnan(growth):
        return MISSING
    if abs(growth) <= 2 * error:
        return f">{1 / (abs(growth) + 2 * error):.0f}"
    return f"{1 / abs(growth):.3g}" if growth else "∞"


def _plain(number: float) -> str:
    return MISSING if math.isnan(number) else f"{number:.4f}" if abs(number) < 100 else f"{number:.4g}"


def _worded(word: str) -> Text:
    return Text(word, style=STYLES.get(word, ""))


def _legend(middle: int, last: int, seeds: int) -> str:
    return f"""
std         of the activations over the neurons, at layers {middle} and {last}
gradient ×  factor by which the gradient's rms grows per layer, going back
e-fold      layers over which it changes by a factor e
corr.       correlation of two inputs' pre-activations at layer {last}
±           standard error over {seeds} seeds
survives: within a factor 10 over the depth; vanishes, explodes: beyond it;
saturates: most neurons where phi is flat; merges: all inputs give one output"""
