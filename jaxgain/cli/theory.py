"""`jaxgain theory`: what infinite and finite width predict of one activation, and whether networks agree."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from tyro.conf import Positional

from jaxgain.activations import activation
from jaxgain.cli.arguments import parse, refuse, refusing
from jaxgain.cli.results import results_in
from jaxgain.cli.running import prepare_jax, progress_bar
from jaxgain.propagation.settings import Words, count_of, number_of, numbers_of, real_of, seed_of
from jaxgain.runs.files import save_dataset, save_figure

ABOUT = """Print what theory says of an activation and an initialization: the fixed points of the length with their
stability and depths, the phase, the critical initialization, the edge of chaos. Writes the dataset theory.nc and the
figure theory.png: phase diagram, maps of length and correlation, and the bands in which networks of a width will be."""
SCALE = (lambda value: 0 <= value <= 3.4e38), "finite and at least 0, a standard deviation up to 3.4e38"


@dataclasses.dataclass(frozen=True)
class Theory:
    """Of what, whether to compare, and where to."""

    activation: Positional[str]
    """Activation, e.g. gelu, "tanh(2x)" or "leaky_relu(0.2)"."""

    sigma_w: Optional[str] = None  # noqa: UP045 (the command line reads `| None` slowly)
    """Standard deviation of a weight times sqrt(fan_in), no unit: a number such as 5/3 or sqrt(2). By default that
    of the critical initialization, or of its best substitute; with --sigma-b, of the edge of chaos there."""

    sigma_b: Optional[str] = None  # noqa: UP045
    """Standard deviation of the biases, in units of the pre-activation. By default that of the critical
    initialization, or 0 where --sigma-w is given."""

    edges: Words = Words(("0", "0.05", "0.1", "0.2", "0.5", "1"))
    """Bias standard deviations at which to print the edge of chaos; start:stop:count for evenly spaced ones."""

    width: int = 1000
    """Neurons per layer, of the bands and of the networks that they are compared with."""

    depth: int = 50
    """Layers of the bands."""

    input_correlation: float = 0.5
    """Cosine between the two inputs whose correlation is followed, from -1 to 1."""

    grid: int = 64
    """Points of the phase diagram along either axis."""

    compare: bool = False
    """Sample networks, too, and report how far they are from the theory, in standard errors."""

    seeds: int = 256
    """Networks to sample."""

    seed: int = 0
    """Root of the random keys, from 0 to 2**32 - 1."""

    out: Path = Path("jaxgain-theory")
    """Folder for theory.nc and theory.png, made where missing. A theory that is there is replaced."""

    def __post_init__(self) -> None:
        """Check every field; raises `ValueError` with one sentence."""
        activation(self.activation)
        for name in ("sigma_w", "sigma_b"):
            self.scale(name)
        numbers_of("edges", self.edges, *SCALE)
        for name, (least, meaning) in _COUNTS.items():
            count_of(name, getattr(self, name), least, meaning)
        seed_of(self.seed)
        real_of("input_correlation", self.input_correlation, lambda c: -1 <= c <= 1, "between -1 and 1")

    def scale(self, name: str) -> float | None:
        """Return sigma_w or sigma_b as a number, None where it was not given.

        >>> Theory("tanh", sigma_w="5/3").scale("sigma_w")
        1.6666666666666667
        """
        given = getattr(self, name)
        if given is None:
            return None
        words = str(given).strip().lower()
        value = float(words) if words.lstrip("+-") in ("nan", "inf", "infinity") else number_of(name, given)
        return real_of(name, value, *SCALE)


_COUNTS = {
    "width": (1, "counts the neurons of a layer"),
    "depth": (2, "counts the layers"),
    "grid": (2, "counts the points of the phase diagram along an axis"),
    "seeds": (3, "counts the networks; a variance is judged by its own spread"),
}


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    arguments = parse(Theory, words, command="theory", about=ABOUT)
    results = results_in(arguments.out, "theory")
    prepare_jax()
    from matplotlib.figure import Figure

    from jaxgain import __version__
    from jaxgain.cli.tables import console
    from jaxgain.cli.theory_tables import comparison_table, theory_tables
    from jaxgain.figures.theory import draw_theory
    from jaxgain.propagation.disagreement import disagreement
    from jaxgain.theory.portrait import default_init, portrait

    settings: dict[str, Any] = {name: getattr(arguments, name) for name in ("width", "depth", "grid")}
    settings |= {"input_correlation": arguments.input_correlation, "edges": _listed(arguments.edges)}
    with refusing():
        init, which = default_init(arguments.activation, arguments.scale("sigma_w"), arguments.scale("sigma_b"))
        dataset = portrait(arguments.activation, init, **settings)
    if arguments.compare and "log_q_var" not in dataset:
        refuse(f"there is nothing to compare with: {dataset.attrs['bands_missing']}; or leave out --compare")
    dataset = dataset.assign_attrs({"init": which, "jaxgain": __version__})
    out = console()
    for part in theory_tables(dataset):
        out.print(part)
    if arguments.compare:
        with refusing(), progress_bar() as progress:
            compared = disagreement(
                arguments.activation, init, dataset, seeds=arguments.seeds, seed=arguments.seed, progress=progress
            )
        dataset = dataset.merge(compared).assign_attrs(dataset.attrs | compared.attrs)
        for part in comparison_table(dataset):
            out.print(part)
    save_dataset(dataset, results.dataset)
    figure = Figure()
    draw_theory(figure, dataset)
    save_figure(figure, results.figure)
    results.say(out)


def _listed(words: Words) -> tuple[float, ...]:
    found = numbers_of("edges", words, *SCALE)
    return found if isinstance(found, tuple) else () if found is None else (found,)
