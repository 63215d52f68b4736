"""Where does the gain 5/3 of tanh come from, and what does it do to signal and gradient?

Claims of a forum thread on `calculate_gain('tanh')`. Its networks have 1000 neurons per layer, no biases, and Xavier's
normal weights, which in square layers are N(0, gain²/width):

- A1: `calculate_gain('tanh')` is 5/3: why?
- A3, A4: standard deviation after 10 layers "0.65x"; "the same thing when you take 20 or 100 layers"
- A5: "the same (output, not input) if you multiply a by 0.5 before feeding it in"
- A7: "it will not work as well if you use 1 as gain for tanh"
- A10: "tanh seems stable with pretty much any gain > 1"
- A11: at 5/3 "the gradients start to explode after around 10 layers"
- A12: at 1.1 "output std stable around 0.30", and the gradients "do grow slowly"

    python -m experiments.tanh_five_thirds

prints the verdicts and writes tanh_five_thirds.nc and tanh_five_thirds.png, in seconds. No criterion gives 5/3; the
signal is as the thread says; the gradient grows by 10% per layer, in every layer.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
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
    Found,
    Verdict,
    estimate,
    main_of,
    plain_panel,
    root,
    verdict_of,
)

FIVE_THIRDS = 5 / 3
COLOURS = {1.0: BLUE, 1.01: SKY, 1.1: GREEN, FIVE_THIRDS: ORANGE, 3.0: PURPLE}


@dataclasses.dataclass(frozen=True)
class FiveThirdsConfig:
    """Sizes of the networks; the verdicts are about the defaults."""

    width: int = 1000
    """Neurons per layer."""
    depth: int = 100
    """Layers."""
    seeds: int = 64
    """Networks per gain."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = FiveThirdsConfig()
SMOKE = FiveThirdsConfig(width=50, depth=30, seeds=4)


def run(config: FiveThirdsConfig) -> Found:
    """Candidates for 5/3, fixed points over the gain, and sampled networks with the input and with half of it."""
    sizes: dict[str, Any] = {"width": config.width, "depth": config.depth, "seeds": config.seeds, "inputs": 1}
    statistics = ("std", "log_grad_rms", "log_jacobian_rms")
    settings = jg.SweepConfig("tanh", tuple(COLOURS), statistics=statistics, **sizes)
    half = dataclasses.replace(settings, gains=(FIVE_THIRDS,), statistics=("std",), input_scale=0.5)
    sweeps = {
        name: jg.sweep(one).sel(activation="tanh", drop=True)[list(one.statistics)].drop_vars("gain_name")
        for name, one in (("whole", settings), ("half", half))
    }
    gains = np.array([1.001, 1.003, 1.01, 1.03, 1.1, 1.3, FIVE_THIRDS, 2, 3, 5, 10])
    points = [jg.fixed_point("tanh", jg.Init(gain)) for gain in gains.tolist()]
    theory = {
        "std": np.sqrt([point.q for point in points]) / gains,
        "chi_par": [point.chi_par for point in points],
        "chi_perp": [point.chi_perp for point in points],
    }
    names, values = zip(*candidates().items(), strict=True)
    return sweeps | {
        "candidates": xarray.Dataset({"gain": ("criterion", np.array(values))}, {"criterion": list(names)}),
        "theory": xarray.Dataset({name: ("gain", values) for name, values in theory.items()}, {"gain": gains}),
    }


