"""How do signal and gradient grow with the depth of a residual network, and what do scalings of its branches do?

Blocks h + α V φ(W h), with σ_w = √2 for ReLU and 1 for tanh, as they are initialized:

- Yang and Schoenholz, Mean field residual networks: on the edge of chaos, 2017: with α = 1 gradients grow exponentially
  with depth L for ReLU, but only as exp(c √L) for tanh;
- Zhang, Dauphin and Ma, Fixup initialization, 2019: without normalization the variance of the signal grows as an
  exponential of L; branches scaled by 1/√L keep it bounded;
- Bachlechner et al., ReZero is all you need, 2020: α = 0 keeps signal and gradient exactly.

    python -m experiments.residual_scalings

prints the verdicts and writes residual_scalings.nc and residual_scalings.png, in a minute or two.
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

RULES = {"1": "#d55e00", "1/sqrt(L)": "#e69f00", "1/L": "#009e73", "0": "#0072b2"}
NAMES = ("α = 1", "α = 1/√L", "α = 1/L", "α = 0")
STATISTICS = ("second_moment", "log_grad_rms", "log_weight_grad_rms", "log_jacobian_rms")
NEAR = 0.1  # of a logarithm, relative: what a width of hundreds adds to sampling errors


@dataclasses.dataclass(frozen=True)
class ResidualConfig:
    """Sizes of the networks."""

    width: int = 500
    """Neurons per layer."""
    depth: int = 150
    """Blocks, L."""
    seeds: int = 16
    """Networks of each kind."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = ResidualConfig()
SMOKE = ResidualConfig(width=16, depth=8, seeds=2)


def run(config: ResidualConfig) -> dict[str, xarray.Dataset]:
    """Return logarithms of mean squares, of ReLU networks under each α, and of Jacobians with α = 1; and theory's."""
    both: dict[str, Any] = dict(block="residual", branch="two_layer", depth=config.depth)
    sizes: dict[str, Any] = dict(width=config.width, seeds=config.seeds, inputs=1, **both)
    relu = jg.SweepConfig("relu", "sqrt(2)", alpha=tuple(RULES), statistics=STATISTICS, **sizes)
    swept = jg.sweep(relu).squeeze(["activation", "gain"], drop=True).sortby("alpha", ascending=False)  # as in RULES
    swept = swept.transpose("alpha", "seed", "layer")
    tanh = jg.sweep(jg.SweepConfig("tanh", (1.0,), statistics="log_jacobian_rms", **sizes))["log_jacobian_rms"]
    expected = [jg.mean_field("relu", jg.Init(2**0.5), alpha=rule, **both) for rule in RULES]
    expected_tanh = jg.mean_field("tanh", jg.Init(1.0), **both)
    deep = [swept["log_jacobian_rms"].values[0], tanh.squeeze(["activation", "gain"], drop=True).values]
    wide = [each["log_jacobian_rms"].values for each in (expected[0], expected_tanh)]
    names = {"alpha": list(RULES)}
    return {
        "scaled": xarray.Dataset(
            {
                "log_signal": (("alpha", "seed", "layer"), np.log(swept["second_moment"].values.astype(float))),
                "log_gradient": (("alpha", "seed", "layer"), 2 * swept["log_grad_rms"].values.astype(float)),
                "log_weights": (("alpha", "seed", "layer"), swept["log_weight_grad_rms"].values),
                "signal_theory": (("alpha", "layer"), [np.log(each["second_moment"].values) for each in expected]),
                "gradient_theory": (("alpha", "layer"), [2 * each["log_grad_rms"].values for each in expected]),
            },
            names,
        ),
        "deep": xarray.Dataset(
            {
                "log_jacobian": (("activation", "seed", "layer"), 2 * np.array(deep)),
                "theory": (("activation", "layer"), 2 * np.array(wide)),
            },
            {"activation": ["relu", "tanh"]},
        ),
    }


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """Yang and Schoenholz, Fixup, ReZero."""
    return [_growth(found["deep"]), _fixup(found["scaled"]), _rezero(found["scaled"])]


