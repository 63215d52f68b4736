"""Which cures of exploding gradients change the gradients, and which help training all the same?

Claim of a forum thread on `calculate_gain('tanh')`, whose tanh networks of gain 5/3 explode:

- A24: layerwise learning rates "or an automated approach to adjusting the learning rate such as hyper-gradient descent
  to better cope with the differences in gradient size at different layers"; "either using skip connections or
  orthogonal initialisation" (Philipp et al., The exploding gradient problem demystified); "the usual way to counter
  exploding gradients was clipping"

Each cure is applied to the same plain tanh network of gain 5/3: to its training (layerwise rates that undo the growth,
hypergradient descent, clipping, and beside them Adam), or to the network (orthogonal weights, skip connections, and
beside them the critical gain 1). Before the first step the gradient at the first layer is compared
with that at the last one, and so is the step that is taken; then it is trained, at the best of some learning rates.

    python -m experiments.cures

prints the verdict and writes cures.nc and cures.png, in two minutes. Skip connections flatten the gradient,
as gain 1 does; orthogonal weights of the same gain do not, and the rest cannot, as they act on the steps.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    YELLOW,
    Estimate,
    Found,
    Verdict,
    estimate,
    main_of,
    plain_panel,
    progress_bar,
    verdict_of,
)

CLIP = 1.0
CURES = {
    "none": {},
    "layerwise rates": {"layer_rates": "growth**(l - L)"},
    "hypergradient": {"optimizer": "hypergradient"},
    "clipping": {"clip": CLIP},
    "orthogonal": {"distribution": "orthogonal"},
    "skip connections": {"block": "residual", "inits": ("torch",)},
    "gain 1": {"inits": (1.0,)},
    "gain 1, orthogonal": {"inits": (1.0,), "distribution": "orthogonal"},
    "Adam": {"optimizer": "adam"},
}
CLAIMED = ("layerwise rates", "hypergradient", "clipping", "orthogonal", "skip connections")
COLOURS = {"none": "k", "skip connections": GREEN, "orthogonal": ORANGE, "gain 1": BLUE, "gain 1, orthogonal": SKY}
STEPS = {"layerwise rates": PURPLE, "clipping": YELLOW}


@dataclasses.dataclass(frozen=True)
class CuresConfig:
    """Sizes of the networks; the verdict is about the defaults."""

    cures: tuple[str, ...] = tuple(CURES)
    """Which of them, none among them."""
    learning_rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    """Of which each cure has its best, the same for all, as their steps are of different sizes."""
    depth: int = 40
    """Hidden layers, an even number; residual networks have half as many branches, of two layers each."""
    width: int = 64
    """Neurons per layer."""
    steps: int = 200
    """Steps of the optimizer."""
    seeds: int = 4
    """Networks per cure and learning rate."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""

    def __post_init__(self) -> None:
        """Check what training does not; raises `ValueError` with one sentence."""
        if "none" not in self.cures or not set(self.cures) <= set(CURES):
            raise ValueError(f"cures must be of {', '.join(CURES)}, none among them, got {', '.join(self.cures)}")
        if self.depth < 2 or self.depth % 2:
            raise ValueError(f"depth must be even and at least 2, got {self.depth}")


FULL = CuresConfig()
SMOKE = CuresConfig(("none", "gain 1"), (1e-2,), depth=4, width=40, steps=20, seeds=2)  # one compilation


def run(config: CuresConfig) -> Found:
    """Gradients and steps of every layer before training, losses and accuracies, for each cure."""
    rows = [_row(config, name) for name in config.cures]
    return {"cures": xarray.concat(rows, xarray.Variable("cure", list(config.cures)), join="outer")}


def _row(config: CuresConfig, name: str) -> xarray.Dataset:
    how: dict[str, Any] = {"inits": ("5/3",), "optimizer": "sgd"} | CURES[name]
    if "layer_rates" in how:  # what the gradient grows by per layer at infinite width
        growth = jg.fixed_point("tanh", jg.Init(5 / 3)).chi_perp ** 0.5
        how["layer_rates"] = how["layer_rates"].replace("growth", f"{growth:.6f}")
    depth = config.depth // 2 if how.get("block") == "residual" else config.depth
    sizes: dict[str, Any] = {"depths": depth, "widths": config.width, "seeds": config.seeds, "steps": config.steps}
    sizes["learning_rates"] = config.learning_rates
    settings = jg.TrainConfig("tanh", measure_every=config.steps, **sizes, **how)
    with progress_bar() as progress:
        runs = jg.train(settings, progress=progress)
    runs = runs.squeeze(["activation", "init", "depth", "width"], drop=True)
    accuracy = runs["train_accuracy"].mean("seed")
    best = runs.isel(learning_rate=int(accuracy.argmax("learning_rate")))
    first = best["log_grad_norm"].isel(recorded_step=0, drop=True).astype(float)
    multipliers = np.log(np.array(settings.rates_of_layers(depth)))
    whole = 0.5 * np.log(np.exp(2 * first).sum("layer"))  # type: ignore
    shrink = np.minimum(0.0, math.log(CLIP) - whole) if "clip" in how else 0.0
    # The first step of Adam is ± the rate, whatever the gradient.
    before = 0 * first if how["optimizer"] == "adam" else first
    step = before + xarray.DataArray(multipliers, dims="layer", coords={"layer": first["layer"]}) + shrink
    # Where each layer is between the first (0) and the readout (1).
    place = np.linspace(0, 1, first.sizes["layer"])
    common = np.linspace(0, 1, config.depth + 1)
    hidden = {"gradient": first, "step": step}
    found = {
        key: (
            ("seed", "place"),
            np.stack([np.interp(common, place, row) for row in values.transpose("seed", "layer").values]),
        )
        for key, values in hidden.items()
    }
    found |= {
        "loss": (("seed", "step_of_training"), best["loss"].transpose("seed", "step").values),
        "accuracy": ("seed", best["train_accuracy"].values),
        "test_accuracy": ("seed", best["test_accuracy"].values),
        "rate": float(best["learning_rate"]),
    }
    return xarray.Dataset(found, {"place": common})


