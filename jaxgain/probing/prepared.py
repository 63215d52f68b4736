"""What `probe`, `calibrate` and `monitor` share: a model, traced, as a function that returns its statistics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxgain import __version__
from jaxgain.probing.measure import Raw, instrument
from jaxgain.probing.models import Model, as_model
from jaxgain.probing.trace import Traced, trace


@dataclass(frozen=True)
class Prepared:
    """A model, its program, a function of the program's arrays that returns output and sums, and what it is."""

    model: Model
    traced: Traced
    probed: Callable[[Sequence[Any]], tuple[Any, Raw]]
    attributes: dict[str, Any]


def prepared(
    model: Any,
    args: Sequence[Any],
    loss: Callable[[Any], Any] | None,
    cotangent: Any,
    data: Sequence[int] | None,
) -> Prepared:
    """Trace a model for its statistics; the arguments and errors are those of `probe`."""
    if loss is not None and cotangent is not None:
        raise ValueError("give a loss or a cotangent, not both: a cotangent stands for the gradient of a loss")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss must be a function of the model's output, got {type(loss).__name__}")
    cotangent = "random" if cotangent is None else cotangent
    described = as_model(model, args, data)
    traced = trace(described)
    attributes = {
        "cotangent": "loss" if loss is not None else cotangent if isinstance(cotangent, str) else "given",
        "opaque": ", ".join(traced.opaque),
        "jaxgain": __version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    return Prepared(described, traced, instrument(traced, loss=loss, cotangent=cotangent), attributes)
