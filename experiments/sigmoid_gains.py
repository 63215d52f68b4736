"""Is there a gain at which deep sigmoid networks keep their signal and their gradient?

Claims of a forum thread on `calculate_gain('tanh')`; networks of 1000 neurons per layer without biases:

- A2: Kumar (On weight initialization in deep neural networks, 2017) "provides mathematical justification for using
  gain 1 with Tanh activation, and gain 3.6 with Sigmoid": against vanishing
- A8: "sigmoid seems stable with any gain > 0, but the gradients vanish pretty fast"
- A9: for sigmoid, "the more layers you have the higher the gain you will need"

    python -m experiments.sigmoid_gains

prints the verdicts and writes sigmoid_gains.nc and sigmoid_gains.png, in seconds. The standard deviation is that of
neurons and says nothing about inputs, which become one; only 10.15, the edge of chaos, keeps gradient and inputs.
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
    YELLOW,
    Found,
    Verdict,
    estimate,
    main_of,
    plain_panel,
    root,
    verdict_of,
)

KUMAR, LOST = 3.6, 100.0  # the gain of the claim; by what factor a gradient may shrink for A9
COLOURS = (BLUE, GREEN, ORANGE, PURPLE, YELLOW)


@dataclasses.dataclass(frozen=True)
class SigmoidConfig:
    """Sizes of the networks; the verdicts are about the defaults."""

    gains: tuple[float, ...] = (0.3, 1.0, KUMAR, 6.0, 15.0)
    """Gains of sampled sigmoid networks, the third the one of the claim; tanh has them, too."""
    width: int = 1000
    """Neurons per layer."""
    depth: int = 50
    """Layers."""
    seeds: int = 64
    """Networks per gain."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = SigmoidConfig()
SMOKE = SigmoidConfig(width=50, depth=20, seeds=4)


def run(config: SigmoidConfig) -> Found:
    """Sampled networks; fixed points over the gain; and for each depth the gain that leaves 1% of the gradient."""
    statistics = ("std", "mean", "correlation_h", "log_grad_rms")
    sizes = {"width": config.width, "depth": config.depth, "seeds": config.seeds, "statistics": statistics}
    sampled = jg.sweep(jg.SweepConfig(("sigmoid", "tanh"), config.gains, **sizes))[list(statistics)]
    edge = jg.edge_of_chaos("sigmoid", sigma_b=0.0).init.sigma_w
    at = lambda gain: jg.fixed_point("sigmoid", jg.Init(gain))
    gains = np.geomspace(0.1, 20, 40)
    points = jg.fixed_point("sigmoid", jg.Init(gains))
    depths = np.array([5, 10, 20, 50, 100, 200, 500, 1000])
    needed = [root(lambda g, d=d: d * math.log(at(g).chi_perp) / 2 + math.log(LOST), 0.05, edge) for d in depths]
    theory = {"chi_perp": points.chi_perp, "chi_par": points.chi_par, "correlation": 1 - points.one_minus_c}
    return {
        "sampled": sampled.drop_vars("gain_name"),
        "theory": xarray.Dataset({name: ("gain", values) for name, values in theory.items()}, {"gain": gains}),
        "needed": xarray.Dataset({"gain": ("depth", needed)}, {"depth": depths}, {"edge": edge}),
    }


