"""What does ReLU halve, and what do the derivations of He and of Xavier keep?

C7  A note on exploding and vanishing gradients, of He's √(2/n): "half of the y would turn to 0 after ReLU. So y's
    variance will become half."

He et al., Delving deep into rectifiers, 2015: with Var W = 2/n a ReLU network keeps the mean square of its signal and
of its gradient; with Xavier's 1/n both are halved in every layer.

Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010: in a linear network
Var W = 2/(n_in + n_out) keeps the variance of signal and gradient where all widths are equal, and is a compromise
elsewhere: over a pair of layers n → m → n both are multiplied by 4nm/(n + m)².

    python -m experiments.relu_halves_which_moment

prints the verdicts and writes relu_halves_which_moment.nc and relu_halves_which_moment.png, in a minute.

ReLU halves the mean square; of the variance it leaves 34%.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

VARIANCE = 0.5 - 1 / (2 * math.pi)  # of the positive part of a standard normal number
GAINS = {"√2 (He)": 2**0.5, "1 (Xavier)": 1.0, "1.71, as if the variance were kept": VARIANCE**-0.5}
STATISTICS = ("mean", "std", "second_moment", "log_grad_rms")


@dataclasses.dataclass(frozen=True)
class MomentsConfig:
    """Sizes of the networks."""

    width: int = 1000
    """Neurons per layer; every second layer of the linear networks of unequal widths has a quarter of them."""
    depth: int = 30
    """Layers, as many as the deepest network of He et al."""
    seeds: int = 1000
    """Networks of each kind."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = MomentsConfig()
SMOKE = MomentsConfig(width=40, depth=2, seeds=20)


def run(config: MomentsConfig) -> dict[str, xarray.Dataset]:
    """Return the moments after one ReLU, and mean squares of signal and gradient, relative to where they start."""
    sizes: dict[str, Any] = dict(depth=config.depth, seeds=config.seeds, inputs=1, statistics=STATISTICS)
    relu = jg.sweep(jg.SweepConfig("relu", tuple(GAINS.values()), width=config.width, **sizes)).isel(activation=0)
    first = relu.sel(gain=1.0).isel(layer=1)
    one = {"mean": first["mean"], "variance": first["std"] ** 2, "second_moment": first["second_moment"]}
    widths = {"equal": config.width, "alternating": alternating(config)}
    linear = [jg.sweep(jg.SweepConfig("identity", (1.0,), width=n, mode="fan_avg", **sizes)) for n in widths.values()]
    profiles = [_profile(each.isel(activation=0, gain=0)) for each in linear]
    named = [_profile(relu.sel(gain=gain, method="nearest")) for gain in GAINS.values()]
    return {
        "one": xarray.Dataset(one).reset_coords(drop=True),
        "relu": xarray.concat(named, "init").assign_coords(init=list(GAINS)),
        "linear": xarray.concat(profiles, "widths").assign_coords(widths=list(widths)).assign_attrs(ratio=4.0),
    }


