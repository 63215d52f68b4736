"""By what law do signal and gradient of softsign networks vanish at gain 1, and what do higher gains do?

Claims of a forum thread on `calculate_gain('tanh')`; 1000 neurons per layer, no biases, softsign x/(1 + |x|):

- A14: "softsign with gain 1 has slowly vanishing output and gradients"
- A15: gains above 1 reduce the vanishing, but "higher values eventually cause the gradients to explode. The higher the
  gains the faster the gradients explode as you add layers"

Near 0 softsign is x − x|x|, so that at gain 1 the rms s of the signal goes to s − √(8/π) s² in a layer, and its
gradient to √(1 − 4 √(2/π) s) of itself: s = √(π/8)/l after l layers, and the gradient over L layers falls as 1/L.

    python -m experiments.softsign_law

prints the verdicts and writes softsign_law.nc and softsign_law.png, in seconds. Both fall as the first power of
the depth, faster than those of tanh (the root); every gain above 1 explodes.
"""

import dataclasses
import itertools
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
    YELLOW,
    Estimate,
    Found,
    Verdict,
    estimate,
    main_of,
    plain_panel,
    verdict_of,
)

COLOURS = (BLUE, GREEN, YELLOW, ORANGE, PURPLE)
LIMIT = math.sqrt(math.pi / 8)


