"""Is ReLU less stable than other activations, and what does the probe `b.sum().backward()` measure?

Claims of a forum thread on `calculate_gain('tanh')`; 1000 neurons per layer, no biases, gains around √2:

- A6: what works for tanh "doesn't work quite as nicely when you use relu for nonlinearity and gain"
- A13: "relu seems to be inherently less stable than the others, but it works OK with gain ~= sqrt(2)"

The thread takes the gradient of the sum of all outputs. ReLU's outputs have a mean, so the gradient of their sum is
random direction: at infinite width its mean square k layers before the output is 1 + (2k − 1)/π times that of a
random combination of the outputs.

    python -m experiments.relu_sqrt_two

prints the verdicts and writes relu_sqrt_two.nc and relu_sqrt_two.png, in seconds. √2 keeps the mean squares of signal
and gradient exactly; but single networks wander off, as √(5/4 × layers/width), and the probe adds a growth of its own.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import (
    BLUE,
    GREEN,
    ORANGE,
    Estimate,
    Found,
    Verdict,
    estimate,
    main_of,
    plain_panel,
    verdict_of,
)

ROOT_TWO = 2**0.5


@dataclasses.dataclass(frozen=True)
class ReluConfig:
    """Sizes of the networks; the verdicts are about the defaults."""

    gains: tuple[float, ...] = (1.3, ROOT_TWO, 1.5)
    """Gains of ReLU, the middle one √2; tanh has 5/3."""
    width: int = 1000
    """Neurons per layer."""
    depth: int = 100
    """Layers."""
    seeds: int = 1000
    """Networks per gain."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = ReluConfig()
SMOKE = ReluConfig(width=50, depth=20, seeds=8)


def run(config: ReluConfig) -> Found:
    """Signal and gradient of ReLU with either probe, and the signal of tanh at 5/3."""
    sizes = {"width": config.width, "depth": config.depth, "seeds": config.seeds, "inputs": 1}
    of = lambda phi, gains, names, **how: (
        jg.sweep(jg.SweepConfig(phi, gains, statistics=names, **sizes, **how))
        .sel(activation=phi, drop=True)[list(names)]
        .drop_vars("gain_name")
        .assign_attrs(width=config.width)
    )
    both = ("second_moment", "log_grad_rms")
    return {
        "random": of("relu", config.gains, both),
        "sum": of("relu", (ROOT_TWO,), ("log_grad_rms",), cotangent="sum"),
        "tanh": of("tanh", (5 / 3,), ("second_moment",)),
    }


