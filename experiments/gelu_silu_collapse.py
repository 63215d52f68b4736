"""Do the gains that people use for SiLU and GELU keep a signal over 100 layers?

Claims, for networks of width 256, judged for SiLU and for GELU:

- their critical initialization, with its biases (Roberts, Yaida and Hanin, The Principles of Deep Learning Theory,
  2022, section 5.3.4), keeps E h² within a factor of 10 of its start, in the geometric mean of 16 networks;
- √2 without biases, ReLU's gain, loses it downwards by more than 4 powers of ten, the forward gain 1/√E φ² upwards;
- with the self-consistent gain, at which E φ(σz)² = 1, single ones of 16,000 networks end over 20 powers of ten apart.

    python -m experiments.gelu_silu_collapse

prints the verdicts and writes gelu_silu_collapse.nc and gelu_silu_collapse.png, in half a minute.

Without biases √2 loses the signal of SiLU by 29 powers of ten and that of GELU by 27; the forward gain lets them grow
by 14 and 6. With the self-consistent gain SiLU ends anywhere from 10^-22.1 to 10^9.6 and GELU from 10^-26.5 to 10^4.7.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

KEPT, MANY, APART = 1.0, 4.0, 20.0  # powers of ten: what is kept, what is lost, how far apart networks end
LINES = 150  # networks that are drawn, besides those that end lowest and highest


@dataclasses.dataclass(frozen=True)
class CollapseConfig:
    """Sizes of the networks; the claims are about the defaults."""

    width: int = 256
    """Neurons per layer."""
    depth: int = 100
    """Layers."""
    seeds: int = 16
    """Networks whose geometric mean is taken."""
    networks: int = 16_000
    """Networks per activation and initialization, those among them, whose range is shown."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""

    def __post_init__(self) -> None:
        """Check what a sweep does not; raises `ValueError` with one sentence."""
        if not 2 <= self.seeds <= self.networks:
            raise ValueError(f"seeds must be at least 2 and at most networks, got {self.seeds} and {self.networks}")


FULL = CollapseConfig()
SMOKE = CollapseConfig(width=16, depth=6, seeds=3, networks=5)


def run(config: CollapseConfig) -> dict[str, xarray.Dataset]:
    """Return, of each activation and init, the powers of ten of E h²: over layers of some, in the last layer of all."""
    sizes: dict[str, Any] = {"width": config.width, "depth": config.depth, "seeds": config.networks, "inputs": 1}
    layers, ends = [], []
    for phi in ("silu", "gelu"):
        found = inits(phi)
        for sigma_b in sorted({init.sigma_b for init in found.values()}):
            some = {name: init.sigma_w for name, init in found.items() if init.sigma_b == sigma_b}
            settings = jg.SweepConfig(phi, tuple(some.values()), sigma_b, statistics="second_moment", **sizes)
            power: Any = np.log10(jg.sweep(settings)["second_moment"].sel(activation=phi))
            power = power.rename("power")
            for name, sigma_w in some.items():
                one = power.sel(gain=sigma_w, method="nearest").reset_coords(drop=True)
                place, last = dict(activation=[phi], init=[name]), one.isel(layer=-1)
                shown = [*range(min(LINES, config.networks)), int(np.argmin(last.values)), int(np.argmax(last.values))]
                first = one.isel(seed=slice(config.seeds)) - one.isel(seed=slice(config.seeds)).isel(layer=0)
                scales = dict(sigma_w=sigma_w, sigma_b=sigma_b)
                kept = {"mean": first.mean("seed"), "error": first.std("seed", ddof=1) / config.seeds**0.5, **scales}
                part = xarray.Dataset({"lines": one.isel(seed=shown).rename(seed="line"), **kept})
                layers.append(part.drop_vars("line", errors="ignore").expand_dims(place))
                ends.append(last.reset_coords(drop=True).to_dataset(name="end").expand_dims(place))
    combine: Any = lambda parts: xarray.combine_by_coords(parts, combine_attrs="drop").astype(
        np.float32, keep_attrs=False
    )
    return {"layers": combine(layers).assign_attrs(seeds=config.seeds), "ends": combine(ends)}


