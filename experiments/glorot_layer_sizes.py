"""Is Glorot's scaling invariant under the sizes of layers?

Claim of a forum thread on `calculate_gain('tanh')`, whose author found 3/4 for SELU with Glorot's ("Xavier's") normal
weights in layers of 1000 by 1000:

- A22: "I'm not sure … whether the scaling of the Glorot initialization achieves invariance under the layer size."

Glorot's weights have variance gain²/((fan_in + fan_out)/2), those of He and LeCun gain²/fan_in. From n to m neurons
Glorot's multiply the mean square by gain² 2n/(n + m) going forward and by gain² 2m/(n + m) going back, of which the
geometric mean is below gain² unless m = n.

    python -m experiments.glorot_layer_sizes

prints the verdict and writes glorot_layer_sizes.nc and glorot_layer_sizes.png, in seconds: plain matrices, as in the
thread. Square layers are alike at any size; where sizes alternate Glorot's scaling loses signal and gradient.
"""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import xarray
from matplotlib.figure import Figure

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

GAINS = {"tanh": 5 / 3, "selu": 3 / 4}
MODES = {"fan_avg": "Glorot", "fan_in": "fan_in"}
_SELU = (1.0507009873554805, 1.6732632423543772)  # λ and α, of Klambauer et al., 2017
PHI = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "selu": (
        lambda z: _SELU[0] * np.where(z > 0, z, _SELU[1] * np.expm1(np.minimum(z, 0))),
        lambda z: _SELU[0] * np.where(z > 0, 1, _SELU[1] * np.exp(np.minimum(z, 0))),
    ),
}