def judge(found: Found) -> list[Verdict]:
    """Read the verdicts off the datasets."""
    sampled, theory, needed = found["sampled"], found["theory"], found["needed"]
    seeds, last, edge = sampled.sizes["seed"], int(sampled["layer"][-1]), float(needed.attrs["edge"])
    of = lambda phi, gain, name: sampled[name].sel(activation=phi).sel(gain=gain, method="nearest")
    rate = lambda phi, gain: estimate(jg.growth_per_layer(of(phi, gain, "log_grad_rms"))).exp()
    tanh, sigmoid, one = rate("tanh", 1.0), rate("sigmoid", KUMAR), rate("sigmoid", 1.0)
    # Of a power of the depth the factor per layer goes to 1; within 5% of it is no exponential vanishing.
    keeps = {name: value.near(1, 0.05) for name, value in (("tanh", tanh), ("sigmoid", sigmoid))}
    total = of("tanh", 1.0, "log_grad_rms")
    lost = estimate(total.isel(layer=0) - total.isel(layer=-1)).exp()
    kumar = Verdict(
        "A2",
        "gain 1 for tanh and 3.6 for sigmoid stop vanishing",
        verdict_of(all(keeps.values()), imprecise=any(keeps.values())),
        f"gradient per layer going back: tanh at 1 × {tanh}, over all {last} layers × {lost}; sigmoid at "
        f"{KUMAR} × {sigmoid}",
        seeds,
        ("For tanh they do: 1 is critical, what is left is a power of the depth. " if keeps["tanh"] else "")
        + ("For sigmoid, too" if keeps["sigmoid"] else f"For sigmoid {KUMAR} does not: ")
        + (
            ""
            if keeps["sigmoid"]
            else "the derivation linearizes at 0, where the inputs of this sigmoid are not, their standard deviation "
            f"being {math.sqrt(jg.fixed_point('sigmoid', jg.Init(KUMAR)).q):.1f}; {edge:.2f} is what it takes"
        ),
    )
    gains = sampled["gain"].values.tolist()
    drift = {
        gain: estimate(of("sigmoid", gain, "std")[:, -1] / of("sigmoid", gain, "std")[:, last // 2]) for gain in gains
    }
    stable = all(value.near(1, 0.02) for value in drift.values()) and bool((theory["chi_par"] < 1).all())
    vanishes, everywhere = one.below(0.9), all(rate("sigmoid", gain).below(1) for gain in gains)
    merged = estimate(of("sigmoid", 1.0, "correlation_h").isel(layer=-1))
    mean, std = (estimate(of("sigmoid", 1.0, name).isel(layer=-1)) for name in ("mean", "std"))
    widest = rate("sigmoid", gains[-1])
    std_only = Verdict(
        "A8",
        "sigmoid is stable with any gain > 0 but its gradients vanish fast",
        verdict_of(stable and vanishes and everywhere and merged.below(0.99), imprecise=stable and vanishes),
        f"at gain 1: std {std}, mean {mean}, gradient × {one} per layer going back, cosine of two inputs "
        f"{merged.mean:.6f}; at {gains[-1]:g} gradient × {widest}",
        seeds,
        ("The std is stable at any gain, but " if stable else "The std is not stable, and ")
        + ("it is the spread of fixed values, the same for every input: " if merged.above(0.99) else "")
        + "sigmoid's mean is not 0, so random weights make neurons differ whatever comes in. "
        + f"Inputs merge and gradients vanish below {edge:.2f}"
        + ("" if everywhere else ", and above it gradients explode"),
    )
    wanted, depths = needed["gain"].values, needed["depth"].values
    rises, bounded = bool((np.diff(wanted) > 0).all()), bool(wanted.max() < edge)
    higher = Verdict(
        "A9",
        "sigmoid: more layers need a higher gain",
        verdict_of(rises and not bounded, imprecise=rises),
        "to keep 1% of the gradient: "
        + ", ".join(f"{gain:.2f} for {depth} layers" for gain, depth in zip(wanted, depths, strict=True) if depth != 20)
        + "; at infinite width",
        0,
        (
            f"It rises, but not beyond {edge:.4f}, the edge of chaos, which serves every depth"
            if bounded
            else f"It rises beyond the edge of chaos, {edge:.2f}"
        )
        if rises
        else "The gain that is needed does not rise with depth",
    )
    return [kumar, std_only, higher]


def draw(figure: Figure, found: Found) -> None:
    """Standard deviation, what it hides, the gradient, and the gain that a depth needs."""
    sampled, needed = found["sampled"].sel(activation="sigmoid").mean("seed"), found["needed"]
    figure.set_size_inches(15, 4.6)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 4)
    for gain, colour in zip(sampled["gain"].values, COLOURS, strict=False):
        one, look = sampled.sel(gain=gain), {"color": colour, "lw": 2, "label": f"{gain:g}"}
        panels[0].plot(one["layer"], one["std"], **look)
        panels[1].plot(one["layer"], one["correlation_h"], **look)
        back = int(one["layer"][-1]) - one["layer"]
        panels[2].semilogy(back, np.exp((one["log_grad_rms"] - one["log_grad_rms"][-1]).astype(float)), **look)
    plain_panel(panels[0], title="The std of the neurons is stable …", xlabel="layer", ylabel="std", ylim=(0, 1))
    plain_panel(panels[1], title="… but all inputs become the same", xlabel="layer", ylabel="cosine of two inputs")
    plain_panel(
        panels[2],
        title="… and at small gains the gradient is lost",
        xlabel="layers back from the output",
        ylabel="rms gradient / at the output",
    )
    for axes in panels[:3]:
        axes.legend(title="gain", fontsize=8, title_fontsize=8)
    edge = float(needed.attrs["edge"])
    panels[3].axhline(edge, color="0.4", lw=1.2, ls="--")
    panels[3].annotate(f"edge of chaos: {edge:.2f}", (needed["depth"][0], edge), (0, 4), textcoords="offset points")
    panels[3].semilogx(needed["depth"], needed["gain"], "o-", color=BLUE, lw=2)
    plain_panel(
        panels[3],
        title="More layers need a higher gain",
        xlabel="layers",
        ylabel="gain that keeps 1% of the gradient",
        ylim=(0, edge * 1.12),
    )
    figure.suptitle(
        "sigmoid networks without biases: a stable std is no signal, only the gain 10.15 keeps one",
        fontsize=12,
    )


main = main_of("sigmoid_gains", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