def judge(found: Found) -> list[Verdict]:
    """Read the verdicts off the datasets."""
    random, probe = found["random"], found["sum"]
    seeds, last = random.sizes["seed"], int(random["layer"][-1])
    early = min(10, last // 2)
    layers, width = last - early, int(random.attrs["width"])
    logs = {gain: np.log(random["second_moment"].sel(gain=gain).astype(float)) / 2 for gain in random["gain"].values}
    change = lambda log: log.isel(layer=-1) - log.isel(layer=early)
    exact = min(logs, key=lambda gain: abs(gain - ROOT_TWO))
    relu = _spread(change(logs[exact]))
    tanh = _spread(change(np.log(found["tanh"]["second_moment"][0].astype(float)) / 2))
    less = relu.mean - 3 * relu.error > tanh.mean + 3 * tanh.error
    moment = estimate(random["second_moment"].sel(gain=exact).isel(layer=-1))
    law = math.sqrt(5 * layers / (4 * width))
    nicely = Verdict(
        "A6",
        "relu with its gain does not work quite as nicely as tanh with 5/3",
        verdict_of(less),
        f"what the rms of the signal does from layer {early} to {last}, standard deviation of its logarithm over "
        f"networks: relu {relu} (theory {law:.3f}), tanh {tanh}; mean of h² of relu in layer {last}: {moment}",
        seeds,
        "With √2 relu keeps the mean of h² exactly, but nothing brings a network back that has strayed from it, and "
        "each strays as √(5/4 × layers/width). A tanh network comes back to its fixed point"
        if less
        else "Single networks of relu stray no further than those of tanh",
    )
    rates = {gain: estimate(change(log) / layers).exp() for gain, log in logs.items() if gain != exact}
    drift = all(not value.near(1, 0.02) for value in rates.values())
    gradient = {"random": _growth(random.sel(gain=exact)), "sum": _growth(probe.isel(gain=0))}
    theory = 1 + (2 * last - 1) / math.pi
    kept, distorts = gradient["random"].near(1, 0.1), gradient["sum"].above(2)
    stable = moment.near(1, 0.1) and kept
    works = Verdict(
        "A13",
        "relu is inherently less stable but works with √2",
        verdict_of(drift and stable and not distorts, imprecise=drift and stable),
        ", ".join(f"gain {gain:.3g}: signal × {value} per layer" for gain, value in rates.items())
        + f"; at √2, over {last} layers, mean of h² × {moment} and of the gradient² × {gradient['random']} for random "
        f"signs, × {gradient['sum']} for their sum (theory at infinite width {theory:.1f})",
        seeds,
        ("Only √2 keeps signal and gradient, and on average it does so exactly" if stable else "√2 does not keep both")
        + (", while tanh has a fixed point at any gain above 1" if drift else "")
        + (
            ". But b.sum().backward() reports a growth of its own: the positive outputs of relu add up "
            "along one direction, which each layer lengthens, by 1 + (2k − 1)/π after k of them"
            if distorts
            else ". The sum of the outputs measures the same gradient"
        ),
    )
    return [nicely, works]


def _spread(values: xarray.DataArray) -> Estimate:
    """Standard deviation over seeds, with the standard error that it has of normal numbers."""
    spread = float(values.std("seed", ddof=1))
    return Estimate(spread, spread / math.sqrt(2 * (values.sizes["seed"] - 1)))


def _growth(runs: xarray.Dataset) -> Estimate:
    """Mean squared gradient at the input over that at the output."""
    log = runs["log_grad_rms"].astype(float)
    return estimate(np.exp(2 * (log.isel(layer=0) - log.isel(layer=-1))))  # type: ignore


def draw(figure: Figure, found: Found) -> None:
    """Single networks of both activations, gains beside √2, and what two probes make of one gradient."""
    random, tanh = found["random"], found["tanh"]["second_moment"][0]
    layers, last = random["layer"], int(random["layer"][-1])
    figure.set_size_inches(15, 4.8)
    figure.set_layout_engine("constrained")
    single, gains, probes = figure.subplots(1, 3)
    relu = random["second_moment"].sel(gain=ROOT_TWO, method="nearest")
    for runs, colour, name in ((relu, BLUE, "relu, √2"), (tanh, ORANGE, "tanh, 5/3")):
        single.plot(layers, np.sqrt(runs[:30].transpose("layer", "seed")), color=colour, lw=0.5, alpha=0.5)
        single.plot([], [], color=colour, lw=2, label=name)
    plain_panel(
        single,
        title="relu networks wander off, tanh networks come back",
        xlabel="layer",
        ylabel="rms of the activations (30 networks each)",
        ylim=(0, None),
    )
    for gain, colour in zip(random["gain"].values, (ORANGE, BLUE, GREEN), strict=True):
        mean = np.exp(np.log(random["second_moment"].sel(gain=gain).astype(float)).mean("seed") / 2)  # type: ignore
        gains.semilogy(layers, mean, color=colour, lw=2, label="√2" if abs(gain - ROOT_TWO) < 1e-3 else f"{gain:g}")
    title = "relu: any other gain than √2 vanishes or explodes"
    plain_panel(gains, title=title, xlabel="layer", ylabel="rms of the activations (geometric mean)")
    back = last - layers
    for name, colour, label in (("random", BLUE, "random combination"), ("sum", ORANGE, "sum of the outputs")):
        log = found[name].sel(gain=ROOT_TWO, method="nearest")["log_grad_rms"].astype(float)
        probes.plot(back, np.exp(2 * (log - log[:, -1])).mean("seed"), color=colour, lw=2, label=label)  # type: ignore
    k = back.values[:-1]
    probes.plot(k, 1 + (2 * k - 1) / math.pi, color="k", lw=1, ls="--", label="1 + (2k − 1)/π")
    title = "relu, √2: the probe makes its own growth"
    plain_panel(probes, title=title, xlabel="k, layers back from the output", ylabel="mean gradient² / at the output")
    single.legend(loc="lower left")
    gains.legend(title="gain")
    probes.legend(title="gradient of")
    about = f"width {random.attrs['width']}, {random.sizes['seed']} networks per gain, no biases"
    figure.suptitle(f"relu is kept by √2 on average, and by nothing else ({about})", fontsize=12)


main = main_of("relu_sqrt_two", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
