"""Tables of datasets, readable at 100 columns, with and without colours."""

import math
import re
from collections.abc import Iterator

import xarray
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from jaxgain.propagation.summary import gains_to_show, in_rows, missing_bias, summarize

COLUMNS = 100
GAIN, EFOLD = 6, 6  # the widths of these columns
MISSING = "–"
MOST_ROWS, ROWS_OF_MANY = 100, 25  # gains of a table: up to how many all are shown, and how many of more
FULL_REASONS = 3  # activations up to which a table of gains gives reasons in full
STYLES = {
    "vanishes": "blue",
    "merges": "blue",
    "explodes": "red",
    "saturates": "red",
    "survives": "green",
    "unstable": "red",
    "stable": "green",
}
_HEADERS = {"backward": "back-\nward", "balanced": "bal-\nanced", "self_consistent": "self\ncons."}


def console() -> Console:
    """Return a console for stdout, as wide as the terminal and never below 100 columns."""
    wide = Console()
    return Console(width=max(COLUMNS, wide.width if wide.is_terminal else 0))


def sweep_tables(dataset: xarray.Dataset, *, all_gains: bool = False) -> Iterator[RenderableType]:
    """Yield a table per activation, a row per gain, and what its columns mean.

    Rows are the activation's own named gains and the gains given as numbers; every gain with `all_gains`. What is
    swept beside the gain has tables of its own.
    """
    dataset = in_rows(dataset)
    summary = summarize(dataset)
    middle, last = summary.attrs["middle_layer"], summary.attrs["last_layer"]
    yield _sweep_columns(middle, last, header=True)
    for activation in summary["activation"].values:
        table = _sweep_columns(middle, last, header=False)
        gains = gains_to_show(dataset, activation, all_gains=all_gains)
        some = gains if all_gains or len(gains) <= MOST_ROWS else _evenly(gains, ROWS_OF_MANY)
        for gain, name in some.items():
            table.add_row(*_sweep_row(gain, name, summary.sel(activation=activation).sel(gain=gain)))
        yield Text(str(activation), style="bold")
        yield table
        if len(some) < len(gains):
            yield Text(f"({len(some)} of {len(gains)} gains; --rows all shows every one)", style="dim")
    yield Text(_legend(middle, last, dataset.sizes["seed"]), style="dim")
    if missing := missing_bias(dataset):
        needed = ", ".join(f"{activation} {sigma_b:.4f}" for activation, sigma_b in missing.items())
        yield Text(f"*           critical only with its sigma_b, which this sweep did not have: {needed}", style="dim")


def _evenly(gains: dict[float, str], count: int) -> dict[float, str]:
    """So many of the gains, from the first to the last, and those with names.

    >>> _evenly({1.0: "", 2.0: "forward", 3.0: "", 4.0: "", 5.0: ""}, 3)
    {1.0: '', 2.0: 'forward', 3.0: '', 5.0: ''}
    """
    chosen = {round(place * (len(gains) - 1) / (count - 1)) for place in range(count)}
    return {gain: name for place, (gain, name) in enumerate(gains.items()) if name or place in chosen}


def _sweep_columns(middle: int, last: int, *, header: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=header, header_style="bold")
    table.add_column("gain", width=GAIN)
    table.add_column("its name", width=16)
    widths = {f"std at {middle}": 13, f"std at {last}": 15, "gradient ×": 13, "e-fold": EFOLD, "corr.": 6}
    for name, width in widths.items():
        # What is too long goes on in the next line: a number that is cut off says nothing.
        table.add_column(name, width=width, justify="right", overflow="fold")
    table.add_column("signal", width=9)
    table.add_column("gradient", width=8)
    return table


def gain_tables(table: xarray.Dataset) -> Iterator[RenderableType]:
    """Yield the table of gains, a row per activation, and the reasons of those that do not exist."""
    kinds = [str(kind) for kind in table["kind"].values]
    shown = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    shown.add_column("activation", no_wrap=True)
    for header in [*(_HEADERS.get(kind, kind) for kind in kinds), "χ∥", "χ⊥"]:
        shown.add_column(header, justify="right", no_wrap=True)
    shown.add_column("length", no_wrap=True)
    for activation in table["activation"].values:
        one = table.sel(activation=activation)
        gains = {kind: _plain(float(one["gain"].sel(kind=kind))) for kind in kinds}
        if one["sigma_b"] > 0 and "critical" in gains:
            gains["critical"] += "*"
        chi = [_plain(float(one[name])) for name in ("chi_par", "chi_perp")]
        shown.add_row(str(activation), *gains.values(), *chi, _worded(str(one["stability"].values)))
    yield shown
    yield Text("\n" + "\n".join([*_NOTES, *_with_bias(table), *_reasons(table)]), style="dim")