@dataclasses.dataclass(frozen=True)
class GlorotConfig:
    """Sizes of the networks; the verdict is about the defaults."""

    narrow: int = 100
    """Neurons of a narrow layer."""
    wide: int = 500
    """Neurons of a wide layer."""
    depth: int = 40
    """Layers, an even number."""
    seeds: int = 24
    """Networks of each kind."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""

    def __post_init__(self) -> None:
        """Check what NumPy does not; raises `ValueError` with one sentence."""
        if self.depth < 2 or self.depth % 2 or self.seeds < 2 or not 1 <= self.narrow <= self.wide:
            raise ValueError("depth must be even and at least 2, seeds at least 2, and 1 <= narrow <= wide")


FULL = GlorotConfig()
SMOKE = GlorotConfig(narrow=10, wide=40, depth=8, seeds=4)


def run(config: GlorotConfig) -> Found:
    """Rms of signal and gradient in each layer, and what each matrix multiplies mean squares by, both ways."""
    narrow, wide = config.narrow, config.wide
    shapes = {"narrow": [narrow] * 2, "wide": [wide] * 2, "alternating": [narrow, wide]}
    dims = ("activation", "mode", "shape", "seed", "layer")
    sizes = (len(GAINS), len(MODES), len(shapes), config.seeds, config.depth + 1)
    found: dict = {name: np.full(sizes, np.nan) for name in ("signal", "gradient", "forward", "backward")}
    for s, pair in enumerate(shapes.values()):
        widths = [pair[l % 2] for l in range(config.depth + 1)]
        for seed in range(config.seeds):
            rng = np.random.default_rng([s, seed])
            draws = [rng.standard_normal((m, n), np.float32) for n, m in itertools.pairwise(widths)]
            x, last = rng.standard_normal(widths[0]), rng.standard_normal(widths[-1])
            for a, (phi, gain) in enumerate(GAINS.items()):
                for b, mode in enumerate(MODES):
                    for name, row in network(draws, phi, gain, mode, x, last).items():
                        found[name][a, b, s, seed] = row
    coords = {"activation": list(GAINS), "mode": list(MODES), "shape": list(shapes)}
    attrs = {"narrow": narrow, "wide": wide}
    return {"networks": xarray.Dataset({name: (dims, rows) for name, rows in found.items()}, coords, attrs)}


def network(draws: list, phi: str, gain: float, mode: str, x: np.ndarray, last: np.ndarray) -> dict[str, np.ndarray]:
    """One network, forward from x and back from the gradient `last`; NaN where there is nothing."""
    value, slope = PHI[phi]
    fan = lambda w: w.shape[1] if mode == "fan_in" else sum(w.shape) / 2
    matrices = [np.float32(gain / math.sqrt(fan(w))) * w for w in draws]
    square = lambda v: float(np.mean(v * v))
    found = {name: np.full(len(draws) + 1, np.nan) for name in ("signal", "gradient", "forward", "backward")}
    h, zs = x / math.sqrt(square(x)), []
    found["signal"][0], found["gradient"][-1] = 1.0, math.sqrt(square(last))
    for l, w in enumerate(matrices, start=1):
        zs.append(w @ h)
        found["forward"][l] = square(zs[-1]) / square(h)
        h = value(zs[-1])
        found["signal"][l] = math.sqrt(square(h))
    g = last
    for l in range(len(matrices), 0, -1):
        d = g * slope(zs[l - 1])
        g = matrices[l - 1].T @ d
        found["backward"][l], found["gradient"][l - 1] = square(g) / square(d), math.sqrt(square(g))
    return found


def judge(found: Found) -> list[Verdict]:
    """Read the verdict off the dataset."""
    networks = found["networks"]
    narrow, wide = networks.attrs["narrow"], networks.attrs["wide"]
    at = lambda name, phi, mode, shape: networks[name].sel(activation=phi, mode=mode, shape=shape)
    last, seeds = int(networks.sizes["layer"]) - 1, networks.sizes["seed"]

    def rate(name: str, phi: str, mode: str, shape: str) -> Estimate:
        """Factor of the rms per layer, from the middle to the last layer, or for the gradient to the first."""
        log, half = np.log(at(name, phi, mode, shape)), last // 2 // 2 * 2
        ends = (last, half) if name == "signal" else (0, last - half)
        return estimate((log.isel(layer=ends[0]) - log.isel(layer=ends[1])) / (last - half)).exp()

    squares = all(
        rate(name, phi, "fan_avg", "narrow").near(rate(name, phi, "fan_avg", "wide").mean, 0.02)
        for phi in GAINS
        for name in ("signal", "gradient")
    )
    left = {mode: estimate(_left(networks.sel(mode=mode, shape="alternating", activation="tanh"))) for mode in MODES}
    law = (4 * narrow * wide / (narrow + wide) ** 2) ** 0.25
    selu = {shape: rate("signal", "selu", "fan_avg", shape) for shape in networks["shape"].values.tolist()}
    fan_in = rate("signal", "selu", "fan_in", "alternating")
    tanh = {mode: estimate(at("signal", "tanh", mode, "alternating").isel(layer=-1)) for mode in MODES}
    invariant = squares and selu["alternating"].near(selu["wide"].mean, 0.02)
    return [
        Verdict(
            "A22",
            "the scaling of Glorot's initialization is invariant under the layer size",
            verdict_of(invariant, imprecise=squares),
            f"selu at 3/4, signal per layer: {narrow} neurons × {selu['narrow']}, {wide} × {selu['wide']}, {narrow} "
            f"and {wide} in turn × {selu['alternating']} (with fan_in × {fan_in}); what a matrix of gain 1 leaves of "
            f"an rms, geometric mean of forward and back: {left['fan_avg']} (law {law:.4f}), with fan_in "
            f"{left['fan_in']}; tanh at 5/3 ends at rms {tanh['fan_avg']}, with fan_in at {tanh['fan_in']}",
            seeds,
            ("Square layers of any size are alike. " if squares else "Not even square layers are alike. ")
            + (
                "So are layers whose sizes alternate"
                if invariant
                else "But where sizes differ, Glorot's compromise between fan_in and fan_out loses from each layer to "
                "the next, forward and back, and a gain found for squares is too small. With fan_in the signal is the "
                "same at any size, and what the gradient loses in one layer it gains in the next"
            ),
        )
    ]


def _left(networks: xarray.Dataset) -> xarray.DataArray:
    """What the matrices alone leave of an rms, per layer, at gain 1: geometric mean of layers and of both ways."""
    log = np.log(networks["forward"]) + np.log(networks["backward"])
    return np.exp(log.isel(layer=slice(1, None)).mean("layer") / 4) / GAINS["tanh"]  # type: ignore


def draw(figure: Figure, found: Found) -> None:
    """Signal and gradient over depth, a column per activation."""
    networks = found["networks"]
    narrow, wide = networks.attrs["narrow"], networks.attrs["wide"]
    names = {"narrow": f"{narrow}", "wide": f"{wide}", "alternating": f"{narrow}, {wide}, {narrow}, …"}
    figure.set_size_inches(14, 4.8)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 4)
    places = [(phi, name) for phi in GAINS for name in ("signal", "gradient")]
    for axes, (phi, name) in zip(panels, places, strict=True):
        for shape, colour in zip(names, (BLUE, GREEN, ORANGE), strict=True):
            for mode, dash in (("fan_avg", "-"), ("fan_in", "--")):
                rows = np.exp(np.log(networks[name].sel(activation=phi, mode=mode, shape=shape)).mean("seed"))  # type: ignore
                label = f"{names[shape]}; {MODES[mode]}" if shape == "alternating" or mode == "fan_avg" else None
                if label:
                    axes.semilogy(
                        rows[::2] if shape == "alternating" else rows, color=colour, ls=dash, lw=2, label=label
                    )
                    axes.lines[-1].set_xdata(np.arange(rows.size)[:: 2 if shape == "alternating" else 1])
        what = {"signal": "rms of the activations", "gradient": "rms of the gradient"}[name]
        plain_panel(axes, title=f"{phi}, gain {'5/3' if phi == 'tanh' else '3/4'}: {name}", xlabel="layer", ylabel=what)
    panels[0].legend(title="neurons per layer; scaling by", fontsize=8, title_fontsize=8)
    title = "Glorot's scaling suits square layers of any size; where sizes alternate it loses signal and gradient"
    figure.suptitle(f"{title} (geometric means of {networks.sizes['seed']} networks)", fontsize=11.5)


main = main_of("glorot_layer_sizes", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
