"""What panels of lines have in common, and colours that colour-blind people tell apart (Okabe and Ito, 2008)."""

from typing import Any

from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, YELLOW, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"


def plain_panel(axes: Axes, **words: Any) -> None:
    """A light grid, no frame above and to the right; `words` as for `Axes.set`, with the title at the left."""
    title = words.pop("title", None)
    axes.set(**words)
    if title:
        axes.set_title(title, fontsize=10.5, loc="left")
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
