"""Do the gains that people use for SiLU and GELU keep a signal over 100 layers?

Claim: at width 256 the critical initialization, with its biases, keeps E h² within a factor of 10 of its start, in the
geometric mean of 16 networks. √2 and the forward gain 1/√E φ², without biases, lose it by many orders of magnitude,
√2 down, the forward gain up; and with the self-consistent gain single networks end more than twenty orders apart.

    python -m experiments.gelu_silu_collapse

prints its table, says whether the claim holds, and writes gelu_silu_collapse.png, in seconds.
"""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.cli.arguments import one_line
from jaxgain.runs.files import output_folder, save_figure

PROGRAM = "python -m experiments.gelu_silu_collapse"
KEPT, MANY, APART = 1.0, 4.0, 20.0  # powers of ten: what is kept, what is lost, how far apart networks end


@dataclasses.dataclass(frozen=True)
class CollapseConfig:
    """Sizes of the networks; the claim is about the defaults."""

    width: int = 256
    """Neurons per layer."""
    depth: int = 100
    """Layers."""
    seeds: int = 16
    """Networks per activation and initialization."""
    out: Path = Path("experiments/figures")
    """Folder for gelu_silu_collapse.png, made where missing."""


SMOKE = CollapseConfig(width=16, depth=6, seeds=3)


def run(config: CollapseConfig) -> xarray.Dataset:
    """Return the powers of ten of E h², over activation, init, seed and layer, with sigma_w and sigma_b of each."""
    sizes: dict[str, Any] = {"width": config.width, "depth": config.depth, "seeds": config.seeds, "inputs": 1}
    parts = []
    for phi in ("silu", "gelu"):
        for name, init in inits(phi).items():
            settings = jg.SweepConfig(phi, (init.sigma_w,), init.sigma_b, statistics="second_moment", **sizes)
            one = np.log10(jg.sweep(settings)[["second_moment"]].squeeze(drop=True)).rename(second_moment="power")
            one = one.assign(sigma_w=init.sigma_w, sigma_b=init.sigma_b)
            parts.append(one.expand_dims(activation=[phi], init=[name]))
    return xarray.combine_by_coords(parts, combine_attrs="drop")  # type: ignore


def inits(phi: str) -> dict[str, jg.Init]:
    """The initializations of the claim."""
    forward, self_consistent = (jg.Init(jg.gain(phi, kind)) for kind in ("forward", "self_consistent"))
    critical = jg.critical_init(phi).init or jg.Init(1.0)
    return {"critical": critical, "√2": jg.Init(2**0.5), "forward": forward, "self-consistent": self_consistent}


def judge(dataset: xarray.Dataset) -> list[tuple[str, bool]]:
    """Return what was found, and whether it is as claimed, for each activation and initialization."""
    found = []
    for phi in dataset["activation"].values.tolist():
        for init in inits(phi):
            power = dataset["power"].sel(activation=phi).sel(init=init)
            mean, end = (power - power.isel(layer=0)).mean("seed"), power.isel(layer=-1)
            error, apart = float(end.std(ddof=1)) / end.size**0.5, float(end.max() - end.min())
            words = f"{phi}  {init:<15}  geometric mean of E h² ends at 10^({float(mean[-1]):+.1f} ± {error:.1f}); "
            words += f"single networks from 10^{float(end.min()):.1f} to 10^{float(end.max()):.1f}"
            lost = float(mean[-1])
            claims = {"critical": float(abs(mean).max()) < KEPT, "√2": lost < -MANY, "forward": lost > MANY}
            found.append((words, (claims | {"self-consistent": apart > APART})[init]))
    return found


def draw(figure: Figure, dataset: xarray.Dataset) -> None:
    """A row per activation, a column per initialization: every network, and their geometric mean."""
    figure.set_size_inches(13, 6.4)
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    places = [(phi, init) for phi in ("silu", "gelu") for init in inits(phi)]
    for axes, (phi, init) in zip(panels.ravel(), places, strict=True):
        one = dataset.sel(activation=phi).sel(init=init)
        axes.axhspan(-1, 1, color="#009e73", alpha=0.2, linewidth=0)
        axes.plot(one["layer"], one["power"].transpose("layer", "seed"), color="0.45", linewidth=0.6)
        axes.plot(one["layer"], one["power"].mean("seed"), color="#d55e00", linewidth=2.5)
        scales = f"σ_w = {float(one['sigma_w']):.4f}, σ_b = {float(one['sigma_b']):.4f}"
        axes.set_title(f"{phi}, {init}\n{scales}", fontsize=10, loc="left")
        axes.yaxis.set_major_formatter(lambda power, _: f"$10^{{{power:g}}}$")
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("layer", fontsize=10)
    figure.supylabel("E h²", fontsize=10)
    what = f"grey: {dataset.sizes['seed']} networks each; orange: their geometric mean; green: within a factor of 10"
    figure.suptitle(f"SiLU and GELU need their biases: the signal E h² over depth ({what})", fontsize=12)
    figure.tight_layout()


def main(words: Sequence[str] | None = None, default: CollapseConfig = CollapseConfig()) -> None:
    """Run with the options in `words`, of the process by default; one line and exit code 2 for a bad one."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config = tyro.cli(CollapseConfig, prog=PROGRAM, args=words, default=default)
            folder = output_folder(config.out)
            dataset = run(config)
    except (SystemExit, ValueError) as stop:
        if isinstance(stop, SystemExit) and not stop.code:
            raise
        sentence = (one_line(complaint.getvalue()) or str(stop)).rstrip(".")
        print(f"gelu_silu_collapse: {sentence}. See {PROGRAM} --help", file=sys.stderr)
        raise SystemExit(2) from None
    judged = judge(dataset)
    print("\n".join(f"{found}: {'as claimed' if holds else 'NOT as claimed'}" for found, holds in judged))
    failed = sum(not holds for _, holds in judged)
    print(f"{config.seeds} networks each. The claim {f'FAILS in {failed} cases' if failed else 'holds'}.")
    figure = Figure()
    draw(figure, dataset)
    print(f"Figure: {save_figure(figure, folder / 'gelu_silu_collapse.png')}")


if __name__ == "__main__":
    main()
