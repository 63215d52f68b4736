"""All claims, judged: which are right, which only under a condition, which wrong, and what is true.

    python -m experiments.verdicts

runs every experiment that judges a claim, or uses its datasets where they are there, of the same settings; prints the
verdicts, and writes experiments/README.md: the table of claims and the figures. In less than an hour on two cores, and
a run that was stopped goes on. With --smoke tiny runs, whose verdicts mean nothing, in about two minutes.
"""

import dataclasses
import importlib
import io
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
from rich.markup import escape

from jaxgain.experiments import Verdict, console, cores, experiment, prepare_jax, settle, show, write_whole

# In the order in which a reader learns most.
NAMES = (
    "tanh_five_thirds",
    "sigmoid_gains",
    "relu_sqrt_two",
    "softsign_law",
    "selu_three_quarters",
    "glorot_layer_sizes",
    "contraction_while_training",
    "cures",
    "widest_interval_laplace",
    "tanh_nx_products",
    "tanh_nx_rescaling",
    "one_way_street",
    "vanishing_probability",
    "vanishing_maps",
    "scaled_tanh",
    "exploding_at_layer_31",
    "xavier_tanh_typical",
    "relu_halves_which_moment",
    "zero_weights",
    "gelu_silu_collapse",
    "trainable_depth",
    "transient_chaos",
    "dynamical_isometry",
    "relu_five_l_over_n",
    "nfnets_gammas",
    "residual_scalings",
    "tailored_relu",
)

SOURCES = {
    "A": (
        "What is calculate_gain('tanh')?",
        "A forum thread on why `torch.nn.init.calculate_gain('tanh')` is 5/3. People feed random inputs through deep "
        "networks, look at the standard deviation of the output and at the gradient of its sum, and try gains.",
    ),
    "B": (
        "Does tanh(nx) cure vanishing gradients?",
        "A question, and an answer that multiplies derivatives of tanh(nx) along a chain of neurons and asks how large "
        "their arguments may be before the product vanishes.",
    ),
    "C": (
        "Why do signals explode or vanish?",
        "A note that multiplies random matrices until numbers overflow, and derives the scalings of Xavier and He.",
    ),
    "": (
        "The literature",
        "What papers predict, measured here at the sizes of everyday networks.",
    ),
}


@dataclasses.dataclass(frozen=True)
class VerdictsConfig:
    """What to run, and where results go."""

    smoke: bool = False
    """Tiny runs, whose verdicts mean nothing, to see that everything works."""
    again: bool = False
    """Run anew also what is there."""
    only: tuple[str, ...] = ()
    """Names of experiments; by default all. Then no README.md is written."""
    processes: int = 0
    """Experiments that are computed at a time; 0: one, and of tiny runs, which mostly compile, one per core."""
    out: Path = Path("experiments/figures")
    """Folder for datasets and figures; README.md is written beside it."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a name that is none, and for no number of processes."""
        if self.processes < 0:
            raise ValueError(f"processes must be at least 0, got {self.processes}")
        for name in self.only:
            if name not in NAMES:
                raise ValueError(f"only must be names of experiments, got {name}; they are {', '.join(NAMES)}")


def run(config: VerdictsConfig) -> dict[str, list[Verdict]]:
    """The verdicts of each experiment."""
    names = config.only or NAMES
    processes = min(config.processes or (cores() if config.smoke else 1), len(names))
    if processes == 1:
        return {name: settled(name, config) for name in names}
    found = {}
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for name, verdicts in zip(names, pool.map(settled_silently, names, repeat(config)), strict=True):
            _title(name)
            show(verdicts)
            found[name] = verdicts
    return found


def settled(name: str, config: VerdictsConfig) -> list[Verdict]:
    """Run an experiment, or use its datasets, and print its verdicts."""
    if config.smoke:  # tiny programs take longer to compile than to run
        jax.config.update("jax_disable_most_optimizations", True)
    _title(name)
    module, settings = experiment_of(name, config)
    return settle(name, settings, module.run, module.judge, module.draw, again=config.again)


