"""The figure of training runs: what trains, over initialization and depth; loss over steps; how the signal drifts."""

from collections.abc import Sequence

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxgain.training.summary import best_init, best_rates, kept, shown_depth, shown_inits

ROW, HEAD, FOOT, WIDTH = 3.9, 0.8, 0.15, 15.0  # inches
COLUMNS = {"map": (0.055, 0.32), "loss": (0.4, 0.61), "drift": (0.73, 0.95)}
MAP, LINES, STEPS = "viridis", "plasma", "cividis_r"
SETTLED = 6  # depths of xi_c over which a correlation has settled: Schoenholz et al. (2017)
WORDED = {"test_accuracy": "test accuracy", "train_accuracy": "training accuracy"}
STYLES = ("-", "--", "-.", ":")

# What is drawn of each layer while a network trains, and how it is written.
DRIFTS = {"q": "length q", "correlation": "correlation", "saturated": "saturated"}


def draw_training(figure: Figure, dataset: xarray.Dataset, *, accuracy: str = "test_accuracy") -> None:
    """Draw the dataset of `jaxgain.train` on an empty figure, and give the figure its size.

    A row per activation: `accuracy`, of "test_accuracy" and "train_accuracy", over initialization and depth (or
    learning rate, where there is one depth), with the theory's 6 ξ_c on top; the loss of some initializations over the
    steps, at the deepest depth that any of them learns; and length, correlation and saturation of each layer while the
    best of them trains.
    Means over seeds, at the best learning rate.
    """
    names = [str(name) for name in dataset["activation"].values]
    figure.set_size_inches(WIDTH, HEAD + ROW * len(names) + FOOT)
    height = figure.get_figheight()
    for row, name in enumerate(names):
        bottom = (FOOT + ROW * (len(names) - 1 - row) + 0.45) / height
        tall = (ROW - 0.95) / height
        axes = {
            column: figure.add_axes((left, bottom, right - left, tall))
            for column, (left, right) in COLUMNS.items()
            if column != "drift"
        }
        left, right = COLUMNS["drift"]
        each, step = 0.28 * tall, 0.36 * tall
        drifts = [figure.add_axes((left, bottom + step * place, right - left, each)) for place in (2, 1, 0)]
        one = best_rates(dataset.sel(activation=name).isel(width=-1))
        draw_accuracy(axes["map"], dataset.sel(activation=name).isel(width=-1), accuracy)
        depth = shown_depth(one)
        draw_losses(axes["loss"], one.sel(depth=depth))
        draw_drift(drifts, one.sel(depth=depth))
        axes["map"].set_title(f"{name}: {WORDED[accuracy]}", loc="left", fontsize=11, fontweight="bold")
        axes["loss"].set_title(f"loss at depth {depth}, by initialization", loc="left", fontsize=11)
        drifts[0].set_title(f"layers while {best_init(one.sel(depth=depth))} trains", loc="left", fontsize=11)
    figure.text(0.02, 1 - 0.3 / height, "What trains, and how deep", fontsize=16, fontweight="bold", va="top")
    figure.text(0.02, 1 - 0.68 / height, _about(dataset), fontsize=10, color="0.35", va="top")


def _about(dataset: xarray.Dataset) -> str:
    config = kept(dataset)
    rates = dataset["learning_rate"].values
    rate = f"learning rate {rates[0]:g}" if len(rates) == 1 else f"best of {len(rates)} learning rates"
    return (
        f"{config['dataset']}, width {dataset['width'].values[-1]}, {config['steps']} steps of {config['optimizer']}, "
        f"batch {config['batch']}, {rate}; means over {dataset.sizes['seed']} seed{'s' * (dataset.sizes['seed'] > 1)}"
    )