_NOTES = (
    "χ∥  stability of the length that the forward gain preserves: above 1 it is unstable and runs away",
    "χ⊥  factor of the mean squared gradient per layer going back, at the forward gain",
)


def _with_bias(table: xarray.Dataset) -> list[str]:
    """What the stars on critical gains stand for."""
    sigma_b = table["sigma_b"].where(table["sigma_b"] > 0).dropna("activation")
    if "critical" not in table["kind"] or not sigma_b.size:
        return []
    values = [f"{activation} {float(value):.4f}" for activation, value in sigma_b.to_series().items()]
    return [f"*   only with biases of this sigma_b: {', '.join(values)}"]


def _reasons(table: xarray.Dataset) -> list[str]:
    """Why gains are missing, activations with the same reason together; in a long table the first clauses."""
    brief = table.sizes["activation"] > FULL_REASONS
    reasons: dict[str, list[str]] = {}
    for activation in table["activation"].values:
        for kind in table["kind"].values:
            if reason := str(table["reason"].sel(activation=activation).sel(kind=kind).values):
                general = re.sub(rf"(?<![\w.]){re.escape(activation)}(?!\w)", "it", reason)
                clause = re.split(r"[,;:] | \(", general)[0] if brief else general
                reasons.setdefault(f"no {kind} gain, since {clause}", []).append(str(activation))
    lines = [f"{MISSING}   {reason}: {', '.join(activations)}" for reason, activations in reasons.items()]
    return [*lines, "    (jaxgain gain NAME gives the whole reason)"] if brief and lines else lines


def with_error(value: float, error: float) -> str:
    """Write a mean with its standard error, to the first digit of the error.

    >>> with_error(0.65123, 0.0012), with_error(3.21e-11, 2e-12), with_error(0.5, math.nan)
    ('0.651±0.001', '(3.2±0.2)e-11', '0.5')
    """
    if math.isnan(value):
        return MISSING
    if not error > 0 or value == 0:
        return f"{value:.4g}"
    exponent = 0 if 1e-3 <= abs(value) < 1e5 else math.floor(math.log10(abs(value)))
    value, error = value / 10.0**exponent, error / 10.0**exponent
    digits = max(0, -math.floor(math.log10(float(f"{error:.0e}"))))
    if digits > 4:
        return f"{value:.5g}±{error:.0e}" if not exponent else f"({value:.3g}±{error:.0e})e{exponent:+03d}"
    text = f"{value:.{digits}f}±{error:.{digits}f}"
    return f"({text})e{exponent:+03d}" if exponent else text


def _sweep_row(gain: float, name: str, one: xarray.Dataset) -> list[str | Text]:
    value = {key: float(one[key]) for key in one.data_vars if one[key].dtype.kind in "fi"}
    growth = math.exp(min(value["log_growth"], 700.0))
    return [
        _within(gain, GAIN),
        name,
        with_error(value["std_middle"], value["std_middle_error"]),
        with_error(value["std_end"], value["std_end_error"]),
        with_error(growth, growth * value["log_growth_error"]),
        _efold(value["log_growth"], value["log_growth_error"]),
        MISSING if math.isnan(value["correlation_end"]) else f"{round(value['correlation_end'], 3) + 0.0:.3f}",
        *(_worded(str(one[word].values)) for word in ("signal", "gradient")),
    ]


def _efold(growth: float, error: float) -> str:
    """Layers per e-fold, or the least they may be where the growth is within two standard errors of none."""
    if math.isnan(growth):
        return MISSING
    if growth == 0 and not error > 0:
        return "∞"
    if abs(growth) <= 2 * error:
        return f">{_within(1 / (abs(growth) + 2 * error), EFOLD - 1, digits=0)}"
    layers = 1 / abs(growth)
    return _within(layers, EFOLD, digits=3 if layers < 1000 else 0)


def _within(number: float, width: int, digits: int = 5) -> str:
    """A number in at most so many characters, with up to that many significant digits; 0 digits for a whole number.

    >>> _within(1.846213, 6), _within(0.690488, 6), _within(12345.6, 6, digits=0), _within(1234567.8, 6, digits=0)
    ('1.8462', '0.6905', '12346', '1e+06')
    """
    texts = [f"{number:.{places}g}" for places in range(digits, 0, -1)] if digits else [f"{number:.0f}"]
    return next((text for text in texts if len(text) <= width), f"{number:.0e}")


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
±           standard error over seeds, of which there {"is 1: none" if seeds == 1 else f"are {seeds}"}
survives: within a factor 10 over the depth; vanishes, explodes: beyond it;
saturates: most neurons where phi is flat; merges: all inputs give one output"""