def alternating(config: MomentsConfig) -> tuple[int, ...]:
    """The width, a quarter of it, and so on."""
    return tuple(config.width // (1, 4)[layer % 2] for layer in range(config.depth + 1))


def _profile(dataset: xarray.Dataset) -> xarray.Dataset:
    """Means over networks, and their errors, of the mean square of h and of its gradient; widths divided out."""
    power = dataset["second_moment"].astype(float)
    gradient = np.exp(2 * (dataset["log_grad_rms"] - dataset["log_grad_rms"].isel(layer=-1)))
    seeds = power.sizes["seed"]
    both = {"signal": power, "gradient": gradient}
    means = {name: values.mean("seed") for name, values in both.items()}
    errors = {f"{name}_error": values.std("seed", ddof=1) / seeds**0.5 for name, values in both.items()}
    return xarray.Dataset(means | errors).reset_coords(drop=True).assign_attrs(seeds=seeds)


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """C7, He and Glorot."""
    return [_halved(found["one"]), _he(found["relu"]), _glorot(found["linear"])]


def _halved(one: xarray.Dataset) -> Verdict:
    seeds = one.sizes["seed"]
    value = {name: float(one[name].mean()) for name in one.data_vars}
    error = {name: float(one[name].std(ddof=1)) / seeds**0.5 for name in one.data_vars}
    variance, second = (abs(value[name] - 0.5) < 4 * error[name] for name in ("variance", "second_moment"))
    number = ", ".join(
        f"{words} {value[name]:.4f} ± {error[name]:.4f}"
        for name, words in {"second_moment": "mean square", "variance": "variance", "mean": "mean"}.items()
    )
    why = "The variance is halved."
    if not variance:
        half = "The mean square is halved" if second else "Neither is halved"
        why = (
            f"{half}; the variance about the new mean, 1/√(2π), becomes ½ − 1/(2π) = {VARIANCE:.4f} of it. Weights of "
            "mean 0 meet the mean square, so that √(2/n) is right, for another reason."
        )
    says = "ReLU halves the variance, so weights need √(2/n)"
    return Verdict("C7", says, verdict_of(variance, second), f"of a variance of 1: {number}", seeds, why)


def _he(relu: xarray.Dataset) -> Verdict:
    he, xavier = (relu.isel(layer=[0, -1]).sel(init=name) for name in list(GAINS)[:2])
    depth = relu.sizes["layer"] - 1
    ends = {"signal": -1, "gradient": 0}
    kept = [_near(he, name, end, 1.0) for name, end in ends.items()]
    halved = [_near(xavier, name, end, 2.0**-depth) for name, end in ends.items()]
    number = f"mean squares over {depth} layers with √2: " + " and ".join(_words(he, *each) for each in ends.items())
    number += (
        "; with 1: " + " and ".join(_words(xavier, *each) for each in ends.items()) + f", ½^{depth} = {0.5**depth:.2e}"
    )
    why = "E φ² and E φ'² of ReLU are both one half, exactly, at any length, so one gain keeps both."
    if not all(kept):
        why = "One of them is not kept."
    says = "Var W = 2/n keeps signal and gradient of ReLU networks, 1/n halves both per layer"
    return Verdict("He et al. 2015", says, verdict_of(all(kept + halved), all(kept)), number, relu.attrs["seeds"], why)


def _near(one: xarray.Dataset, name: str, end: int, expected: float) -> bool:
    return bool(abs(one[name][end] - expected) < 4 * one[f"{name}_error"][end])


def _words(one: xarray.Dataset, name: str, end: int) -> str:
    return f"{name} × {float(one[name][end]):.3g} ± {float(one[f'{name}_error'][end]):.2g}"


def _glorot(linear: xarray.Dataset) -> Verdict:
    depth, n = linear.sizes["layer"] - 1, linear.attrs["ratio"]
    per_pair = 4 * n / (n + 1) ** 2
    equal, other = (linear.isel(layer=[0, -1]).sel(widths=name) for name in ("equal", "alternating"))
    last = per_pair ** (depth // 2)
    same = all(_near(equal, *each, 1.0) for each in (("signal", -1), ("gradient", 0)))
    lost = all(_near(other, *each, last) for each in (("signal", -1), ("gradient", 0)))
    number = f"over {depth} layers of equal widths: {_words(equal, 'signal', -1)} and {_words(equal, 'gradient', 0)}; "
    number += f"of widths n, n/{n:g}, n, …: {_words(other, 'signal', -1)} and {_words(other, 'gradient', 0)}"
    why = f"The price of the compromise: × {per_pair:.2f} per pair of such layers, {last:.2g} in all, for both."
    if not (same and lost):
        why = "The networks do not follow the derivation."
    says = "2/(n_in + n_out) keeps both variances of a linear network of equal widths; a compromise elsewhere"
    return Verdict("Glorot and Bengio 2010", says, verdict_of(same and lost, same), number, linear.attrs["seeds"], why)


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """What one ReLU leaves, then mean squares over depth, of ReLU networks and of linear ones."""
    figure.set_size_inches(13.5, 4.6)
    bars, relu, linear = figure.subplots(1, 3, width_ratios=(0.8, 1, 1))
    heights = [float(found["one"][name].mean()) for name in ("second_moment", "variance")]
    bars.bar(["mean square", "variance"], heights, color=["#009e73", "#d55e00"], width=0.6)
    for place, height in enumerate(heights):
        bars.text(place, height + 0.01, f"{height:.3f}", ha="center", fontsize=11)
    bars.axhline(0.5, color="black", linestyle="--", linewidth=1)
    bars.set(ylim=(0, 0.62), ylabel="after ReLU, for normal inputs of variance 1")
    bars.set_title("ReLU halves the mean square,\nnot the variance")
    for name, colour in zip(GAINS, ("#0072b2", "#56b4e9", "#d55e00"), strict=True):
        one = found["relu"].sel(init=name)
        relu.plot(one["layer"], one["signal"], color=colour, linewidth=2.5, label=f"gain {name}")
        relu.plot(one["layer"], one["gradient"], color=colour, linewidth=1.5, linestyle="--")
    relu.set_title("so He's gain √2 keeps the signal (solid) and\nthe gradient (dashed) of ReLU networks")
    for name, colour in {"equal": "#0072b2", "alternating": "#d55e00"}.items():
        one, label = (
            found["linear"].sel(widths=name),
            {"equal": "equal widths", "alternating": "widths n, n/4, n, n/4, …"},
        )
        linear.plot(one["layer"], one["signal"], color=colour, linewidth=2.5, label=label[name])
        linear.plot(one["layer"], one["gradient"], color=colour, linewidth=1.5, linestyle="--")
    linear.set_title("Xavier's 2/(n_in + n_out) keeps both of linear\nnetworks, unless their widths change")
    for axes in (bars, relu, linear):
        axes.title.set_fontsize(11)
        axes.grid(color="0.92", linewidth=0.6, axis="y" if axes is bars else "both")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (relu, linear):
        axes.set(xlabel="layer", ylabel="mean square, relative to the start", yscale="log")
        axes.legend(fontsize=9, frameon=False)
    relu.set_ylim(top=1e11)
    relu.legend(fontsize=9, frameon=False, loc="upper center")
    figure.tight_layout()


main = main_of("relu_halves_which_moment", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
