r"""Phase diagrams: the fixed point that the length reaches at every $(\sigma_w, \sigma_b)$ of a grid.

What `fixed_point` finds at one initialization, from tables of the activation's expectations; where a table
cannot tell, as where rounding decides, `fixed_point` itself.
"""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import jaxgain
from jaxgain.activations import Activation, activation
from jaxgain.runs.files import is_ours, load_dataset, save_dataset, saved_attributes
from jaxgain.runs.job import Ranges, Report, is_complete, missing_of, open_job
from jaxgain.runs.parts import Damaged, Piece
from jaxgain.theory.fixed_points import PHASES, fixed_point
from jaxgain.theory.meanfield import Init

if TYPE_CHECKING:
    import xarray

POINTS = 40_000  # that are computed together
MARK = "phase_diagram"  # the attribute of a saved diagram with its settings


def phase_diagram(
    phi: "str | Activation | Callable[..., Any]",
    sigma_w: Any = None,
    sigma_b: Any = None,
    *,
    q0: float = 1.0,
    folder: str | Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> "xarray.Dataset":
    r"""Return the fixed point reached from q0 on the grid of `sigma_w` and `sigma_b`, by default 64 x 64.

    Variables over (sigma_w, sigma_b): `q`, `c`, `one_minus_c`, `slope`, `chi_par`, `chi_perp`, `xi_q`, `xi_c`,
    `xi_grad`, `stable`, `converged` and `phase`, each as in `FixedPoint`.

    In a `folder` the dataset becomes `phase_diagram.nc`, and the same call goes on where one before it was stopped;
    `overwrite` replaces a diagram of other settings there, and `report(sentence)` hears what was found. Rows of about
    40,000 points are computed together, with or without a folder.

    Raises `ValueError` on scales that are negative or not finite, on a q0 that is not positive, where phi is not
    finite or has no finite expectation, and where the folder holds a diagram of other settings or another process is
    at work in it; `OSError` when it cannot be written.

    >>> diagram = phase_diagram("tanh", sigma_w=[0.5, 2.5], sigma_b=[0.3])
    >>> diagram.phase.values.ravel().tolist(), round(float(diagram.c[1, 0]), 9)
    (['ordered', 'chaotic'], 0.122103747)
    """
    phi = activation(phi)
    across = _axis("sigma_w", sigma_w, np.linspace(0.0, 4.0, 64))
    up = _axis("sigma_b", sigma_b, np.linspace(0.0, 2.0, 64))
    if not (isinstance(q0, int | float | np.number) and math.isfinite(q0) and q0 > 0):
        raise ValueError(f"the first length q0 must be positive and finite, got {q0!r}")
    grid = Grid(phi, across, up, float(q0))
    if folder is not None:
        return _in_folder(grid, Path(folder), overwrite, report or (lambda sentence: None))
    return _labelled(grid, [piece for piece, _ in _compute(grid, missing_of([], len(grid.sigma_w), grid.rows))])


class Grid(NamedTuple):
    """What a diagram is of."""

    phi: Activation
    sigma_w: np.ndarray
    sigma_b: np.ndarray
    q0: float

    @property
    def rows(self) -> int:
        """Values of sigma_w that are computed together."""
        return max(1, POINTS // len(self.sigma_b))

    def settings(self) -> dict[str, Any]:
        """All that the numbers depend on; of a function of the user's, what it computes."""
        import jax

        values = np.asarray(self.phi(np.linspace(-8.0, 8.0, 257)), np.float32)
        phi = {"activation": self.phi.name, "values": hashlib.sha256(values.tobytes()).hexdigest()[:8]}
        axes = {"sigma_w": self.sigma_w.tolist(), "sigma_b": self.sigma_b.tolist()}
        versions = {"jaxgain": jaxgain.__version__, "jax": jax.__version__}
        return {**phi, **axes, "q0": self.q0, "versions": versions}


def _compute(grid: Grid, ranges: Ranges) -> Iterator[tuple[Piece, float]]:
    """The fixed points of some rows, with the seconds that they took."""
    for start, stop in ranges:
        before = time.perf_counter()
        scales = np.meshgrid(grid.sigma_w[start:stop], grid.sigma_b, indexing="ij")
        point = fixed_point(grid.phi, Init(*scales), grid.q0)
        found = {name: np.asarray(getattr(point, name)) for name in _ABOUT}
        yield Piece(start, stop, found | {"phase": found["phase"].astype(_PHASE)}), time.perf_counter() - before


def _in_folder(grid: Grid, folder: Path, overwrite: bool, report: Report) -> "xarray.Dataset":
    path, parts, settings = folder / "phase_diagram.nc", folder / "phase_diagram.parts", grid.settings()
    ours = is_ours(path, MARK, "a phase diagram")
    if ours and not overwrite:
        there = json.loads(saved_attributes(path)[MARK])
        if is_complete(path, parts, there, settings, "phase diagram", report):
            return load_dataset(path)
    with open_job(parts, settings, len(grid.sigma_w), grid.rows, report=report, overwrite=overwrite) as job:
        pieces = None
        while pieces is None:
            for piece, seconds in _compute(grid, job.missing()):
                job.add(piece, seconds)
            with contextlib.suppress(Damaged):  # and then what was damaged is missing
                pieces = list(job.pieces())
        save_dataset(_labelled(grid, pieces).assign_attrs({MARK: json.dumps(settings)}), path)
        job.remove()
    return load_dataset(path)


def _labelled(grid: Grid, pieces: Sequence[Piece]) -> "xarray.Dataset":
    import xarray

    pieces = sorted(pieces, key=lambda piece: piece.start)
    found = {name: np.concatenate([piece.arrays[name] for piece in pieces]) for name in _ABOUT}
    return xarray.Dataset(
        {name: (("sigma_w", "sigma_b"), found[name], about) for name, about in _ABOUT.items()},
        coords={"sigma_w": grid.sigma_w, "sigma_b": grid.sigma_b},
        attrs={
            "activation": grid.phi.name,
            "q0": grid.q0,
            "description": "fixed point of the length map reached from q0",
        },
    )


_ABOUT = {
    "q": {"long_name": "length", "description": "fixed length; infinite where it diverges"},
    "c": {"long_name": "correlation", "description": "attracting fixed correlation in [0, 1]"},
    "one_minus_c": {"long_name": "1 - c", "description": "distance of c from 1, to all its digits"},
    "slope": {"long_name": "slope of the correlation map", "description": "at c"},
    "chi_par": {"long_name": "χ∥", "description": "derivative of the length map at q"},
    "chi_perp": {"long_name": "χ⊥", "description": "growth of the mean squared gradient per layer at q"},
    "xi_q": {"long_name": "ξ_q", "units": "layers", "description": "-1/ln|chi_par|"},
    "xi_c": {"long_name": "ξ_c", "units": "layers", "description": "-1/ln slope"},
    "xi_grad": {"long_name": "ξ_grad", "units": "layers", "description": "-1/ln chi_perp; negative: explodes"},
    "stable": {"long_name": "stable", "description": "lengths on both sides of q are attracted to it"},
    "converged": {"long_name": "converged", "description": "the length reaches q"},
    "phase": {"long_name": "phase", "description": ", ".join(PHASES)},
}


_PHASE = np.array(PHASES).dtype


def _axis(name: str, values: Any, default: np.ndarray) -> np.ndarray:
    axis = np.atleast_1d(default if values is None else np.asarray(values, np.float64))
    Init(**({"sigma_w": 1.0} | {name: axis}))  # refuses what is negative or not finite, by its name
    if axis.ndim != 1 or axis.size == 0:
        raise ValueError(f"{name} must be a list of numbers, the grid's axis, got an array of shape {axis.shape}")
    return axis
