"""`jaxgain probe`: a model of the user's, its table, its dataset and figure, and whether it is healthy."""

import dataclasses
import difflib
import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NoReturn, Optional

from tyro.conf import Positional

from jaxgain.cli.arguments import parse, part_of, refuse, refusing
from jaxgain.cli.results import results_in
from jaxgain.cli.running import prepare_jax
from jaxgain.runs.files import save_dataset, save_figure

ABOUT = """Probe a model of yours: one row per linear operation, with its signal, its gradient and a verdict. Prints a
table, and writes the dataset probe.nc and the figure probe.png. Exits with code 1 where the model is not healthy, and
with 2 on bad input. MODEL is package.module:factory, a function without arguments that returns the model followed by
what probe takes beside it: (module, x), (linen_module, variables, x), (transform, params, x) or (function, params,
x)."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """What to probe, how, and where its results go."""

    model: Positional[str]
    """The factory, as package.module:factory; modules in the folder you are in are found."""

    loss: Optional[str] = None  # noqa: UP045 (the command line reads `| None` slowly)
    """A function of the model's output that returns a scalar, as package.module:loss; its gradient is followed."""

    cotangent: Literal["random", "sum"] = "random"
    """Without a loss: what the output is multiplied with, standard normal numbers or ones."""

    dtype: Optional[Literal["float16", "bfloat16", "float32"]] = None  # noqa: UP045
    """Convert every floating-point array of the model and its input to this type first."""

    vanishing: float = 1e-3
    """Below this factor of where it comes from, a signal or gradient vanishes."""

    exploding: float = 1e3
    """Above this factor it explodes."""

    saturated: float = 0.5
    """Fraction of an activation's inputs, from which on it saturates, where its slope is below 1% of the largest."""

    dead: float = 0.9
    """Fraction of units without slope for every input from which on a layer is dead."""

    margin: float = 10.0
    """Factor that has to be left to the largest number of the format, and to its smallest normal one."""

    out: Path = Path("jaxgain-probe")
    """Folder for probe.nc and probe.png, made where missing. A probe that is there is replaced."""


def run(words: Sequence[str]) -> None:
    """Run the subcommand."""
    arguments = parse(Probe, words, command="probe", about=ABOUT)
    from jaxgain.probing.verdicts import Limits

    with refusing():
        limits = part_of(Limits, arguments)
    if arguments.loss is not None and arguments.cotangent != "random":
        refuse("give --loss or --cotangent, not both: a cotangent stands for the gradient of a loss")
    results = results_in(arguments.out, "probe")
    sys.path.insert(0, "")
    prepare_jax()
    factory = named(arguments.model)
    loss = None if arguments.loss is None else named(arguments.loss)
    model, *args = made(factory, arguments.model, arguments.dtype)
    report = probed(model, args, loss, arguments, limits)
    from matplotlib.figure import Figure

    from jaxgain.cli.tables import console
    from jaxgain.figures.probe import draw_probe

    save_dataset(report, results.dataset)
    figure = Figure()
    draw_probe(report, figure)
    save_figure(figure, results.figure)
    print(report)
    results.say(console())
    if not set(report["verdict"].values.tolist()) <= {"healthy", "not run"}:
        raise SystemExit(1)


def named(name: str) -> Any:
    """Return the callable that package.module:attribute names; one line and exit code 2 where there is none."""
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        refuse(f"a model is named as package.module:factory, got {name!r}")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            refuse(f"there is no module {error.name!r}; run from the folder it is in, or install it")
        _refuse_error(f"importing {module_name}", error)
    except Exception as error:
        _refuse_error(f"importing {module_name}", error)
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            refuse(f"{module_name} has no {part!r}{f'; did you mean {close[0]!r}?' if close else ''}")
        found = getattr(found, part)
    if not callable(found):
        refuse(f"{name} is not a function but {type(found).__name__}; name a function that returns the model")
    return found


def made(factory: Any, name: str, dtype: str | None) -> tuple[Any, ...]:
    """Return what the factory returns: a model, and what `probe` takes beside it."""
    try:
        needed = [
            parameter.name
            for parameter in inspect.signature(factory).parameters.values()
            if parameter.default is parameter.empty and parameter.kind not in (2, 4)  # *args and **kwargs
        ]
    except (TypeError, ValueError):
        needed = []
    if needed:
        refuse(f"{name} needs {', '.join(needed)}; a factory is called without arguments")
    try:
        found = factory()
    except Exception as error:
        _refuse_error(f"{name}()", error)
    if not (isinstance(found, tuple) and len(found) > 1):
        what = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        refuse(f"{name} returned {what}; return a tuple of the model and its inputs: (model, x)")
    return found if dtype is None else tuple(_converted(part, dtype) for part in found)


def _converted(part: Any, dtype: str) -> Any:
    import jax
    import jax.numpy as jnp

    def convert(leaf: Any) -> Any:
        kind = getattr(leaf, "dtype", None)
        floating = kind is not None and jnp.issubdtype(kind, jnp.floating)
        return jnp.asarray(leaf, dtype) if floating else leaf

    return jax.tree.map(convert, part)


def probed(model: Any, args: Sequence[Any], loss: Any, arguments: Probe, limits: Any) -> Any:
    """Return the report; what the model or the loss raises is one line and exit code 2."""
    from jaxgain.probing.probe import probe

    cotangent = None if loss is not None else arguments.cotangent
    with refusing():
        try:
            return probe(model, *args, loss=loss, cotangent=cotangent, limits=limits)
        except ValueError as error:
            if not _is_ours(error):
                _refuse_error("the model does not trace:", error)
            raise
        except Exception as error:
            if _is_ours(error) and isinstance(error, TypeError):
                refuse(" ".join(str(error).split()))
            _refuse_error("the model does not trace:", error)


def _is_ours(error: Exception) -> bool:
    import traceback

    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith("jaxgain.")


def _refuse_error(doing: str, error: Exception) -> NoReturn:
    """Say in one line what the user's code raised, and where in it."""
    lines = str(error).strip().splitlines()
    advice = [note for note in getattr(error, "__notes__", ()) if "jaxgain" in note or "loss" in note][:1]
    said = f"{doing}{'' if doing.endswith(':') else ' raised'} {type(error).__name__}: {lines[0] if lines else ''}"
    refuse(" ".join(". ".join([said.rstrip(". "), *advice]).split()))