def _growth(deep: xarray.Dataset) -> Verdict:
    depth = deep.sizes["layer"] - 1
    logs = deep["log_jacobian"].isel(layer=[depth // 4, depth])
    powers: Any = np.log(logs.isel(layer=1) / logs.isel(layer=0)) / math.log(depth / (depth // 4))
    mean, error = powers.mean("seed"), powers.std("seed", ddof=1) / powers.sizes["seed"] ** 0.5
    theory: Any = np.log(deep["theory"][:, depth] / deep["theory"][:, depth // 4]) / math.log(depth / (depth // 4))
    relu, tanh = (float(mean.sel(activation=phi)) for phi in ("relu", "tanh"))
    exponential, below, root = abs(relu - 1) < 0.05, tanh < 0.7, abs(tanh - 0.5) < 0.1
    total = {phi: float(logs.sel(activation=phi).isel(layer=1).mean()) / math.log(10) for phi in ("relu", "tanh")}
    words = f"log of the mean squared Jacobian grows as L^p from L = {depth // 4} to {depth}: " + "; ".join(
        f"{phi}: p = {float(mean.sel(activation=phi)):.3f} ± {float(error.sel(activation=phi)):.3f} (theory "
        f"{float(theory.sel(activation=phi)):.3f}), × 10^{total[phi]:.1f} in all"
        for phi in ("relu", "tanh")
    )
    why = "The branch of tanh saturates as the signal adds up, so each block adds less; ReLU's grows along with it."
    if not (exponential and below):
        why = "The growth is another."
    says = "residual gradients grow exponentially with depth for ReLU, as exp(c √L) for tanh"
    right = exponential and below and root
    return Verdict(
        "Yang and Schoenholz 2017", says, verdict_of(right, exponential and below), words, powers.sizes["seed"], why
    )


def _change(scaled: xarray.Dataset, rule: str) -> tuple[list[float], list[float], list[float]]:
    """Logarithms of what signal and gradient grow by, their errors, and what theory says."""
    one = scaled.sel(alpha=rule)
    ends = {"signal": (-1, 0), "gradient": (0, -1)}
    each = [one[f"log_{name}"].isel(layer=a) - one[f"log_{name}"].isel(layer=b) for name, (a, b) in ends.items()]
    theory = [float(one[f"{name}_theory"][a] - one[f"{name}_theory"][b]) for name, (a, b) in ends.items()]
    return [float(e.mean()) for e in each], [float(e.std(ddof=1)) / e.size**0.5 for e in each], theory


def _fixup(scaled: xarray.Dataset) -> Verdict:
    depth, words, near = scaled.sizes["layer"] - 1, [], []
    for rule, name in zip(("1", "1/sqrt(L)", "1/L"), NAMES, strict=False):
        mean, error, theory = _change(scaled, rule)
        near += [abs(m - t) < 4 * e + NEAR * max(abs(t), 1) for m, e, t in zip(mean, error, theory, strict=True)]
        words.append(
            f"{name}: signal × {math.exp(mean[0]):.3g} (theory {math.exp(theory[0]):.3g}), "
            f"gradient × {math.exp(mean[1]):.3g}"
        )
    grows = _change(scaled, "1")[0][0] > 0.8 * depth * math.log(2)
    bounded = _change(scaled, "1/sqrt(L)")[0][0] < 1.5
    why = "A block multiplies mean squares by 1 + α²: 2^L without a scale, at most e with 1/√L, and nearly 1 with 1/L."
    if not (grows and bounded and all(near)):
        why = "The networks grow in another way."
    says = "residual ReLU networks grow exponentially with depth; branches scaled by 1/√L do not"
    verdict = verdict_of(grows and bounded and all(near), grows and bounded)
    return Verdict(
        "Zhang et al. 2019",
        says,
        verdict,
        f"mean squares after {depth} blocks, typically: {'; '.join(words)}",
        scaled.sizes["seed"],
        why,
    )


def _rezero(scaled: xarray.Dataset) -> Verdict:
    mean, _, _ = _change(scaled, "0")
    largest = float(abs(scaled["log_signal"] - scaled["log_signal"].isel(layer=0)).sel(alpha="0").max())
    weights = scaled["log_weights"].sel(alpha="0").isel(layer=slice(1, None))
    still, exact = bool((weights == -np.inf).all()), largest < 1e-5 and abs(mean[1]) < 1e-5
    words = f"largest change of log E h²: {largest:.1g}, of the log squared gradient: {abs(mean[1]):.1g}; weights of "
    words += "the branches have no gradient at all" if still else "the branches have a gradient"
    why = "Every block is the identity." if exact else "They change."
    why += " The price: at the first step only α learns, and the weights once α has left 0." if still else ""
    says = "α = 0 keeps signal and gradient exactly, at any depth"
    return Verdict("Bachlechner et al. 2020", says, verdict_of(exact), words, scaled.sizes["seed"], why)


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Signal and gradient over the blocks under each α, and the growth of ReLU and tanh."""
    figure.set_size_inches(13.5, 4.7)
    panels = figure.subplots(1, 3)
    scaled, deep = found["scaled"], found["deep"]
    depth = scaled.sizes["layer"] - 1
    some = np.arange(0, depth + 1, max(1, depth // 20))
    for axes, rules, unit in ((panels[0], slice(0, 1), math.log(10)), (panels[1], slice(1, None), 1.0)):
        for rule, label in list(zip(RULES, NAMES, strict=True))[rules]:
            for name, end, line, mark in (("signal", 0, "-", "o"), ("gradient", -1, "--", "s")):
                theory, logs = (
                    scaled[f"{name}_theory"].sel(alpha=rule),
                    scaled[f"log_{name}"].sel(alpha=rule).mean("seed"),
                )
                form = (lambda log: log / math.log(10)) if unit != 1.0 else np.exp
                text = f"{label}, {name}" if rule != "0" or name == "signal" else None
                axes.plot(form(theory - theory[end]), color=RULES[rule], linewidth=1.8, linestyle=line, label=text)
                axes.plot(some, form(logs - logs[end])[some], mark, color=RULES[rule], markersize=4)
        axes.set(xlabel="block")
        axes.legend(fontsize=9, frameon=False, title="lines: theory; marks: networks", title_fontsize=9)
    panels[0].set_ylabel("log₁₀ of the mean square, relative to its start")
    panels[0].set_title(
        f"ReLU, {depth} blocks, α = 1: signal and gradient\ndouble in every block, each its own way", fontsize=11
    )
    panels[1].set(ylabel="mean square, relative to its start", ylim=(0.8, 4.6))
    panels[1].axhline(math.e, color="0.5", linestyle=":", linewidth=1.2)
    panels[1].text(depth / 2, math.e + 0.05, "e", color="0.3")
    panels[1].set_title("scaled by 1/√L they end at about e,\nby 1/L or 0 they are kept", fontsize=11)
    for phi, colour in {"relu": "#d55e00", "tanh": "#0072b2"}.items():
        logs, theory = deep["log_jacobian"].sel(activation=phi).mean("seed"), deep["theory"].sel(activation=phi)
        layers = np.unique(np.geomspace(1, len(theory) - 1, 20).astype(int))
        panels[2].plot(np.arange(1, len(theory)), theory[1:], color=colour, linewidth=1.8, label=f"{phi}, α = 1")
        panels[2].plot(layers, logs[layers], "o", color=colour, markersize=4)
        power = 1 if phi == "relu" else 0.5
        guide = float(theory[-1]) * (np.array([10, 1.0]) / 10) ** power
        panels[2].plot((len(theory) - 1) * np.array([1, 0.1]), 1.5 * guide, color="0.5", linestyle="--", linewidth=1)
        word = "∝ L" if phi == "relu" else "∝ √L"
        panels[2].text(
            (len(theory) - 1) * 0.3, 1.7 * float(theory[-1]) * 0.3**power, word, color="0.3", fontsize=10, ha="right"
        )
    panels[2].set(xscale="log", yscale="log", xlabel="blocks, L", ylabel="ln of the mean squared Jacobian")
    panels[2].set_title("growth is exponential with ReLU,\nslower with tanh, whose branches saturate", fontsize=11)
    panels[2].legend(fontsize=9, frameon=False)
    for axes in panels:
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()


main = main_of("residual_scalings", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
