"""Does a network whose gradient has vanished come back under training?

Claim B16, from an answer to a question on tanh(nx) as an activation (Esmailian): "When system goes to state [g ~ 0],
there is not much gradient to bring (change) the values back to state [g >> 0]. This is similar to a one way street that
will be passed eventually". So: out of the vanished state there is no way back, and healthy networks end in it.

Networks of tanh begin with small weights, which lose signal and gradient, or with large biases, which saturate. One has
vanished where the gradient of its first layer is below 1/300 of that at σ_w = 1 without biases; it is back where that
gradient has been above 1/10 of it at a later step. They are trained on handwritten digits, with SGD and with Adam.

    python -m experiments.one_way_street

prints the verdict and writes one_way_street.png, in about a minute. Within 1500 steps SGD brings back one in twelve of
52 vanished networks and Adam four in five; no healthy network vanished before it had learned. With other bounds for
"vanished", from 1/30 to 1e-5, it is 0 to 20% with SGD and 62 to 83% with Adam. Longer training was not tried.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Found, Verdict, main_of, verdict_of

VANISHED, BACK, LEARNED = 1 / 300, 1 / 10, 0.5
COLOURS = ("#d55e00", "#e69f00", "#cc79a7", "#56b4e9", "#0072b2", "#009e73")


@dataclasses.dataclass(frozen=True)
class StreetConfig:
    """Sizes of the networks and of the training."""

    sigma_w: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    """σ_w of every layer; 1 must be among them."""
    sigma_b: tuple[float, ...] = (0.0, 3.0)
    """Standard deviations of the biases; 0 must be among them."""
    depth: int = 10
    """Hidden layers."""
    width: int = 16
    """Neurons per hidden layer."""
    steps: int = 1500
    """Steps of each optimizer."""
    seeds: int = 6
    """Networks per initialization."""
    learning_rates: tuple[float, float] = (0.1, 0.003)
    """Of SGD and of Adam."""
    out: Path = Path("experiments/figures")
    """Folder of the dataset and the figure."""


FULL = StreetConfig()
SMOKE = StreetConfig(sigma_w=(0.3, 1.0), sigma_b=(0.0,), depth=5, width=8, steps=40, seeds=2)


def run(config: StreetConfig) -> Found:
    """Train all networks; the log of the first layer's gradient over the steps, and the accuracy."""
    found: Found = {}
    for optimizer, rate in zip(("sgd", "adam"), config.learning_rates, strict=True):
        parts = [
            jg.train(
                jg.TrainConfig(
                    inits=config.sigma_w, sigma_b=sigma_b, depths=(config.depth,), widths=(config.width,), batch=32,
                    learning_rates=rate, optimizer=optimizer, steps=config.steps, seeds=config.seeds,
                    gradient_every=10, measure_every=config.steps,
                )
            )
            for sigma_b in config.sigma_b
        ]  # fmt: skip
        one = xarray.concat(
            [_first_layer(part) for part in parts], dim=xarray.IndexVariable("sigma_b", np.array(config.sigma_b))
        )
        found[optimizer] = one.assign_attrs(depth=config.depth, width=config.width, steps=config.steps, rate=rate)
    return found


def _first_layer(trained: xarray.Dataset) -> xarray.Dataset:
    one = trained.squeeze(["activation", "depth", "width", "learning_rate"], drop=True)
    first = one["log_grad_norm"].isel(layer=0).astype(np.float64)
    found = xarray.Dataset({"log_gradient": first, "accuracy": one["train_accuracy"]}).reset_coords(drop=True)
    return found.assign_coords(init=one["sigma_w"].values).rename(init="sigma_w", recorded_step="step")


def states(one: xarray.Dataset) -> xarray.Dataset:
    """Of each network: whether it begins vanished or healthy, whether it comes back, and whether it is lost at the end.

    `relative` is the first layer's gradient over that of healthy networks at step 0.
    """
    healthy = one["log_gradient"].isel(step=0).sel(sigma_w=1.0, sigma_b=0.0).mean("seed")
    relative = one["log_gradient"] - healthy
    start, later = relative.isel(step=0), relative.isel(step=slice(1, None))
    learned = one["accuracy"] >= LEARNED
    return xarray.Dataset(
        {
            "relative": relative,
            "vanished": start < math.log(VANISHED),
            "healthy": start > math.log(BACK),
            "back": later.max("step") > math.log(BACK),
            "learned": learned,
            # Where a task is learned its gradient is small too, and nothing is lost.
            "lost": (later.isel(step=slice(-5, None)).max("step") < math.log(VANISHED)) & ~learned,
        }
    )


def share(of: xarray.DataArray, among: xarray.DataArray) -> tuple[float, float, int]:
    """Share, standard error (with one more on either side, so that it is not 0) and number."""
    number = int(among.sum())
    hits = int((of & among).sum())
    likely = (hits + 1) / (number + 2)
    return hits / max(number, 1), math.sqrt(likely * (1 - likely) / max(number, 1)), number


