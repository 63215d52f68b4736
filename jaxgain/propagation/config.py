"""`SweepConfig`, the settings of a sweep, validated once: the Python call, the flags and the hash alike.

Imports neither jax nor numpy, so that the command line can show it at once.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import numbers
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Optional, get_args

from jaxgain.activations import Activation, activation
from jaxgain.grammar import number


class Words(tuple):
    """A tuple, of a type that the command line knows how to read at once."""

    __slots__ = ()


if TYPE_CHECKING:  # what Python accepts
    Activations = Sequence[str | Callable[..., Any]]
    Gains = Sequence[float | str]
    Statistics = Sequence[str]
    Depths = Sequence[int | str]
else:
    Activations = Gains = Statistics = Depths = Words

Weights = Literal["matrix_free", "dense"]
Cotangent = Literal["random", "sum"]
Distribution = Literal["normal"]
Block = Literal["plain"]

STATISTICS = (
    "q",
    "mean",
    "std",
    "second_moment",
    "log_grad_rms",
    "log_grad_mean_abs",
    "log_weight_grad_rms",
    "log_jacobian_rms",
    "correlation",
    "correlation_h",
    "saturated",
    "dead",
    "first_nonfinite",
    "first_vanished",
)
GAIN_KINDS = ("forward", "centred", "backward", "balanced", "self_consistent", "critical", "kumar", "torch")
NAMED = "named"
_WORDS = (*GAIN_KINDS, NAMED)


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Settings of a sweep over activations, gains and seeds.

    Lists become tuples and a lone name or gain a tuple of one. Raises `ValueError` or `TypeError` with one
    sentence for what cannot be run.

    >>> config = SweepConfig(activations="tanh", gains=[1.0, "5/3", "0:1:3"], depth=10)
    >>> read_gains(config.gains)
    ((0.0, 0.5, 1.0, 1.6666666666666667), ())
    >>> SweepConfig(width=0)
    Traceback (most recent call last):
    ValueError: width must be at least 1, got 0; it counts the neurons of a layer
    """

    activations: Activations = Words(("sigmoid", "tanh", "softsign", "relu", "selu", "gelu", "silu"))
    """Activations by name, e.g. tanh "tanh(2x)" "leaky_relu(0.2)". In Python also elementwise callables."""

    gains: Gains = Words(("0.5:3:11", NAMED))
    """Gains (standard deviation of a weight times sqrt(fan_in); no unit): numbers such as 5/3 or sqrt(2),
    start:stop:count for evenly spaced ones, the name of a criterion such as forward or critical for each
    activation's own gain of that kind, or named for all of them."""

    sigma_b: float = 0.0
    """Standard deviation of the biases, in units of the pre-activation."""

    width: int = 1000
    """Neurons per layer, and per input vector."""

    depth: int = 100
    """Layers."""

    depths: Depths = Words(())
    """Final depths whose gradients to record, beside the whole depth: whole numbers such as 10 20, or
    start:stop:count; each gives the profile of a network that ends there. None: only the whole depth."""

    seeds: int = 16
    """Independent networks per activation and gain."""

    inputs: int = 2
    """Input vectors per network; statistics of pairs need 2."""

    input_scale: float = 1.0
    """Root mean square of every input vector's entries."""

    input_correlation: Optional[float] = None  # noqa: UP045 (the command line reads `| None` slowly)
    """Exact cosine between input 1 and each other input, from -1 to 1; None draws them independently."""

    weights: Weights = "matrix_free"
    """matrix_free samples what a Gaussian matrix does to the signal, exactly in law; dense draws it."""

    distribution: Distribution = "normal"
    """Distribution of the weights."""

    block: Block = "plain"
    """How a linear map and an activation make a layer: plain is h = phi(W h + b)."""

    cotangent: Cotangent = "random"
    """Gradient at the output: random is normal with unit variance, sum is that of the sum of the outputs."""

    statistics: Statistics = Words(STATISTICS)
    """Statistics to record, by name."""

    record_every: int = 1
    """Layers from one record to the next."""

    keep_inputs: bool = False
    """Keep an axis for the inputs instead of averaging over them."""

    seed: int = 0
    """Root of the random keys, from 0 to 2**32 - 1."""

    memory: float = 4.0
    """Cap on the working memory, in GiB; changes no result."""

    def __post_init__(self) -> None:
        """Check every field once and bring it into its one form."""
        put = object.__setattr__
        put(self, "activations", Words(_activations(self.activations)))
        put(self, "gains", Words(_gains(self.gains)))
        put(self, "statistics", Words(_statistics(self.statistics)))
        for name, (least, meaning) in _COUNTS.items():
            put(self, name, _count(name, getattr(self, name), least, meaning))
        for name, (legal, expected) in _REALS.items():
            put(self, name, _real(name, getattr(self, name), legal, expected))
        put(self, "depths", Words(_depths(self.depths, self.depth)))
        for name, choices in _CHOICES.items():
            _choice(name, getattr(self, name), get_args(choices))
        if self.record_every > self.depth:
            raise ValueError(f"record_every must be at most the depth, {self.depth}, got {self.record_every}")
        if type(self.keep_inputs) is not bool:
            raise TypeError(f"keep_inputs must be True or False, got {self.keep_inputs!r}")
        if self.seed >= 2**32:
            raise ValueError(f"seed must be below 2**32, got {self.seed}; larger ones repeat smaller ones")
        put(self, "input_correlation", _input_correlation(self.input_correlation, self.inputs, self.width))

    def activation_names(self) -> tuple[str, ...]:
        """Labels of the activations, in order, for a dataset's `activation` coordinate."""
        return tuple(_label(phi) for phi in self.activations)

    def to_json(self) -> str:
        """The settings as canonical JSON: sorted keys, no spaces, callables by their label.

        >>> json.loads(SweepConfig(gains=("5/3", "forward")).to_json())["gains"]
        [1.6666666666666667, 'forward']
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["activations"] = self.activation_names()
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def hash(self) -> str:
        """SHA-256, in hexadecimal, of the settings that change a result: all but `memory`.

        >>> SweepConfig(gains=["5/3"]).hash() == SweepConfig(gains=(5 / 3,), memory=1.0).hash()
        True
        """
        fields = {key: value for key, value in json.loads(self.to_json()).items() if key != "memory"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_gains(gains: Iterable[float | str]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Split gains into sorted distinct numbers, ranges spelled out, and kinds in the order of `GAIN_KINDS`.

    `named` stands for every kind. A range is exact before it is rounded, so `0.5:3:16` contains 1 and 5/3.
    Raises `ValueError` for what is neither, and for a gain that is not finite or is negative.

    >>> read_gains(["sqrt(4)", "0.5:3:16", "forward"])[0][3:8]
    (1.0, 1.1666666666666667, 1.3333333333333333, 1.5, 1.6666666666666667)
    >>> read_gains([1, "forwrad"])
    Traceback (most recent call last):
    ValueError: unknown gain 'forwrad'; did you mean 'forward'? Write a number such as 5/3 or sqrt(2), ...
    """
    items = _gains(gains)
    numbers_given = {item for item in items if not isinstance(item, str)}
    ranges = {value for item in items if isinstance(item, str) for value in _range(item)}
    kinds = GAIN_KINDS if NAMED in items else tuple(kind for kind in GAIN_KINDS if kind in items)
    return tuple(sorted(numbers_given | ranges)), kinds