def draw_accuracy(axes: Axes, dataset: xarray.Dataset, name: str) -> None:
    """Accuracy over initializations and depths, or learning rates where there is one depth."""
    by_depth = dataset.sizes["depth"] > 1
    rows = "depth" if by_depth else "learning_rate"
    accuracy = dataset[name].mean("seed")
    accuracy = accuracy.max("learning_rate") if by_depth else accuracy.isel(depth=0)
    values = accuracy.transpose(rows, "init").values
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=MAP, vmin=0, vmax=1)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
    bar.set_ticks([0, 0.5, 1], labels=["0", "½", "1"])
    inits = [str(label) for label in dataset["init"].values]
    every = max(1, -(-len(inits) // 12))
    axes.set_xticks(
        range(0, len(inits), every), inits[::every], rotation=45 if len("".join(inits[::every])) > 40 else 0
    )
    axes.set_yticks(range(len(values)), [f"{value:g}" for value in dataset[rows].values])
    axes.set_xlabel("initialization: σ_w of every layer, or its criterion")
    axes.set_ylabel("hidden layers" if by_depth else "learning rate")
    if by_depth:
        draw_settling(axes, dataset)


def draw_settling(axes: Axes, dataset: xarray.Dataset) -> None:
    """6 ξ_c over the initializations, where depths are rows; above the deepest it leaves the panel."""
    depths = np.log(dataset["depth"].values)
    reach = np.abs(SETTLED * dataset["xi_c"].values.astype(float))
    numbers = [place for place, label in enumerate(dataset["init"].values) if _is_number(str(label))]
    known = [place for place in numbers if np.isfinite(reach[place]) or np.isinf(reach[place])]
    if len(known) < 2:
        return
    logs = np.log(np.minimum(np.maximum(reach[known], 1e-9), 1e9))
    slope = (len(depths) - 1) / (depths[-1] - depths[0])
    inside = np.interp(logs, depths, np.arange(len(depths)))
    beyond = np.where(logs > depths[-1], (logs - depths[-1]) * slope, np.minimum(logs - depths[0], 0) * slope)
    axes.plot(known, inside + beyond, color="white", lw=4, solid_capstyle="round")
    axes.plot(known, inside + beyond, color="#d1495b", lw=2, label="6 ξ_c (theory)")
    axes.set_ylim(-0.5, len(depths) - 0.5)
    axes.legend(loc="lower center", bbox_to_anchor=(0.8, 1.0), frameon=False, fontsize=9, borderaxespad=0.2)


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def draw_losses(axes: Axes, dataset: xarray.Dataset) -> None:
    """The loss over the steps, of some initializations at one depth, smoothed over a fiftieth of the steps."""
    inits = shown_inits(dataset)
    colours = _colours(LINES, len(inits))
    window = max(1, dataset.sizes["step"] // 50)
    for place, (label, colour) in enumerate(zip(inits, colours, strict=True)):
        loss = dataset["loss"].sel(init=label).mean("seed").rolling(step=window, min_periods=1).mean()
        axes.plot(dataset["step"], loss, color=colour, lw=1.6, ls=STYLES[place % len(STYLES)], label=label)
    axes.axhline(np.log(10), color="0.6", lw=0.8, zorder=0)  # of ten classes
    chance = {"xy": (1, np.log(10)), "xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate("guessing", xytext=(-2, 2), ha="right", fontsize=8, color="0.4", **chance)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss, nats")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)
    _bare(axes)


def draw_drift(panels: Sequence[Axes], dataset: xarray.Dataset) -> None:
    """Length, correlation and saturation of each layer's z, from top to bottom, at several steps.

    Of the initialization with the best accuracy at one depth.
    """
    best = dataset.sel(init=best_init(dataset))
    steps = best["measured_step"].values
    chosen = steps[np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).astype(int))]
    for axes, (name, label) in zip(panels, DRIFTS.items(), strict=True):
        for step, colour in zip(chosen, _colours(STEPS, len(chosen)), strict=True):
            values = best[name].sel(measured_step=step).mean("seed").dropna("layer")
            axes.plot(values["layer"], values, color=colour, lw=1.6)
        if name == "q":
            axes.set_yscale("log")
        else:
            axes.set_ylim(min(0, axes.get_ylim()[0]), max(0.2, axes.get_ylim()[1]))
        axes.set_ylabel(label, fontsize=9)
        axes.tick_params(labelsize=8, labelbottom=axes is panels[-1])
        _bare(axes)
    panels[-1].set_xlabel("layer")
    scale = ScalarMappable(Normalize(0, max(1, chosen[-1])), STEPS)
    panels[0].figure.colorbar(scale, ax=list(panels), pad=0.02, fraction=0.05, label="step")


def _colours(name: str, count: int) -> np.ndarray:
    return ScalarMappable(Normalize(0, 1), name).to_rgba(np.linspace(0.05, 0.85, count))


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.93", lw=0.7)