@dataclasses.dataclass(frozen=True)
class SoftsignConfig:
    """Sizes of the networks; the verdicts are about the defaults."""

    gains: tuple[float, ...] = (1.0, 1.2, 1.5, 2.0, 3.0)
    """Gains, the first one 1."""
    width: int = 1000
    """Neurons per layer."""
    depth: int = 200
    """Layers."""
    seeds: int = 64
    """Networks per gain."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = SoftsignConfig()
SMOKE = SoftsignConfig(width=50, depth=30, seeds=4)


def run(config: SoftsignConfig) -> Found:
    """Sampled networks, and what theory says of gain 1 over the layers and of other gains at their fixed points."""
    statistics = ("std", "log_grad_rms", "log_jacobian_rms")
    sizes: dict[str, Any] = {"width": config.width, "depth": config.depth, "seeds": config.seeds, "inputs": 1}
    sampled = jg.sweep(jg.SweepConfig("softsign", config.gains, statistics=statistics, **sizes))
    theory = {phi: jg.mean_field(phi, jg.Init(1.0), depth=config.depth) for phi in ("softsign", "tanh")}
    gains = np.array([1.001, 1.01, 1.05, *config.gains[1:]])
    rates = [math.sqrt(jg.fixed_point("softsign", jg.Init(gain)).chi_perp) for gain in gains.tolist()]
    columns = {f"{name}_{phi}": of[name] for phi, of in theory.items() for name in ("std", "log_jacobian_rms")}
    return {
        "sampled": sampled.sel(activation="softsign", drop=True)[list(statistics)].drop_vars("gain_name"),
        "gain_one": xarray.Dataset(columns),
        "rates": xarray.Dataset({"factor": ("gain", rates)}, {"gain": gains}),
    }


def judge(found: Found) -> list[Verdict]:
    """Read the verdicts off the datasets."""
    sampled, theory, rates = found["sampled"], found["gain_one"], found["rates"]
    seeds, last = sampled.sizes["seed"], int(sampled["layer"][-1])
    one = sampled.sel(gain=1.0)
    std, jacobian = (_power(values) for values in (np.log(one["std"]), one["log_jacobian_rms"]))  # type: ignore
    expected = [_power(np.log(theory["std_softsign"])), _power(theory["log_jacobian_rms_softsign"])]  # type: ignore
    tanh = [_power(np.log(theory["std_tanh"])), _power(theory["log_jacobian_rms_tanh"])]  # type: ignore
    end, gradient = estimate(std), estimate(jacobian)
    scaled = estimate(one["std"].isel(layer=-1) * last)
    falls = end.below(-0.1) and gradient.below(-0.1)
    power = end.near(-1, 0.15) and gradient.near(-1, 0.15)
    factor = {
        gain: estimate(jg.growth_per_layer(sampled["log_grad_rms"].sel(gain=gain))).exp() for gain in _above(sampled)
    }
    wide = {gain: float(rates["factor"].sel(gain=gain, method="nearest")) for gain in factor}
    listed = list(factor.values())
    faster = all(_minus(b, a).above(0) for a, b in itertools.pairwise(listed))
    explode, less = all(value.above(1) for value in listed), _less(sampled)
    return [
        Verdict(
            "A14",
            "softsign, gain 1: slowly vanishing output and gradients",
            verdict_of(falls and power, imprecise=falls),
            f"powers of the layer, from {last // 10} to {last}: std {end}, gradient {gradient} (theory at infinite "
            f"width {expected[0]:.3f} and {expected[1]:.3f}); std × layers at {last} = {scaled}, in the limit "
            f"√(π/8) = {LIMIT:.4f}",
            seeds,
            (
                "Both fall as 1/layers and not exponentially, the std to √(π/8)/layers: softsign is x − x|x| near 0. "
                f"Those of tanh, x − x³/3, fall as the root of that (powers {tanh[0]:.2f} and {tanh[1]:.2f})"
                if power
                else "They fall, but not as 1/layers"
            )
            if falls
            else "They do not vanish",
        ),
        Verdict(
            "A15",
            "softsign: gains above 1 reduce vanishing, and the higher the faster gradients explode",
            verdict_of(faster and explode and less, imprecise=faster and explode),
            "gradient per layer going back: "
            + ", ".join(f"× {value} at {gain:g} ({wide[gain]:.4f})" for gain, value in factor.items())
            + "; in brackets infinite width",
            seeds,
            ("The growth rises with the gain, " if faster else "The growth does not rise with every step of the gain, ")
            + f"and by theory there is one at any gain above 1: × {float(rates['factor'][0]):.7f} at "
            f"{float(rates['gain'][0]):g}, × {float(rates['factor'][1]):.5f} at {float(rates['gain'][1]):g}. "
            "Only a gain of 1 exactly leaves a power law",
        ),
    ]


def _above(sampled: xarray.Dataset) -> list[float]:
    return [gain for gain in sampled["gain"].values.tolist() if gain > 1]


def _less(sampled: xarray.Dataset) -> bool:
    """Whether more is left of the signal at the end with every gain above 1 than with 1."""
    end = sampled["std"].isel(layer=-1).mean("seed")
    return bool((end.sel(gain=_above(sampled)) > 2 * end.sel(gain=1.0)).all())


def _power(log: xarray.DataArray) -> xarray.DataArray:
    """Slope over the logarithm of the layer, of the last nine tenths."""
    last = int(log["layer"][-1])
    y = log.sel(layer=slice(last // 10, last)).astype(float)
    x = np.log(y["layer"]) - np.log(y["layer"]).mean()
    return (x * y).sum("layer") / (x**2).sum()


def _minus(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.mean - b.mean, math.hypot(a.error, b.error))


def draw(figure: Figure, found: Found) -> None:
    """Powers of the depth at gain 1, and the gradient at other gains."""
    sampled, theory, rates = found["sampled"], found["gain_one"], found["rates"]
    layers = sampled["layer"].values[1:]
    figure.set_size_inches(15, 4.8)
    figure.set_layout_engine("constrained")
    signal, gradient, gains = figure.subplots(1, 3)
    one = sampled.sel(gain=1.0).isel(layer=slice(1, None))
    for axes, log, name, law in (
        (signal, np.log(one["std"]), "std", LIMIT / layers),
        (gradient, one["log_jacobian_rms"], "log_jacobian_rms", None),
    ):
        axes.loglog(layers, np.exp(log.mean("seed")), color=BLUE, lw=3.5, alpha=0.6, label="softsign, sampled")  # type: ignore
        for phi, colour in (("softsign", "k"), ("tanh", ORANGE)):
            curve = theory[f"{name}_{phi}"][1:]
            curve = curve if name == "std" else np.exp(curve)
            axes.loglog(layers, curve, color=colour, lw=1.4, ls="--", label=f"{phi}, infinite width")
        if law is not None:
            axes.loglog(layers, law, color=GREEN, lw=1.4, ls=":", label="√(π/8) / layers")
        axes.legend()
    plain_panel(signal, title="Gain 1: the signal falls as 1/layers", xlabel="layer", ylabel="std of the activations")
    title = "Gain 1: so does the gradient"
    plain_panel(gradient, title=title, xlabel="depth (layers)", ylabel="rms gradient at the input / at the output")
    for gain, colour in zip(sampled["gain"].values, COLOURS, strict=False):
        log = sampled["log_jacobian_rms"].sel(gain=gain).mean("seed").astype(float)
        rate = "" if gain == 1 else f": × {float(rates['factor'].sel(gain=gain, method='nearest')):.3f} per layer"
        gains.semilogy(log["layer"], np.exp(log), color=colour, lw=2, label=f"{gain:g}{rate}")
    gains.legend(title="gain")
    title = "Gains above 1 explode, the higher the faster"
    plain_panel(gains, title=title, xlabel="depth (layers)", ylabel="rms gradient at the input / at the output")
    figure.suptitle(f"softsign networks without biases, {sampled.sizes['seed']} networks per gain", fontsize=12)


main = main_of("softsign_law", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