def _gains(gains: Any) -> tuple[float | str, ...]:
    """Numbers as floats; ranges and kinds as the strings they are."""
    items = _listed("gains", gains, lone=(str, numbers.Real), example='gains=(1.0, "5/3", "forward")')
    return tuple(_gain(item, position) for position, item in enumerate(items))


def _gain(item: Any, position: int) -> float | str:
    if isinstance(item, str):
        item = item.strip()
        if item in _WORDS:
            return item
        if ":" in item:
            _range(item)
            return item
        return _legal_gain(_read(item), item, position)
    if isinstance(item, bool) or not isinstance(item, numbers.Real):
        raise TypeError(f"a gain must be a number or a string, got {item!r} at position {position}")
    return _legal_gain(float(item), item, position)


def _read(text: str) -> float:
    try:
        return number(text)
    except ValueError as error:
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return float(text)
        if text.isidentifier():
            raise ValueError(
                f"unknown gain {text!r}{_nearest(text, _WORDS)} Write a number such as 5/3 or sqrt(2), "
                f"a range such as 0.5:3:16, or one of {', '.join(_WORDS)}"
            ) from None
        raise ValueError(f"cannot read the gain {text!r}: {error}") from None


def _legal_gain(value: float, came: object, position: int) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"gains must be finite and at least 0, got {came!r} at position {position}; "
            "a gain scales a standard deviation"
        )
    if not (value == 0 or _SMALLEST <= value <= _LARGEST):
        raise ValueError(
            f"gains must be 0 or between 1.2e-38 and 3.4e38, the range of float32, got {came!r} at position {position}"
        )
    return value