def judge(found: Found) -> list[Verdict]:
    """Read the verdict off the dataset."""
    cures = found["cures"]
    names, seeds = cures["cure"].values.tolist(), cures.sizes["seed"]
    ratio = {key: {name: _ratio(cures[key].sel(cure=name)) for name in names} for key in ("gradient", "step")}
    accuracy = {name: estimate(cures["accuracy"].sel(cure=name)) for name in names}
    plain = accuracy["none"]
    flatter = [name for name in names if _flatter(ratio["gradient"][name], ratio["gradient"]["none"])]
    steps = [name for name in names if name not in flatter and _flatter(ratio["step"][name], ratio["step"]["none"])]
    gain = {name: Estimate(a.mean - plain.mean, math.hypot(a.error, plain.error)) for name, a in accuracy.items()}
    better = [name for name in names if gain[name].above(0)]
    claimed = [name for name in CLAIMED if name in names]
    works = [name for name in claimed if name in flatter]
    lines = (
        f"{name}: gradient × {math.exp(ratio['gradient'][name].mean):.3g}, step × "
        f"{math.exp(ratio['step'][name].mean):.3g}, accuracy {accuracy[name]}"
        for name in names
    )
    listed = lambda some: ", ".join(some) or "none"
    others = [name for name in names if name not in claimed and name != "none"]
    return [
        Verdict(
            "A24",
            "layerwise rates, hypergradients, skip connections, orthogonal weights, clipping cure exploding gradients",
            verdict_of(bool(claimed) and works == claimed, imprecise=bool(works) or bool({*claimed} & {*better})),
            "first layer over last at the start, training accuracy after "
            f"{cures.sizes['step_of_training']} steps at the best rate: " + "; ".join(lines),
            seeds,
            f"Of the five, what makes the gradient flatter: {listed(works)}; only the steps: "
            f"{listed(name for name in steps if name in claimed)}; neither: "
            f"{listed(name for name in claimed if name not in flatter + steps)}. Learn more than the plain network: "
            f"{listed(name for name in claimed if name in better)}; of what is beside them "
            f"({listed(others)}): {listed(name for name in others if name in better)}. Clipping and hypergradients "
            "multiply all layers by one number, which no profile sees"
            + ("" if "orthogonal" in flatter else "; orthogonal weights need the right gain, as others do"),
        )
    ]


def _ratio(log: xarray.DataArray) -> Estimate:
    """Log of the first hidden matrix's norm over that of the last one; the ends have other shapes."""
    return estimate(log.isel(place=1) - log.isel(place=-2))


def _flatter(one: Estimate, plain: Estimate) -> bool:
    """Whether a profile changes by less than half as many powers, surely."""
    return Estimate(abs(one.mean) - abs(plain.mean) / 2, math.hypot(one.error, plain.error / 2)).below(0)


def draw(figure: Figure, found: Found) -> None:
    """Gradients and steps before training, losses on the way, and how well each one learns."""
    cures = found["cures"]
    names = cures["cure"].values.tolist()
    figure.set_size_inches(16, 4.8)
    figure.set_layout_engine("constrained")
    gradient, step, accuracy = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    inner = slice(1, -1)
    for axes, key, colours in ((gradient, "gradient", COLOURS), (step, "step", {"none": "k"} | STEPS)):
        for name, colour in colours.items():
            if name in names:
                log = cures[key].sel(cure=name).mean("seed").isel(place=inner)
                axes.semilogy(
                    log["place"],
                    np.exp(log - log[-1]),
                    color=colour,
                    lw=2,
                    label=name,
                    ls="--" if name == "none" else "-",
                    zorder=3 if name == "none" else 2,
                )
        axes.legend(fontsize=9)
    where = "layer: from first (0) to last (1)"
    title = "Only the network decides the gradients' profile"
    plain_panel(gradient, title=title, xlabel=where, ylabel="norm of ∂loss/∂W / in the last layer, before training")
    plain_panel(
        step,
        title="… rates per layer undo it, clipping does not",
        xlabel=where,
        ylabel="norm of the first step / in the last layer",
    )
    order = sorted(names, key=lambda name: float(cures["accuracy"].sel(cure=name).mean()))
    for place, name in enumerate(order):
        one = cures["accuracy"].sel(cure=name)
        value = estimate(one)
        accuracy.barh(place, value.mean, xerr=value.error, color=GREEN if name in CLAIMED else "0.75", capsize=3)
        rate = float(cures["rate"].sel(cure=name))
        accuracy.annotate(f"{value.mean:.2f}, at rate {rate:g}", (0.02, place), fontsize=8.5, va="center")
    accuracy.set_yticks(range(len(order)), order, fontsize=9)
    title = f"Training accuracy after {cures.sizes['step_of_training']} steps (green: the five of the claim)"
    plain_panel(accuracy, title=title, xlabel="accuracy ± standard error", xlim=(0, 1.02))
    about = f"{cures.sizes['place'] - 1} layers, handwritten digits, {cures.sizes['seed']} networks per cure"
    figure.suptitle(f"Cures of the exploding gradients of tanh networks of gain 5/3 ({about})", fontsize=12)


main = main_of("cures", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
