"""Can all singular values of a deep network's Jacobian be near 1?

Pennington, Schoenholz and Ganguli, Resurrecting the sigmoid in deep learning through dynamical isometry, 2017, claim of
wide networks that keep the mean squared gradient:

- with Gaussian weights the squared singular values spread over depth, their variance grows by 1 or more per layer;
- with orthogonal weights and tanh at a small length it does not: isometry, nearly;
- with ReLU there is no isometry, orthogonal or not.

    python -m experiments.dynamical_isometry

prints the verdicts and writes dynamical_isometry.nc and dynamical_isometry.png, in a minute.

Linear and tanh networks have σ_w = 1, ReLU's √2; no biases; inputs of rms 0.1, so that tanh is close to linear.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Verdict, main_of, verdict_of

PAPER = "Pennington et al. 2017"
ACTIVATIONS = {"identity": 1.0, "tanh": 1.0, "relu": 2.0}  # with σ_w²
WEIGHTS = {"normal": "Gaussian", "orthogonal": "orthogonal"}
NEAR = 0.15  # relative: what is of order depth/width adds to sampling errors
SCALE = 0.1


@dataclasses.dataclass(frozen=True)
class IsometryConfig:
    """Sizes of the networks."""

    width: int = 128
    """Neurons per layer, as many as singular values."""
    depth: int = 12
    """Layers."""
    every: int = 3
    """Layers from one spectrum to the next."""
    seeds: int = 8
    """Networks of each kind."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = IsometryConfig()
SMOKE = IsometryConfig(width=8, depth=6, seeds=2)


def run(config: IsometryConfig) -> dict[str, xarray.Dataset]:
    """Return singular values of the Jacobian, and the spread and the largest of their squares that theory expects."""
    sizes: dict[str, Any] = dict(
        width=config.width, depth=config.depth, seeds=config.seeds, inputs=1, record_every=config.every
    )
    parts = []
    for distribution in WEIGHTS:
        settings = jg.SweepConfig(
            tuple(ACTIVATIONS),
            (1.0,),
            distribution=distribution,
            weights="dense",
            input_scale=SCALE,
            directions=config.width,
            statistics="log_singular_values",
            **sizes,
        )
        # NaN is a singular value of exactly 0. ReLU's gain multiplies its Jacobian, as it has no scale of its own.
        values: Any = np.exp(jg.sweep(settings)["log_singular_values"].isel(gain=0, drop=True))
        values = values.fillna(0.0)
        gain = xarray.DataArray(list(ACTIVATIONS.values()), {"activation": list(ACTIVATIONS)}) ** (values["layer"] / 2)
        names: dict[str, Any] = dict(distribution=distribution, second_moment=SCALE**2, depth=config.depth)
        theory = [jg.jacobian_spectrum(phi, jg.Init(square**0.5), **names) for phi, square in ACTIVATIONS.items()]
        theory = xarray.concat(theory, "activation", combine_attrs="drop").assign_coords(activation=list(ACTIVATIONS))
        one = theory[["relative_variance", "log_largest_singular_value"]].sel(layer=values["layer"].values)
        one["singular"] = (values * gain).transpose("activation", "seed", "layer", "singular_value").astype(np.float32)
        parts.append(one.reset_coords(drop=True).expand_dims(distribution=[distribution]))
    return {"spectra": xarray.concat(parts, "distribution").assign_attrs(width=config.width)}