def _range(text: str, what: str = "gains") -> tuple[float, ...]:
    """The numbers of `start:stop:count`, both ends included; nothing for a kind's name."""
    if ":" not in text:
        return ()
    parts = text.split(":")
    if len(parts) != 3 or not parts[2].strip().isdecimal() or int(parts[2]) < 2:
        raise ValueError(
            f"a range of {what} is start:stop:count with a count of at least 2, e.g. 0.5:3:16, got {text!r}"
        )
    start, stop = (_exact(_legal_gain(_read(part.strip()), text, i)) for i, part in enumerate(parts[:2]))
    if stop <= start:
        raise ValueError(f"a range of {what} must rise from start to stop, got {text!r}")
    last = int(parts[2]) - 1
    return tuple(float(start + (stop - start) * i / last) for i in range(last + 1))


def _exact(value: float) -> Fraction:
    """The fraction meant by a float: 0.1 is 1/10, so that ranges end on the decimals that were written."""
    simple = Fraction(value).limit_denominator(10**6)
    return simple if float(simple) == value else Fraction(value)


def _activations(given: Any) -> tuple[str | Callable[..., Any], ...]:
    phis: list[Any] = (
        [given] if callable(given) else _listed("activations", given, lone=str, example='("tanh", "relu")')
    )
    wrong = [phi for phi in phis if not (isinstance(phi, str) or callable(phi))]
    if wrong:
        raise TypeError(f"an activation must be a name or an elementwise callable, got {wrong[0]!r}")
    for phi in phis:
        activation(phi)
    _distinct("activations", [_own_name(phi) or phi for phi in phis])
    return tuple(phis)


def _statistics(given: Any) -> tuple[str, ...]:
    names = _listed("statistics", given, lone=str, example='("std", "log_grad_rms")')
    for name in names:
        _choice("statistics", name, STATISTICS)
    _distinct("statistics", names)
    return tuple(names)


def _depths(given: Any, depth: int) -> tuple[int, ...]:
    """Rising, with the whole depth; none where none was given."""
    depths: set[int] = set()
    for item in given if isinstance(given, Iterable) and not isinstance(given, str) else [given]:
        for value in _range(item, "depths") if isinstance(item, str) and ":" in item else [item]:
            # Words and the ends of ranges are whole numbers in another dress.
            whole = int(float(value)) if str(value).removesuffix(".0").isdecimal() else value
            depths |= {depth, _count("depths", whole, 1, "is the last layer of a network")}
    if depths and max(depths) > depth:
        raise ValueError(f"depths must be at most the depth, {depth}, got {max(depths)}; raise depth")
    return tuple(sorted(depths))


