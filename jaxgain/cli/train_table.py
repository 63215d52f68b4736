"""The table of training runs."""

from collections.abc import Iterator

import xarray
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from jaxgain.cli.tables import MISSING, with_error
from jaxgain.training.summary import accuracy_and_error, best_rates

MOST_DEPTHS = 8
WITH_ERRORS = 4  # depths up to which every number has its error beside it


def train_tables(dataset: xarray.Dataset) -> Iterator[RenderableType]:
    """Yield a table per activation and width: test accuracy, a row per initialization, a column per depth."""
    depths = dataset["depth"].values
    shown = depths if len(depths) <= MOST_DEPTHS else depths[:: -(-len(depths) // MOST_DEPTHS)]
    for activation in dataset["activation"].values:
        for width in dataset["width"].values:
            one = dataset.sel(activation=activation, width=width).sel(depth=shown)
            yield Text(f"{activation}, width {width}: test accuracy by depth", style="bold")
            yield _accuracies(one)
    several = dataset.sizes["learning_rate"] > 1
    notes = [
        "6 ξ_c     depth over which two inputs become indistinguishable or unrelated, by theory (–: never)",
        *(["@         at the learning rate behind it, the best of those tried"] if several else []),
        "!         some runs ended in numbers that are not finite",
        *_about_errors(dataset.sel(depth=shown)),
    ]
    yield Text("\n" + "\n".join(notes), style="dim")


def _accuracies(dataset: xarray.Dataset) -> Table:
    best = best_rates(dataset)
    mean, error = accuracy_and_error(best)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for header in ("init", "σ_w", "σ_b", "6 ξ_c"):
        table.add_column(header, justify="left" if header == "init" else "right", no_wrap=True)
    for depth in dataset["depth"].values:
        table.add_column(str(depth), justify="right", no_wrap=True)
    for label in dataset["init"].values:
        of = best.sel(init=label)
        cells = []
        for depth in dataset["depth"].values:
            one = of.sel(depth=depth)
            value, beside = (float(x.sel(init=label, depth=depth)) for x in (mean, error))
            rate = f" @{float(one['learning_rate']):.2g}" if dataset.sizes["learning_rate"] > 1 else ""
            broken = "!" if bool((one["diverged"] >= 0).any()) else ""
            alone = beside != beside or dataset.sizes["depth"] > WITH_ERRORS
            cells.append((f"{value:.3f}" if alone else with_error(value, beside)) + broken + rate)
        table.add_row(str(label), *(_plain(float(of[name])) for name in ("sigma_w", "sigma_b")), _reach(of), *cells)
    return table


def _about_errors(dataset: xarray.Dataset) -> list[str]:
    if dataset.sizes["seed"] == 1:
        return []
    if dataset.sizes["depth"] <= WITH_ERRORS:
        return ["±         standard error over seeds"]
    _, error = accuracy_and_error(best_rates(dataset))
    return [
        f"          means over {dataset.sizes['seed']} seeds, with standard errors of {float(error.max()):.2g} at most"
    ]


def _reach(dataset: xarray.Dataset) -> str:
    reach = 6 * abs(float(dataset["xi_c"]))
    return f"{reach:.3g}" if 0 < reach < 1e6 else MISSING


def _plain(value: float) -> str:
    return f"{value:.4g}" if value == value else MISSING