def spread(spectra: xarray.Dataset) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Variance over squared mean of the squared singular values: mean over networks, and its error."""
    squares = spectra["singular"].astype(float) ** 2
    each = squares.var("singular_value") / squares.mean("singular_value") ** 2
    return each.mean("seed"), each.std("seed", ddof=1) / each.sizes["seed"] ** 0.5


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """Gaussian weights, tanh with orthogonal ones, ReLU."""
    spectra = found["spectra"]
    mean, error = (each.isel(layer=-1) for each in spread(spectra))
    theory, depth = spectra["relative_variance"].isel(layer=-1), int(spectra["layer"][-1])
    as_theory = abs(mean - theory) < NEAR * theory + 4 * error + 1e-6
    at = lambda array, phi, weights: float(array.sel(activation=phi, distribution=weights))
    kinds = {"identity": "linear", "tanh": "tanh", "relu": "ReLU"}
    say = lambda phi, weights: (
        f"{kinds[phi]}, {WEIGHTS[weights]} weights: {at(mean, phi, weights):.3g} ± {at(error, phi, weights):.2g} "
        f"(theory {at(theory, phi, weights):.3g})"
    )
    gaussian, orthogonal = ([(phi, weights) for phi in ("identity", "tanh")] for weights in WEIGHTS)
    relu = [("relu", weights) for weights in WEIGHTS]
    claims = [
        (
            "with Gaussian weights the squared singular values spread in proportion to depth, whatever the gain",
            all(at(mean, *kind) > 0.7 * depth for kind in gaussian),
            gaussian,
            f"A Gaussian matrix stretches directions unequally, and {depth} of them multiply; the mean is kept.",
        ),
        (
            "orthogonal weights and tanh at a small length: singular values stay near 1",
            all(at(mean, *kind) < 0.5 for kind in orthogonal),
            orthogonal,
            "A rotation stretches nothing, and near 0 tanh little; how near decides how deep this lasts.",
        ),
        (
            "with ReLU there is no isometry, not with orthogonal weights either",
            all(at(mean, *kind) > 0.7 * depth for kind in relu),
            relu,
            "ReLU sets half of the directions to 0 in every layer, and so the others are stretched by what is lost.",
        ),
    ]
    verdicts = []
    for says, holds, kinds_of, why in claims:
        exact = all(bool(as_theory.sel(activation=phi, distribution=weights)) for phi, weights in kinds_of)
        number = f"variance of s²/mean s² after {depth} layers: " + "; ".join(say(*kind) for kind in kinds_of)
        why = why if holds and exact else "The spread is not that of theory." if holds else "The spread is another."
        verdicts.append(Verdict(PAPER, says, verdict_of(holds and exact, holds), number, spectra.sizes["seed"], why))
    return verdicts


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """A column per activation: singular values in order at the last depth; then the spread over depth."""
    figure.set_size_inches(13.5, 4.6)
    panels = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.25))
    spectra, colours = found["spectra"], {"normal": "#d55e00", "orthogonal": "#0072b2"}
    titles = {"identity": "linear", "tanh": "tanh, near linear", "relu": "ReLU"}
    mean, _ = spread(spectra)
    for axes, (phi, title) in zip(panels, titles.items(), strict=False):
        for weights, colour in colours.items():
            one = spectra.sel(activation=phi, distribution=weights).isel(layer=-1)
            values = np.sort(one["singular"].values, axis=-1)[:, ::-1]
            share = (np.arange(values.shape[1]) + 0.5) / values.shape[1]
            axes.plot(share, values.T, color=colour, linewidth=0.6, alpha=0.4)
            axes.plot(share, values.mean(axis=0), color=colour, linewidth=2.2, label=f"{WEIGHTS[weights]} weights")
            axes.plot(0, np.exp(one["log_largest_singular_value"]), "<", color=colour, markersize=9, clip_on=False)
        axes.axhline(1, color="black", linestyle=":", linewidth=1)
        axes.set(xlabel="share of singular values above", ylim=(0, 8.5), xlim=(0, 1))
        axes.set_title(f"{title}, layer {int(spectra['layer'][-1])}", fontsize=11)
    panels[0].set_ylabel("singular value of the Jacobian")
    panels[0].legend(fontsize=9, frameon=False, title="triangle: largest of theory", title_fontsize=9)
    styles = {"identity": ("o", "-"), "tanh": ("s", "--"), "relu": ("^", ":")}
    for phi, (marker, line) in styles.items():
        for weights, colour in colours.items():
            theory = spectra["relative_variance"].sel(activation=phi, distribution=weights)
            name = {"identity": "linear", "relu": "ReLU"}.get(phi, phi)
            panels[3].plot(spectra["layer"], theory, color=colour, linestyle=line, linewidth=1.5)
            panels[3].plot(
                spectra["layer"],
                mean.sel(activation=phi, distribution=weights),
                marker,
                color=colour,
                markersize=6,
                label=f"{name}, {WEIGHTS[weights]}",
            )
    panels[3].set(xlabel="layer", ylabel="variance of s² / (mean of s²)²")
    panels[3].set_title("spread (lines: theory; marks: networks)", fontsize=11)
    panels[3].legend(fontsize=8, frameon=False)
    for axes in panels:
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "Only orthogonal weights and an activation that is nearly linear keep all singular values near 1", fontsize=12
    )
    figure.tight_layout()


main = main_of("dynamical_isometry", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