def judge(found: Found) -> list[Verdict]:
    """Read the verdict off the numbers."""
    each = {name: states(found[name]) for name in ("sgd", "adam")}
    back = {name: share(one["back"], one["vanished"]) for name, one in each.items()}
    learned = {name: share(one["learned"], one["vanished"]) for name, one in each.items()}
    lost = {name: share(one["lost"], one["healthy"]) for name, one in each.items()}
    stays = {name: value + 2 * error < 0.5 for name, (value, error, _) in back.items()}
    drifts = any(value > 0.5 for value, _, _ in lost.values())
    percent = lambda value: f"{100 * value[0]:.0f} ± {100 * value[1]:.0f}%"
    steps, number = found["sgd"].attrs["steps"], back["sgd"][2]
    returns = {name: "does not come back" if stays[name] else "comes back" for name in stays}
    verdict = Verdict(
        "B16", "a network that has vanished does not come back",
        verdict_of(all(stays.values()) and drifts, imprecise=any(stays.values())),
        f"of {number} vanished networks, within {steps} steps, {percent(back['sgd'])} come back with SGD and "
        f"{percent(back['adam'])} with Adam (learn: {percent(learned['sgd'])} and {percent(learned['adam'])}); of "
        f"{lost['sgd'][2]} healthy ones {percent(lost['sgd'])} and {percent(lost['adam'])} vanish and have not learned",
        each["sgd"]["vanished"].size,
        f"With SGD, whose step is proportional to the gradient, most of the time a vanished network {returns['sgd']}; "
        f"with Adam, whose step does not shrink with the gradient (but for its ε), it {returns['adam']}. "
        + ("Healthy networks did end there." if drifts else "No street leads there: training does not make healthy "
           "networks vanish; it is where they began that decides."),
    )  # fmt: skip
    return [verdict]


def draw(figure: Figure, found: Found) -> None:
    """Left and middle the gradients under SGD and Adam, right how many come back."""
    figure.set_size_inches(14, 4.6)
    panels = figure.subplots(1, 3)
    for axes, name in zip(panels, ("sgd", "adam"), strict=False):
        _draw_paths(axes, found[name], name)
    panels[0].set_ylabel("first layer's gradient, healthy = 1")
    panels[0].sharey(panels[1])
    _draw_back(panels[2], found)
    for axes in panels:
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("A vanished gradient comes back with Adam, and with SGD only where it had not vanished far")
    figure.tight_layout()


def _draw_paths(axes: Axes, one: xarray.Dataset, name: str) -> None:
    relative = states(one)["relative"].sel(sigma_b=0.0)
    smooth = math.e ** relative.rolling(step=5, min_periods=1).median()
    for sigma_w, colour in zip(one["sigma_w"].values, COLOURS, strict=False):
        of = smooth.sel(sigma_w=sigma_w)
        axes.semilogy(of["step"], of.median("seed"), color=colour, linewidth=2, label=f"σ_w = {sigma_w:g}")
        axes.fill_between(of["step"], of.min("seed"), of.max("seed"), color=colour, alpha=0.15, linewidth=0)
    for level, words in ((VANISHED, "vanished"), (BACK, "back")):
        axes.axhline(level, color="0.4", linestyle=":", linewidth=1)
        axes.annotate(words, (one["step"][-1], level), (0, 3), textcoords="offset points", fontsize=8, ha="right")
    label = {"sgd": "SGD", "adam": "Adam"}[name]
    title = f"{label}, rate {one.attrs['rate']:g}: tanh, {one.attrs['depth']} layers, no biases"
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step")
    axes.set_ylim(3e-8, 30)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower right")


def _draw_back(axes: Axes, found: Found) -> None:
    for name, colour, marker in (("sgd", COLOURS[4], "o"), ("adam", COLOURS[0], "s")):
        size = 11 if name == "sgd" else 6
        one = states(found[name])
        start = math.e ** one["relative"].isel(step=0).mean("seed")
        for sigma_b, face in zip(one["sigma_b"].values, (colour, "none"), strict=False):
            x = start.sel(sigma_b=sigma_b)
            y = 100 * one["back"].sel(sigma_b=sigma_b).mean("seed")
            label = f"{ {'sgd': 'SGD', 'adam': 'Adam'}[name] }, σ_b = {sigma_b:g}"
            axes.semilogx(
                x, y, marker, color=colour, markerfacecolor=face, markersize=size, linestyle="none", label=label
            )
    axes.axvline(VANISHED, color="0.4", linestyle=":", linewidth=1)
    axes.annotate("vanished", (VANISHED, 50), (-4, 0), textcoords="offset points", fontsize=8, ha="right")
    axes.set(
        xlabel="first layer's gradient at the start, healthy = 1", ylabel="networks that are back (%)", ylim=(-5, 105)
    )
    axes.set_title(f"How many come back within {found['sgd'].attrs['steps']} steps", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1, 0.35))


main = main_of("one_way_street", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