def candidates() -> dict[str, float]:
    """What might give 5/3: the kinds of gain that jaxgain knows, and other quantities, z being standard normal."""
    gains = {kind: jg.gain("tanh", kind) for kind in ("forward", "backward", "balanced", "critical", "kumar")}
    slope = lambda gain: jg.expectation(_slope, gain**2).value
    size = lambda gain: jg.expectation(_size, gain**2).value
    normal = math.sqrt(2 / math.pi)  # E|z|
    return {
        "forward: 1/√E φ(z)² = 1/std φ(z)": gains["forward"],
        "backward: 1/√E φ'(z)²": gains["backward"],
        "mean of forward and backward": gains["balanced"],
        "critical, Kumar 2017: 1/φ'(0)": gains["kumar"] if gains["kumar"] == gains["critical"] else math.nan,
        "1/E φ'(z)": 1 / slope(1.0),
        "E|z| / E|φ(z)|": normal / size(1.0),
        "g with E|φ(gz)| = E|z|": root(lambda gain: size(gain) - normal, 1.0, 10.0),
        "g with E gz φ(gz) = 1": root(lambda gain: gain**2 * slope(gain) - 1, 1.0, 10.0),
        "1/std φ(u), u uniform, variance 1": (1 - math.tanh(3**0.5) / 3**0.5) ** -0.5,
        "1/std φ(u), u uniform in (−1, 1)": (1 - math.tanh(1)) ** -0.5,
        "1/x where |φ''(x)| is largest": 1 / math.atanh(3**-0.5),
        "the 1.7159 of 1.7159 tanh(2x/3)": 1 / math.tanh(2 / 3),
    }


def _slope(z: jax.Array) -> jax.Array:
    return 1 - jnp.tanh(z) ** 2


def _size(z: jax.Array) -> jax.Array:
    return jnp.abs(jnp.tanh(z))


def judge(found: Found) -> list[Verdict]:
    """Read the verdicts off the datasets."""
    return [_origin(found), *_signal(found), *_gradient(found)]


def _origin(found: Found) -> Verdict:
    rows, at = found["candidates"], found["theory"].sel(gain=FIVE_THIRDS, method="nearest")
    names, values = rows["criterion"].values, rows["gain"].values
    best = int(np.argmin(np.abs(values - FIVE_THIRDS)))
    gives = bool(abs(values[best] - FIVE_THIRDS) < 1e-3)
    lives = bool(at["std"] > 0.1 and at["chi_par"] < 1)
    told = (
        f"It is {names[best]}"
        if gives
        else f"No criterion tried gives 5/3, it is a convention: a signal of length 1 is kept by {values[0]:.3f}, the "
        f"gradient there by {values[1]:.3f}, both over many layers by 1 alone"
    )
    told += ". As every gain above 1 it lets the signal live" if lives else ". It lets the signal die"
    number = (
        f"nearest of {len(values)}: {names[best]} = {values[best]:.4f}, {values[best] / FIVE_THIRDS - 1:+.1%}, exact"
    )
    return Verdict("A1", "the gain of tanh is 5/3", verdict_of(gives and lives, gives or lives), number, 0, told)


def _signal(found: Found) -> list[Verdict]:
    whole, theory = found["whole"], found["theory"]
    seeds, last = whole.sizes["seed"], int(whole["layer"][-1])
    at = lambda layer, name="whole": estimate(_of(found[name], "std", FIVE_THIRDS).sel(layer=min(layer, last)))
    ten, twenty, end, half = at(10), at(20), at(100), at(10, "half")
    fixed = theory.sel(gain=FIVE_THIRDS, method="nearest")
    limit, shrink = float(fixed["std"]), float(fixed["chi_par"])
    one = estimate(_of(whole, "std", 1.0).sel(layer=last))
    change = {gain: estimate(_change(whole, gain)) for gain in (1.0, FIVE_THIRDS)}
    signal, gradient = one.mean < end.mean / 2, abs(change[1.0].mean) > abs(change[FIVE_THIRDS].mean)
    times = {gain: f"{value.exp().mean:.3g} (e to the {value})" for gain, value in change.items()}
    verdict = lambda label, says, holds, number, why: Verdict(label, says, verdict_of(holds), number, seeds, why)
    return [
        verdict(
            "A3",
            "tanh, gain 5/3, width 1000, 10 layers: std about 0.65",
            ten.near(0.65, 0.005),
            f"std {ten}; at infinite width {limit:.5f}",
            f"The fixed point of the length, where std tanh = {limit:.4f}, attracts: what is left of the start shrinks "
            f"to {shrink:.2f} of itself per layer",
        ),
        verdict(
            "A4",
            "the same after 20 or 100 layers",
            twenty.near(0.65, 0.005) and end.near(0.65, 0.005),
            f"std {twenty} at layer {min(20, last)}, {end} at {last}",
            "At a fixed point depth changes nothing about the length of the signal; about the gradient it does (A11)",
        ),
        verdict(
            "A5",
            "the same when the input is halved",
            half.near(ten.mean, 0.002),
            f"std {half} after 10 layers, instead of {ten}",
            "The fixed point attracts every length above 0, so the scale of the input is forgotten within a few layers",
        ),
        Verdict(
            "A7",
            "gain 1 works less well for tanh",
            verdict_of(signal and gradient, imprecise=signal != gradient),
            f"{last} layers at gain 1: std {one}, gradient times {times[1.0]}; at 5/3: std {end}, gradient times "
            f"{times[FIVE_THIRDS]}",
            seeds,
            f"At gain 1 the signal fades, if slowly, as 1/√(2 layers) = {(2 * last) ** -0.5:.3f}"
            + (
                ", and the gradient changes more, too"
                if gradient
                else "; but its gradient changes far less than at 5/3. Judged by the signal alone 5/3 is better, "
                "judged by what training needs it is 1, the critical gain"
            ),
        ),
        _stable(found),
    ]