def inits(phi: str) -> dict[str, jg.Init]:
    """The initializations of the claims."""
    forward, self_consistent = (jg.Init(jg.gain(phi, kind)) for kind in ("forward", "self_consistent"))
    critical = jg.critical_init(phi).init or jg.Init(1.0)
    return {"critical": critical, "√2": jg.Init(2**0.5), "forward": forward, "self-consistent": self_consistent}


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """A verdict per initialization, over both activations."""
    layers, ends = found["layers"], found["ends"]["end"]
    mean, error = layers["mean"].sel(activation=["silu", "gelu"]), layers["error"].isel(layer=-1)
    seeds, last = layers.attrs["seeds"], layers.sizes["layer"] - 1
    low, high = ends.min("seed"), ends.max("seed")
    holds = {
        "critical": abs(mean).max("layer").sel(init="critical") < KEPT,
        "√2": mean.isel(layer=-1).sel(init="√2") < -MANY,
        "forward": mean.isel(layer=-1).sel(init="forward") > MANY,
        "self-consistent": (high - low).sel(init="self-consistent") > APART,
    }
    verdicts = []
    for init, (claim, says, why, other) in CLAIMS.items():
        each = holds[init].reindex_like(mean["activation"])
        words = [
            f"{phi}: {ends.sizes['seed']} networks from 10^{float(low.sel(activation=phi, init=init)):.1f} to "
            f"10^{float(high.sel(activation=phi, init=init)):.1f}"
            if init == "self-consistent"
            else f"{phi}: × 10^({float(mean.sel(activation=phi, init=init)[-1]):+.2f} ± "
            f"{float(error.sel(activation=phi, init=init)):.2f}) by layer {last}"
            for phi in ("silu", "gelu")
        ]
        right, some = bool(each.all()), bool(each.any())
        only = f" It holds for {each['activation'].values[each.values][0]} alone." if some and not right else ""
        count = ends.sizes["seed"] if init == "self-consistent" else seeds
        verdicts.append(
            Verdict(claim, says, verdict_of(right, some), "; ".join(words), count, (why if right else other) + only)
        )
    return verdicts


CLAIMS = {
    "critical": (
        "Roberts et al. 2022",
        "SiLU and GELU keep E h² within a factor of 10 over 100 layers at their critical initialization",
        "At these σ_w and σ_b neither signal nor gradient changes exponentially; the biases belong to it.",
        "At width 256 the critical initialization does not keep the signal that well.",
    ),
    "√2": (
        "√2 for SiLU and GELU",
        "ReLU's gain √2 loses the signal of SiLU and GELU by many orders",
        "Without biases every length is unstable or 0 for these activations: from what √2 makes of 1 they go to 0.",
        "The signal is not lost downwards with √2.",
    ),
    "forward": (
        "forward gain for SiLU and GELU",
        "the gain 1/√E φ(z)² lets the signal of SiLU and GELU grow by many orders",
        "It keeps length 1 exactly, and unstably; from inputs of rms 1 the first length is above it.",
        "The signal does not grow by orders with the forward gain.",
    ),
    "self-consistent": (
        "self-consistent gain for SiLU and GELU",
        "with the gain at which E φ(σz)² = 1 single networks end more than 20 powers of ten apart",
        "Infinite width keeps E h² = 1 with it, but unstably: what chance adds at a finite width grows, down or up.",
        "Networks with this gain end nearer to each other.",
    ),
}


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """A row per activation, a column per initialization: some networks, the extremes, and the geometric mean."""
    figure.set_size_inches(13, 6.4)
    figure.set_dpi(100)
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    places = [(phi, init) for phi in ("silu", "gelu") for init in CLAIMS]
    for axes, (phi, init) in zip(panels.ravel(), places, strict=True):
        one = found["layers"].sel(activation=phi).sel(init=init)
        end = found["ends"]["end"].sel(activation=phi).sel(init=init)
        axes.axhspan(-1, 1, color="#009e73", alpha=0.2, linewidth=0)
        lines = one["lines"].transpose("layer", "line").values
        axes.plot(one["layer"], lines[:, :-2], color="0.65", linewidth=0.4)
        axes.plot(one["layer"], lines[:, -2:], color="#0072b2", linewidth=1.2)
        axes.plot(one["layer"], one["mean"] + lines[0, 0], color="#d55e00", linewidth=2.5)
        words = f"layer {len(lines) - 1}: $10^{{{float(end.min()):.1f}}}$ to $10^{{{float(end.max()):.1f}}}$"
        axes.text(0.03, 0.04, words, transform=axes.transAxes, fontsize=9)
        scales = f"σ_w = {float(one['sigma_w']):.4f}, σ_b = {float(one['sigma_b']):.4f}"
        axes.set_title(f"{phi}, {init}\n{scales}", fontsize=10, loc="left")
        axes.yaxis.set_major_formatter(lambda power, _: f"$10^{{{power:g}}}$")
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("layer", fontsize=10)
    figure.supylabel("E h², mean square of the activations", fontsize=10)
    lines, seeds, all_of_them = (
        found["layers"].sizes["line"] - 2,
        found["layers"].attrs["seeds"],
        found["ends"].sizes["seed"],
    )
    figure.suptitle(
        "SiLU and GELU keep their signal only at their critical initialization, which has biases\n"
        f"orange: geometric mean of {seeds} networks; grey: {lines} networks; blue: the lowest and the highest of "
        f"{all_of_them:,}, range written; green: within a factor of 10 of the start",
        fontsize=11,
    )
    figure.tight_layout()


main = main_of("gelu_silu_collapse", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
