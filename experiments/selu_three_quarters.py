"""Which gains does SELU work with, what is special about 3/4, and at what price?

Claims of a forum thread on `calculate_gain('tanh')`, of which 3/4 went into PyTorch; 1000 neurons per layer, no biases:

- A16, A17, A18: "selu only works with gain 1 and gives output std ~= 1.00, but the grad slowly explodes after 10-20
  layers"
- A19: "in my experiments the gradient doesn't grow that much over 32 layers"
- A20, A21: "Selu seems to stabilize well with a gain of 0.75 … but I'm not sure why 0.75 is magic here"

    python -m experiments.selu_three_quarters

prints the verdicts and writes selu_three_quarters.nc and selu_three_quarters.png, in seconds. Every gain from 0.69 to
1.35 has a stable signal; 3/4 is near the lower end, the critical gain, and pays with a signal of a fifth of the size.
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
    PURPLE,
    SKY,
    Found,
    Verdict,
    estimate,
    main_of,
    plain_panel,
    verdict_of,
)

COLOURS = {0.6: SKY, 0.75: GREEN, 1.0: BLUE, 1.2: ORANGE, 1.4: PURPLE}


@dataclasses.dataclass(frozen=True)
class SeluConfig:
    """Sizes of the networks; the verdicts are about the defaults."""

    width: int = 1000
    """Neurons per layer."""
    depth: int = 100
    """Layers."""
    seeds: int = 64
    """Networks per gain."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = SeluConfig()
SMOKE = SeluConfig(width=50, depth=40, seeds=4)


def run(config: SeluConfig) -> Found:
    """Sampled networks, and fixed points over the gain."""
    statistics = ("std", "mean", "second_moment", "correlation", "log_grad_rms")
    sizes = {"width": config.width, "depth": config.depth, "seeds": config.seeds, "statistics": statistics}
    sampled = jg.sweep(jg.SweepConfig("selu", tuple(COLOURS), **sizes)).sel(activation="selu", drop=True)
    critical = jg.gain("selu", "critical")
    # Above, positive z, whose slope is λ, alone let the length grow: σ_w² λ²/2 > 1.
    steepest = float(jg.activation("selu")(1.0))
    gains = np.array([*np.linspace(critical + 0.005, 1.3, 40), 0.75, 1.0])
    points = [jg.fixed_point("selu", jg.Init(gain)) for gain in np.sort(gains).tolist()]
    theory = {
        "second_moment": [point.q / gain**2 for point, gain in zip(points, np.sort(gains), strict=True)],
        "chi_perp": [point.chi_perp for point in points],
        "chi_par": [point.chi_par for point in points],
        "correlation": [1 - point.one_minus_c for point in points],
    }
    table = xarray.Dataset({name: ("gain", values) for name, values in theory.items()}, {"gain": np.sort(gains)})
    ends = {"critical": critical, "highest": math.sqrt(2) / steepest}
    return {"sampled": sampled[list(statistics)].drop_vars("gain_name"), "theory": table.assign_attrs(ends)}