def _stable(found: Found) -> Verdict:
    whole, theory = found["whole"], found["theory"]
    last = int(whole["layer"][-1])
    drift = {}
    for gain in whole["gain"].values[whole["gain"].values > 1].tolist():
        runs = _of(whole, "std", gain)
        drift[gain] = estimate(runs.sel(layer=last) / runs.sel(layer=last // 2) - 1)
    exists = bool((theory["chi_par"] < 1).all() and (theory["std"] > 0).all())
    settled = all(value.near(0, 0.02) for value in drift.values())
    kept = bool((theory["chi_perp"] <= 1).all())
    low, high = (theory.isel(gain=end) for end in (0, -1))
    why = "Every gain above 1" if exists else "Not every gain above 1"
    why += (
        f" has a stable std above 0: {float(low['std']):.3f} at {float(low['gain']):g}, {float(high['std']):.2f} at "
        f"{float(high['gain']):g}. Near 1 it is far away, a factor e nearer only every "
        f"{-1 / math.log(float(low['chi_par'])):.0f} layers at {float(low['gain']):g}"
    )
    why += "" if kept else ". And the signal alone is stable: at every gain above 1 the gradient grows"
    return Verdict(
        "A10",
        "tanh is stable with pretty much any gain > 1",
        verdict_of(exists and settled and kept, imprecise=exists),
        f"std from layer {last // 2} to {last}: "
        + ", ".join(f"{value.mean:+.1%} ± {value.error:.1%} at {gain:.3g}" for gain, value in drift.items()),
        whole.sizes["seed"],
        why,
    )


def _gradient(found: Found) -> list[Verdict]:
    whole = found["whole"]
    seeds, last = whole.sizes["seed"], int(whole["layer"][-1])
    std = {gain: estimate(_of(whole, "std", gain).sel(layer=last)) for gain in (1.1, FIVE_THIRDS)}
    factor = {gain: estimate(jg.growth_per_layer(_of(whole, "log_grad_rms", gain))).exp() for gain in std}
    rows = found["theory"]["chi_perp"]
    wide = {gain: math.sqrt(rows.sel(gain=gain, method="nearest")) for gain in std}
    runs = _of(whole, "log_grad_rms", FIVE_THIRDS)
    first = estimate((runs.sel(layer=last - 10) - runs.sel(layer=last)) / 10).exp()
    jacobian = _of(whole, "log_jacobian_rms", FIVE_THIRDS).mean("seed").values
    passes = int(np.flatnonzero(jacobian < 0)[-1]) + 1 if (jacobian < 0).any() else 1
    fast, slow = factor[FIVE_THIRDS], factor[1.1]
    explodes, onset = std[FIVE_THIRDS].near(0.65, 0.005) and fast.above(1.05), first.below(1 + (fast.mean - 1) / 2)
    return [
        Verdict(
            "A11",
            "gain 5/3: gradients start to explode after around 10 layers",
            verdict_of(explodes and onset, imprecise=explodes),
            f"std {std[FIVE_THIRDS]}; gradient × {fast} per layer going back (infinite width {wide[FIVE_THIRDS]:.4f}), "
            f"× {first} in the last 10 layers",
            seeds,
            ("It starts there. " if onset else "Nothing starts there: it grows in every layer, ")
            + f"tenfold every {math.log(10) / math.log(fast.mean):.0f} layers. Seen at the input, it exceeds that at "
            f"the output only from a depth of {passes} on, as the first layers, where the signal is still longer than "
            "its fixed point, shrink it",
        ),
        Verdict(
            "A12",
            "gain 1.1: std about 0.30, gradients grow slowly",
            verdict_of(std[1.1].near(0.30, 0.01) and slow.above(1) and slow.below(1.02)),
            f"std {std[1.1]}; gradient × {slow} per layer going back (infinite width {wide[1.1]:.4f})",
            seeds,
            f"Slowly: e-fold in {1 / math.log(slow.mean):.0f} layers, against {1 / math.log(fast.mean):.0f} at 5/3",
        ),
    ]


def _of(sweep: xarray.Dataset, name: str, gain: float) -> xarray.DataArray:
    return sweep[name].sel(gain=gain, method="nearest")


def _change(whole: xarray.Dataset, gain: float) -> xarray.DataArray:
    """Logarithm of the gradient's rms at the input over that at the output."""
    runs = _of(whole, "log_grad_rms", gain)
    return runs.isel(layer=0) - runs.isel(layer=-1)


def draw(figure: Figure, found: Found) -> None:
    """The signal and the gradient over depth, and the candidates for 5/3."""
    whole, rows = found["whole"], found["candidates"].sortby("gain")
    figure.set_size_inches(15, 5)
    figure.set_layout_engine("constrained")
    signal, gradient, origin = figure.subplots(1, 3)
    for gain, colour in COLOURS.items():
        one, label = whole.sel(gain=gain, method="nearest").mean("seed"), "5/3" if gain == FIVE_THIRDS else f"{gain:g}"
        signal.plot(one["layer"], one["std"], color=colour, lw=2, label=label)
        gradient.semilogy(one["layer"], np.exp(one["log_jacobian_rms"]), color=colour, lw=2, label=label)
    half = _of(found["half"], "std", FIVE_THIRDS).mean("seed")
    signal.plot(half["layer"], half, color="k", lw=1.2, ls=":", label="5/3, input halved")
    plain_panel(
        signal,
        title="Every gain above 1 keeps a signal alive …",
        xlabel="layer",
        ylabel="standard deviation of the activations",
        ylim=(0, 1.05),
    )
    plain_panel(
        gradient,
        title="… and the larger it is, the faster gradients explode",
        xlabel="depth of the network (layers)",
        ylabel="rms gradient at the input / at the output",
    )
    for axes in (signal, gradient):
        axes.legend(
            title="gain", fontsize=8.5, title_fontsize=8.5, ncols=2, loc="upper left" if axes is gradient else 0
        )
    gains, place = rows["gain"].values, np.arange(rows.sizes["criterion"])
    origin.axvline(FIVE_THIRDS, color=ORANGE, lw=2)
    origin.annotate("5/3", (FIVE_THIRDS, -0.4), (5, 0), textcoords="offset points", color=ORANGE, fontsize=12)
    origin.plot(gains, place, "o", color=BLUE)
    for y, gain in enumerate(gains):
        left = 1.3 < gain < FIVE_THIRDS
        words = {"ha": "right" if left else "left", "va": "center", "fontsize": 8.5, "textcoords": "offset points"}
        origin.annotate(f"{gain:.3f}", (gain, y), (-7 if left else 7, 0), **words)
    origin.set_yticks(place, rows["criterion"].values)
    limits = (float(gains.min()) - 0.2, float(gains.max()) + 0.2)
    plain_panel(origin, title="No criterion gives 5/3 (φ = tanh)", xlabel="gain", xlim=limits)
    figure.suptitle(f"tanh networks without biases, means of {whole.sizes['seed']} networks per gain", fontsize=12)


main = main_of("tanh_five_thirds", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
