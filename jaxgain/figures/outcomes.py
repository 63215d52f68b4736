"""The figure of a deterministic map: which initializations vanish, survive or explode, in three colours."""

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from jaxgain.figures.sweep import GROWS, SHRINKS, cell_edges

COLOURS = {"vanishes": SHRINKS, "survives": "#f7f7f7", "explodes": GROWS}
NO_NUMBER = "0.2"  # where the gradient is no number
_SYMBOLS = {"sigma_w": "σ_w", "sigma_b": "σ_b"}


def draw_outcomes(axes: Axes, dataset: xarray.Dataset) -> None:
    """Draw the `outcome` of a map: blue where it vanishes, white where it survives, red where it explodes.

    The first dim is drawn across and the second up; the title and the legend say what the attributes say.

    Args:
        axes: empty ones; no pyplot state is touched.
        dataset: of `jaxgain.outcome_map` or `jaxgain.initial_map`.
    """
    across, up = (str(dim) for dim in dataset["outcome"].dims)
    names = dataset["outcome"].transpose(up, across).values
    codes = np.ma.masked_all(names.shape)
    for code, name in enumerate(COLOURS):
        codes[names == name] = code
    axes.set_facecolor(NO_NUMBER)
    edges = [cell_edges(dataset[dim].values) for dim in (across, up)]
    axes.pcolormesh(*edges, codes, cmap=ListedColormap(list(COLOURS.values())), vmin=-0.5, vmax=2.5, rasterized=True)
    axes.set_xlabel(_SYMBOLS.get(across, across))
    axes.set_ylabel(_SYMBOLS.get(up, up))
    axes.set_title(_title(dataset), fontsize=10, loc="left")
    axes.tick_params(labelsize=8, length=2)
    labels = _labels(dataset) | ({NO_NUMBER: "no number"} if codes.mask.any() else {})
    patches = [Patch(facecolor=colour, edgecolor="0.4", label=label) for colour, label in labels.items()]
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": len(patches), "frameon": False}
    axes.legend(handles=patches, fontsize=7.5, handlelength=1.2, columnspacing=1.0, **below)


def _title(dataset: xarray.Dataset) -> str:
    settings = dataset.attrs
    if "scale" not in settings:
        start = f"input of mean square {settings['second_moment']:g}"
        return (
            f"{settings['activation']}, infinite width, {settings['depth']} layers\nrms gradient r, output = 1; {start}"
        )
    scale = "" if settings["scale"] == 1 else f" of {settings['scale']:g} z"
    alike = f"{settings['activation']}{scale}, width 1, the same w and b in all {settings['depth']} layers"
    return f"{alike}\ngradient r = |dx/dx₀| from x₀ = {settings['x0']:g}"


def _labels(dataset: xarray.Dataset) -> dict[str, str]:
    """What each colour means."""
    below, above = (f"{dataset.attrs[name]:g}" for name in ("below", "above"))
    means = {"vanishes": f"r < {below}", "survives": f"{below} ≤ r ≤ {above}", "explodes": f"r > {above}"}
    return {COLOURS[name]: f"{name}: {condition}" for name, condition in means.items()}