def judge(found: Found) -> list[Verdict]:
    """Read the verdicts off the datasets."""
    sampled, theory = found["sampled"], found["theory"]
    seeds, last = sampled.sizes["seed"], int(sampled["layer"][-1])
    end = lambda name, gain: estimate(sampled[name].sel(gain=gain).isel(layer=-1))
    rms = sampled["second_moment"] ** 0.5
    drift = {
        gain: estimate(np.log(rms.sel(gain=gain)[:, -1] / rms.sel(gain=gain).sel(layer=last // 2)) / (last - last // 2))  # type: ignore
        for gain in COLOURS
    }
    live = [gain for gain, value in drift.items() if value.near(0, 0.003)]
    low, high = theory.attrs["critical"], theory.attrs["highest"]
    ranges = ", ".join(f"× {value.exp()} at {gain:g}" for gain, value in drift.items())
    log = sampled["log_grad_rms"].astype(float)
    back = lambda gain, k: log.sel(gain=gain).isel(layer=-1 - min(k, last)) - log.sel(gain=gain).isel(layer=-1)
    # At 0.75 the first layers are on their way to the fixed point still.
    half = last - last // 2
    growth = jg.growth_per_layer(log.sel(gain=1.0))
    factor = {1.0: estimate(growth).exp(), 0.75: estimate(back(0.75, half) / half).exp()}
    first, over32 = estimate(back(1.0, 10) / 10).exp(), estimate(back(1.0, 32)).exp()
    explodes, onset = factor[1.0].above(1.005), first.below(1 + (factor[1.0].mean - 1) / 2)
    at = {gain: theory.sel(gain=gain, method="nearest") for gain in (0.75, 1.0)}
    wide = {gain: math.sqrt(float(row["chi_perp"])) for gain, row in at.items()}
    whole = {gain: estimate(back(gain, last)).exp() for gain in at}
    tame = 0.75 in live and factor[0.75].near(1, 0.01)
    verdict = lambda label, says, word, number, why: Verdict(label, says, word, number, seeds, why)
    near = abs(0.75 / low - 1)
    return [
        verdict(
            "A16",
            "selu only works with gain 1",
            verdict_of(live == [1.0]),
            f"the signal's rms per layer, from layer {last // 2} to {last}: {ranges}",
            f"Every gain between {low:.4f} and {high:.4f} has a stable length of its own; below, the signal vanishes, "
            "above, it explodes. 1 is the one where that length is 1"
            if live != [1.0]
            else "No other gain keeps the signal",
        ),
        verdict(
            "A17",
            "selu, gain 1: output std about 1.00",
            verdict_of(end("std", 1.0).near(1, 0.01)),
            f"std {end('std', 1.0)}, mean {end('mean', 1.0)} in layer {last}",
            "Its two constants are chosen so that mean 0 and variance 1 are a fixed point of a layer of gain 1, and it "
            f"attracts: what is left of a deviation in length shrinks to {float(at[1.0]['chi_par']):.2f} per layer",
        ),
        verdict(
            "A18",
            "… but the gradient slowly explodes after 10 to 20 layers",
            verdict_of(explodes and onset, imprecise=explodes),
            f"gradient × {factor[1.0]} per layer going back (infinite width {wide[1.0]:.4f}), × {first} in the last 10",
            ("It starts there" if onset else "Nothing starts there: it grows in every layer")
            + f", {factor[1.0].mean ** 100:.0f}-fold over 100 layers. What normalizes itself is the signal, not "
            "the gradient",
        ),
        verdict(
            "A19",
            "… which is not that much over 32 layers",
            verdict_of(over32.below(10)),
            f"gradient × {over32} over {min(32, last)} layers",
            f"The growth is exponential but slow: threefold over 32 layers, {whole[1.0].mean:.0f}-fold over {last}"
            if over32.below(10)
            else "It is more than tenfold",
        ),
        verdict(
            "A20",
            "selu stabilizes well with gain 0.75",
            verdict_of(tame, imprecise=0.75 in live),
            f"std {end('std', 0.75)}, gradient × {factor[0.75]} per layer going back from the output (infinite "
            f"width {wide[0.75]:.5f}), × {whole[0.75]} over all {last}",
            "Signal and gradient are both nearly kept: the fixed point is stable, and the gradient grows by "
            f"{100 * (wide[0.75] - 1):.2f}% per layer there, against {100 * (wide[1.0] - 1):.1f}% at gain 1"
            if tame
            else "Its gradient or its signal is not kept",
        ),
        verdict(
            "A21",
            "0.75 is magic",
            verdict_of(near < 1e-3, imprecise=near < 0.2),
            f"the critical gain is {low:.10f}, exact; at 0.75 std {end('std', 0.75)} instead of 1, mean "
            f"{end('mean', 0.75)} instead of 0, correlation of two inputs {end('correlation', 0.75)} in layer "
            f"{last} and {float(at[0.75]['correlation']):.4f} in the limit",
            f"Nothing happens at 0.75 itself; it is {near:.0%} above the critical gain, where signal and gradient "
            "change by powers of the depth only. Nearer to it the gradient grows less and the signal is smaller: the "
            "price is the self-normalization. At a fifth of its size selu is two straight lines with a kink, where "
            "inputs merge",
        ),
    ]


def draw(figure: Figure, found: Found) -> None:
    """Signal, gradient and correlation over depth, and what the gain decides."""
    sampled, theory = found["sampled"].mean("seed"), found["theory"]
    layers, last = sampled["layer"], int(sampled["layer"][-1])
    figure.set_size_inches(16, 4.8)
    figure.set_layout_engine("constrained")
    signal, gradient, merging, gains = figure.subplots(1, 4)
    for gain, colour in COLOURS.items():
        one, look = sampled.sel(gain=gain), {"color": colour, "lw": 2, "label": f"{gain:g}"}
        signal.semilogy(layers, one["std"], **look)
        gradient.semilogy(last - layers, np.exp((one["log_grad_rms"] - one["log_grad_rms"][-1]).astype(float)), **look)
        if 0.6 < gain < 1.4:
            merging.plot(layers, one["correlation"], **look)
    signal.set_ylim(1e-3, 1e2)
    gradient.set_ylim(1e-3, 1e3)
    gradient.axvline(32, color="0.5", lw=1, ls=":")
    gradient.annotate("32 layers", (32, 4e2), (3, 0), textcoords="offset points", fontsize=8.5, color="0.3")
    plain_panel(signal, title="0.75, 1 and 1.2 keep a signal …", xlabel="layer", ylabel="std of the activations")
    title = "… gradients explode but near 0.75 …"
    plain_panel(gradient, title=title, xlabel="layers back from the output", ylabel="rms gradient / at the output")
    title = "… where inputs merge"
    plain_panel(merging, title=title, xlabel="layer", ylabel="correlation of two inputs", ylim=(-0.1, 1.02))
    for axes in (signal, gradient, merging):
        axes.legend(title="gain", fontsize=8.5, ncols=2, title_fontsize=8.5)
    gains.plot(theory["gain"], theory["second_moment"] ** 0.5, color=BLUE, lw=2, label="rms of the signal")
    growth = 100 * (theory["chi_perp"] ** 0.5 - 1)
    gains.plot(theory["gain"], growth, color=ORANGE, lw=2, label="growth of the gradient per layer, %")
    ends = ((theory.attrs["critical"], "critical", "0.4"), (0.75, "3/4", GREEN), (1.0, "1", BLUE))
    for place, (gain, name, colour) in enumerate(ends):
        gains.axvline(gain, color=colour, lw=1.2, ls="--")
        words = {"textcoords": "offset points", "fontsize": 8.5, "color": colour}
        gains.annotate(name, (gain, 7.1 - 0.4 * place), (3, 0), **words)
    gains.legend(fontsize=8.5, loc="upper right")
    title = "Stable signals over the gain (theory)"
    plain_panel(gains, title=title, xlabel="gain", ylim=(0, 8.8), xlim=(0.65, 1.35))
    figure.suptitle(f"selu networks without biases, means of {found['sampled'].sizes['seed']} networks", fontsize=12)


main = main_of("selu_three_quarters", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
