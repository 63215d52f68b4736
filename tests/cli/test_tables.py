import io

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import jaxgain
from jaxgain.cli.tables import console, gain_tables, sweep_tables, with_error


def printed(parts, *, width=100, colours=False):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colours)
    for part in parts:
        console.print(part)
    return out.getvalue()


def rows_of(text, activation):
    lines = [line.rstrip() for line in text.splitlines()]
    start = lines.index(activation) + 1
    stop = next(i for i in range(start, len(lines)) if not lines[i][:1].isdecimal())
    return [line.split() for line in lines[start:stop]]


def test_a_row_says_gain_name_std_growth_efold_correlation_and_verdict(exponential_sweep):
    dataset = exponential_sweep(gradient_rate=0.1, jitter=0.01)
    assert rows_of(printed(sweep_tables(dataset)), "tanh") == [
        ["1.5", "forward", "1", "1", "1.105±0.007", "10", "0.500", "survives", "explodes"]
    ]


def test_all_gains_are_shown_where_asked_for(exponential_sweep):
    text = printed(sweep_tables(exponential_sweep(), all_gains=True))
    assert [row[0] for row in rows_of(text, "relu")] == ["1", "1.5", "2"]


def test_a_growth_that_may_be_none_has_a_least_efold(exponential_sweep):
    row = rows_of(printed(sweep_tables(exponential_sweep(gradient_rate=0.001, jitter=0.01))), "tanh")[0]
    slopes = 0.001 + 0.01 * np.array([-1.5, -0.5, 0.5, 1.5])
    least = 1 / (slopes.mean() + 2 * slopes.std(ddof=1) / 2)
    assert row[5] == f">{least:.0f}"


def test_one_seed_and_one_input_are_shown_without_errors_and_correlation(exponential_sweep):
    dataset = exponential_sweep(seeds=1, gradient_rate=0.1).drop_vars("correlation")
    text = printed(sweep_tables(dataset))
    assert rows_of(text, "tanh") == [["1.5", "forward", "1", "1", "1.105", "10", "–", "survives", "explodes"]]
    assert "of which there is 1: none" in text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.65123, 0.00234, "0.651±0.002"),
        (1.09921, 0.00041, "1.0992±0.0004"),
        (192.4, 115.2, "192±115"),
        (6.9e7, 6.1e6, "(6.9±0.6)e+07"),
        (1.21e7, 0.97e6, "(1.2±0.1)e+07"),
        (2.06e-15, 9e-17, "(2.06±0.09)e-15"),
        (1.09921234, 4.2e-6, "1.0992±4e-06"),
        (2.1e-14, 3e-15, "(2.1±0.3)e-14"),
        (0.5, 0.0, "0.5"),
        (0.0, 0.0, "0"),
        (0.5, float("nan"), "0.5"),
        (float("nan"), float("nan"), "–"),
    ],
)
def test_means_are_written_to_the_first_digit_of_their_error(value, error, text):
    assert with_error(value, error) == text


def test_tables_fit_100_columns_and_are_the_same_without_colours(exponential_sweep):
    dataset = exponential_sweep(std_rate=0.4, gradient_rate=0.4, jitter=0.01)
    plain = printed(sweep_tables(dataset))
    assert max(map(len, plain.splitlines())) <= 100
    assert "…" not in plain
    coloured = printed(sweep_tables(dataset), colours=True)
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain


def test_a_pipe_is_100_columns_wide_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert console().width == 100


def test_the_table_of_gains_stars_what_needs_a_bias_and_gives_reasons_for_what_is_missing():
    text = printed(gain_tables(jaxgain.gain_table(["gelu", "tanh"])))
    gelu, tanh = (
        next(line.split() for line in text.splitlines() if line.startswith(name)) for name in ("gelu", "tanh")
    )
    assert gelu[1] == f"{jaxgain.gain('gelu'):.4f}"
    assert gelu[-1] == "unstable"
    assert tanh[-1] == "stable"
    assert "1.4082*" in gelu
    assert "*   only with biases of this sigma_b: gelu 0.4158" in text
    assert "–" in tanh
    assert "no self_consistent gain, since" in text


def test_no_number_is_cut_off(exponential_sweep):
    """Exponents of std and of growth, and e-folds of thousands of layers."""
    tiny = exponential_sweep(gradient_rate=-8.7, jitter=0.002)
    tiny["std"] = (
        tiny["std"] * 2.06e-15 * (1 + 0.09 * np.linspace(-1, 1, tiny.sizes["seed"]) * xr.ones_like(tiny["seed"]))
    )
    text = printed(sweep_tables(tiny))
    assert "…" not in text and "e-15" in text and "e-04" in text
    assert "…" not in printed(sweep_tables(exponential_sweep(gradient_rate=1 / 43210)))
    assert "43210" in printed(sweep_tables(exponential_sweep(gradient_rate=1 / 43210)))


def test_of_very_many_gains_a_table_shows_some_and_says_so(exponential_sweep):
    one = exponential_sweep().isel(gain=[0]).drop_vars("gain_name")
    many = one.isel(gain=np.zeros(101, int)).assign_coords(gain=np.linspace(0.5, 3, 101))
    many = many.assign_coords(gain_name=(("activation", "gain"), np.full((2, 101), "")))
    text = printed(sweep_tables(many))
    assert text.count("(25 of 101 gains; --rows all shows every one)") == 2
    gains = [float(row[0]) for row in rows_of(text, "tanh")]
    assert len(gains) == 25 and (gains[0], gains[-1]) == (0.5, 3.0)
    assert "of 101 gains" not in printed(sweep_tables(many, all_gains=True))