def settled_silently(name: str, config: VerdictsConfig) -> list[Verdict]:
    """The same in a process of its own."""
    prepare_jax()
    with redirect_stdout(io.StringIO()):
        return settled(name, config)


def _title(name: str) -> None:
    console().print(f"\n[bold]{name}[/]", highlight=False)


def experiment_of(name: str, config: VerdictsConfig) -> tuple[Any, Any]:
    """An experiment's module, and the settings that it is run with."""
    module = importlib.import_module(f"experiments.{name}")
    return module, dataclasses.replace(module.SMOKE if config.smoke else module.FULL, out=config.out)


def page(found: dict[str, list[Verdict]], folder: str) -> str:
    """The text of README.md: what was asked, the verdicts, the figures."""
    figures = {one: name for name, verdicts in found.items() for one in verdicts}
    lines = [_HEAD.format(count=_count(figures)), "| verdict | claims |", "|---|---|"]
    lines += [f"| {word} | {sum(one.verdict == word for one in figures)} |" for word in ("right", "imprecise", "wrong")]
    for letter, (title, about) in SOURCES.items():
        own = sorted((one for one in figures if source_of(one.claim) == letter), key=lambda one: _order(one.claim))
        lines += ["", f"## {title}", "", about, "", "| | claim | verdict | what was found | what is true | figure |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [_row(one, f"{folder}/{figures[one]}.png") for one in own]
    lines += ["", "## Figures"]
    for name in found:
        module: Any = importlib.import_module(f"experiments.{name}")
        question = (module.__doc__ or name).strip().splitlines()[0]
        lines += [
            "",
            f"### {question}",
            "",
            f"![{question}]({folder}/{name}.png)",
            "",
            f"`python -m experiments.{name}`",
        ]
    return "\n".join(lines) + "\n"


def source_of(claim: str) -> str:
    """The letter of a claim's source; "" for the literature.

    >>> source_of("A13"), source_of("Poole et al. 2016")
    ('A', '')
    """
    return claim[0] if re.fullmatch(r"[ABC]\d+", claim) else ""


def _order(claim: str) -> tuple[int, str]:
    return (int(claim[1:]) if source_of(claim) else 0, claim)


def _count(figures: dict[Verdict, str]) -> int:
    return sum(bool(source_of(one.claim)) for one in figures)


def _row(one: Verdict, figure: str) -> str:
    seeds = f" ({one.seeds} seeds)" if one.seeds else ""
    cells = (one.claim, one.says, f"**{one.verdict}**", f"{one.number}{seeds}", one.why, f"[figure]({figure})")
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


_HEAD = """# Claims about initialization, judged

Three public discussions ask what gain a weight matrix should have, whether a steeper tanh cures vanishing gradients,
and why signals explode or vanish in deep networks. {count} of their claims are judged here, and some of the literature
beside them, each by a number that jaxgain computes: **right**, **imprecise** (right under a condition, which is named),
or **wrong**, with what is true instead. A number after ± is one standard error.

Words: a network has layers $h^l = \\phi(z^l)$, $z^l = W^l h^{{l-1}} + b^l$, weights of standard deviation
$\\sigma_w/\\sqrt{{n}}$ for n inputs of a neuron, and biases of standard deviation $\\sigma_b$. The *gain* is
$\\sigma_w$. χ⊥ is the factor by which the mean squared gradient grows per layer on its way back, in a wide network. At
the *edge of chaos* it is 1.

This page is written by `python -m experiments.verdicts`, which runs all experiments that it names.
"""


def main(words: Sequence[str] | None = None, default: VerdictsConfig = VerdictsConfig()) -> None:
    """Run with the options in `words`, of the process by default; one line and exit code 2 for a bad one."""
    with experiment("verdicts", default, words) as config:
        found = run(config)
    if config.only:
        return
    path = config.out.parent / "README.md"
    write_whole(path, lambda temporary: temporary.write_text(page(found, config.out.name)))
    console().print(f"\nPage: {escape(str(path))}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