def _listed(name: str, given: Any, *, lone: type | tuple[type, ...], example: str) -> list[Any]:
    if isinstance(given, lone):
        return [given]
    if hasattr(given, "tolist"):  # an array: its entries as Python numbers
        given = given.tolist()
        given = given if isinstance(given, list) else [given]
    if not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a tuple, e.g. {example}, got {given!r}")
    items = list(given)
    if not items:
        raise ValueError(f"{name} must not be empty; give at least one, e.g. {example}")
    return items


def _distinct(name: str, items: Sequence[Any]) -> None:
    twice = [item for item in items if items.count(item) > 1]
    if twice:
        raise ValueError(f"{name} must differ, got {twice[0]!r} twice; leave one out")


def _choice(name: str, given: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(given, str):
        raise TypeError(f"{name} must be one of {', '.join(choices)}, got {given!r}")
    if given not in choices:
        raise ValueError(f"unknown {name} {given!r}{_nearest(given, choices)} Use one of {', '.join(choices)}")


def _nearest(given: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def _count(name: str, given: Any, least: int, meaning: str) -> int:
    if isinstance(given, bool) or not isinstance(given, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, got {given!r}; it {meaning}")
    if given < least:
        raise ValueError(f"{name} must be at least {least}, got {given!r}; it {meaning}")
    return int(given)


def _real(name: str, given: Any, legal: Callable[[float], bool], expected: str) -> float:
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        raise TypeError(f"{name} must be a number, {expected}, got {given!r}")
    if not (math.isfinite(given) and legal(float(given))):
        raise ValueError(f"{name} must be {expected}, got {given!r}")
    return float(given)


def _input_correlation(given: Any, inputs: int, width: int) -> float | None:
    if given is None:
        return None
    value = _real("input_correlation", given, lambda c: -1 <= c <= 1, "between -1 and 1")
    if inputs < 2:
        raise ValueError(f"input_correlation needs at least 2 inputs, got inputs={inputs}; set inputs=2")
    if width == 1 and abs(value) != 1:
        raise ValueError(f"two numbers (width 1) have correlation 1 or -1, got input_correlation={value!r}")
    return value


def _own_name(phi: str | Callable[..., Any]) -> str:
    """The name as given, or that of an activation of ours; empty for a user's callable."""
    if isinstance(phi, str):
        return phi
    try:
        return phi.name if isinstance(phi, Activation) and activation(phi.name) == phi else ""
    except ValueError:
        return ""


def _label(phi: str | Callable[..., Any]) -> str:
    """The name, and for a user's callable a hash of what it computes."""
    name = _own_name(phi)
    if name or isinstance(phi, str):
        return name
    import jax
    import numpy as np

    program = jax.make_jaxpr(phi)(jax.ShapeDtypeStruct((), "float32"))
    text = re.sub(" at 0x[0-9a-f]+", "", str(program.jaxpr))  # where a function lies is not what it computes
    constants = [np.asarray(constant).tobytes() for constant in program.consts]
    digest = hashlib.sha256(b"".join([text.encode(), jax.__version__.encode(), *constants]))
    return f"{activation(phi).name}-{digest.hexdigest()[:8]}"


# The normal numbers of float32, in which networks run.
_SMALLEST, _LARGEST = 2.0**-126, 3.4e38

_COUNTS = {
    "width": (1, "counts the neurons of a layer"),
    "depth": (1, "counts the layers"),
    "seeds": (1, "counts the independent networks"),
    "inputs": (1, "counts the input vectors"),
    "record_every": (1, "counts the layers from one record to the next"),
    "seed": (0, "is the root of the random keys"),
}
_REALS: dict[str, tuple[Callable[[float], bool], str]] = {
    "sigma_b": (lambda value: 0 <= value <= _LARGEST, "finite and at least 0, a standard deviation"),
    "input_scale": (lambda value: value > 0, "finite and positive, a root mean square"),
    "memory": (lambda value: value > 0, "finite and positive, in GiB"),
}
_CHOICES = {"weights": Weights, "distribution": Distribution, "block": Block, "cotangent": Cotangent}
