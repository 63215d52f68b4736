"""What may be asked of a sweep: each kind of setting, read from whatever it was written as, or refused in a sentence.

Imports neither jax nor numpy, so that the command line can show its settings at once.
"""

import difflib
import hashlib
import math
import numbers
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from jaxgain.activations import Activation, activation
from jaxgain.grammar import number


class Words(tuple):
    """A tuple, of a type that the command line knows how to read at once."""

    __slots__ = ()


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
OF_REVERSE = ("log_grad_rms", "log_grad_mean_abs", "log_weight_grad_rms", "grad_correlation", "grad_alignment")
OF_PAIRS = ("correlations", "log_one_minus_correlations")
OF_SPECTRUM = ("log_jacobian_second_moment", "log_largest_singular_value", "log_singular_values")
MORE_STATISTICS = (*OF_PAIRS, "effective_rank", "grad_correlation", "grad_alignment", *OF_SPECTRUM)
"""What is not recorded unless asked for; networks that do carry their vectors."""

GAIN_KINDS = ("forward", "centred", "backward", "balanced", "self_consistent", "critical", "kumar", "torch")
NAMED = "named"
_WORDS = (*GAIN_KINDS, NAMED)

# The normal numbers of float32, in which networks run.
SMALLEST, LARGEST = 2.0**-126, 3.4e38


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
    items = gains_of(gains)
    numbers_given = {item for item in items if not isinstance(item, str)}
    ranges = {value for item in items if isinstance(item, str) for value in range_of(item)}
    kinds = GAIN_KINDS if NAMED in items else tuple(kind for kind in GAIN_KINDS if kind in items)
    return tuple(sorted(numbers_given | ranges)), kinds


def gains_of(gains: Any, name: str = "gains") -> tuple[float | str, ...]:
    """Numbers as floats; ranges and kinds as the strings they are. `name` is that of the setting."""
    items = _listed(name, gains, lone=(str, numbers.Real), example=f'{name}=(1.0, "5/3", "forward")')
    return tuple(_gain(item, position) for position, item in enumerate(items))


def _gain(item: Any, position: int) -> float | str:
    if isinstance(item, str):
        item = item.strip()
        if item in _WORDS:
            return item
        if ":" in item:
            range_of(item)
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
    if not (value == 0 or SMALLEST <= value <= LARGEST):
        raise ValueError(
            f"gains must be 0 or between 1.2e-38 and 3.4e38, the range of float32, got {came!r} at position {position}"
        )
    return value


def range_of(text: str, what: str = "gains") -> tuple[float, ...]:
    """The numbers of `start:stop:count`, both ends included; nothing for a kind's name."""
    if ":" not in text:
        return ()
    parts = text.split(":")
    if len(parts) != 3 or not parts[2].strip().isdecimal() or int(parts[2]) < 2:
        raise ValueError(
            f"a range of {what} is start:stop:count with a count of at least 2, e.g. 0.5:3:16, got {text!r}"
        )
    start, stop = (_legal_gain(_read(part.strip()), text, i) for i, part in enumerate(parts[:2]))
    if stop <= start:
        raise ValueError(f"a range of {what} must rise from start to stop, got {text!r}")
    return tuple(_spaced(start, stop, int(parts[2])))


def _spaced(start: float, stop: float, count: int) -> list[float]:
    """So many numbers from start to stop, exact before they are rounded."""
    first, last = _exact(start), _exact(stop)
    return [float(first + (last - first) * i / (count - 1)) for i in range(count)]


def _exact(value: float) -> Fraction:
    """The fraction meant by a float: 0.1 is 1/10, so that ranges end on the decimals that were written."""
    simple = Fraction(value).limit_denominator(10**6)
    return simple if float(simple) == value else Fraction(value)


def activations_of(given: Any) -> tuple[str | Callable[..., Any], ...]:
    """Names and elementwise functions, each once."""
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


def statistics_of(given: Any) -> tuple[str, ...]:
    """Names of statistics, each once."""
    names = _listed("statistics", given, lone=str, example='("std", "log_grad_rms")')
    for name in names:
        check_choice("statistics", name, (*STATISTICS, *MORE_STATISTICS))
    _distinct("statistics", names)
    return tuple(names)


def depths_of(given: Any, depth: int) -> tuple[int, ...]:
    """Rising, with the whole depth; none where none was given."""
    depths: set[int] = set()
    for item in given if isinstance(given, Iterable) and not isinstance(given, str) else [given]:
        for value in range_of(item, "depths") if isinstance(item, str) and ":" in item else [item]:
            # Words and the ends of ranges are whole numbers in another dress.
            whole = int(float(value)) if str(value).removesuffix(".0").isdecimal() else value
            depths |= {depth, count_of("depths", whole, 1, "is the last layer of a network")}
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


def check_choice(name: str, given: Any, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices."""
    if not isinstance(given, str):
        raise TypeError(f"{name} must be one of {', '.join(choices)}, got {given!r}")
    if given not in choices:
        raise ValueError(f"unknown {name} {given!r}{_nearest(given, choices)} Use one of {', '.join(choices)}")


def _nearest(given: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def count_of(name: str, given: Any, least: int, meaning: str) -> int:
    """A whole number that is large enough."""
    if isinstance(given, bool) or not isinstance(given, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, got {given!r}; it {meaning}")
    if given < least:
        raise ValueError(f"{name} must be at least {least}, got {given!r}; it {meaning}")
    return int(given)


def seed_of(given: Any) -> int:
    """The root of the random keys."""
    seed = count_of("seed", given, 0, "is the root of the random keys")
    if seed >= 2**32:
        raise ValueError(f"seed must be below 2**32, got {seed}; larger ones repeat smaller ones")
    return seed


def real_of(name: str, given: Any, legal: Callable[[float], bool], expected: str) -> float:
    """A finite number that is legal."""
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        raise TypeError(f"{name} must be a number, {expected}, got {given!r}")
    if not (math.isfinite(given) and legal(float(given))):
        raise ValueError(f"{name} must be {expected}, got {given!r}")
    return float(given)


def number_of(name: str, given: Any) -> Any:
    """The number that words stand for; anything else as it is."""
    try:
        return number(given) if isinstance(given, str) else given
    except ValueError as error:
        raise ValueError(f"cannot read {name} {given!r}: {error}") from None


def numbers_of(
    name: str, given: Any, legal: Callable[[float], bool], expected: str, **variables: float
) -> float | Words | None:
    """One number, or several different ones to sweep, rising; None for nothing.

    Each may be written as `grammar.number` reads it, or as a range.

    >>> numbers_of("alpha", ("1/sqrt(L)", 1), math.isfinite, "finite", L=4)
    (0.5, 1.0)
    >>> numbers_of("sigma_b", "0:0.2:3", math.isfinite, "finite")
    (0.0, 0.1, 0.2)
    """
    if given is None:
        return None
    given = given.tolist() if hasattr(given, "tolist") else given
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    found: list[float] = []
    for item in items:
        read = _numbers_in(name, item, variables) if isinstance(item, str) else [item]
        found += [real_of(name, value, legal, expected) for value in read]
    _distinct(name, found)
    return None if not found else found[0] if len(found) == 1 else Words(sorted(found))


def _numbers_in(name: str, text: str, variables: dict[str, float]) -> list[float]:
    parts = text.split(":")
    if len(parts) not in (1, 3):
        raise ValueError(f"a range of {name} is start:stop:count, e.g. 0:1:5, got {text!r}")
    try:
        values = [number(part, **variables) for part in parts[:2]]
    except ValueError as error:
        if text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return [float(text)]
        raise ValueError(f"cannot read {name} {text!r}: {error}") from None
    if len(parts) == 1:
        return values
    if not parts[2].strip().isdecimal() or int(parts[2]) < 2:
        raise ValueError(f"a range of {name} needs a count of at least 2, e.g. 0:1:5, got {text!r}")
    return _spaced(values[0], values[1], int(parts[2]))


def profile_of(name: str, given: Any, depth: int) -> Words:
    """A number for each layer, at least 0; none for nothing.

    >>> profile_of("layer_gains", ("1/2", 1), 2)
    (0.5, 1.0)
    """
    items = [given] if isinstance(given, (str, numbers.Real)) else list(given or ())
    read = [number(item) if isinstance(item, str) else item for item in items]
    values = [real_of(name, value, lambda x: 0 <= x <= LARGEST, "finite and at least 0") for value in read]
    if values and len(values) != depth:
        raise ValueError(f"{name} must be one number per layer, {depth}, got {len(values)}")
    return Words(values)


def counts_of(name: str, given: Any, least: int, meaning: str) -> int | Words | None:
    """One whole number or several of them, in the order given; None for nothing."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return count_of(name, _whole(name, given), least, meaning)
    found = [count_of(name, _whole(name, item), least, meaning) for item in given]
    return None if not found else found[0] if len(found) == 1 else Words(found)


def _whole(name: str, given: Any) -> Any:
    """A whole number written as a word of the command line."""
    if not isinstance(given, str):
        return given
    if not given.strip().isdecimal():
        raise ValueError(f"{name} must be a whole number, got {given!r}")
    return int(given)


def initializer_of(given: Any, shape: tuple[int, int], dtype: str) -> Callable[..., Any]:
    """A user's initializer (key, shape, dtype), if it yields what it is asked for."""
    import jax

    try:
        found = jax.eval_shape(lambda key: given(key, shape, jax.numpy.dtype(dtype)), jax.random.key(0))
    except TypeError as error:
        raise TypeError(f"an initializer is called as init(key, shape, dtype), and {given!r} says: {error}") from None
    if getattr(found, "shape", None) != shape or found.dtype != jax.numpy.dtype(dtype):
        came = f"{found.dtype} {found.shape}" if hasattr(found, "shape") else repr(found)
        raise ValueError(f"an initializer must return {dtype} {shape}, as it was asked for, got {came}")
    return given


def _own_name(phi: str | Callable[..., Any]) -> str:
    """The name as given, or that of an activation of ours; empty for a user's callable."""
    if isinstance(phi, str):
        return phi
    try:
        return phi.name if isinstance(phi, Activation) and activation(phi.name) == phi else ""
    except ValueError:
        return ""


def label_of(phi: str | Callable[..., Any]) -> str:
    """The name, and for a user's callable a hash of what it computes."""
    name = _own_name(phi)
    if name or isinstance(phi, str):
        return name
    import jax

    return f"{activation(phi).name}-{digest_of(phi, jax.ShapeDtypeStruct((), 'float32'))}"


def digest_of(function: Callable[..., Any], *arguments: Any) -> str:
    """Eight characters for what a function computes of arguments with some shapes."""
    import jax
    import numpy as np

    program = jax.make_jaxpr(function)(*arguments)
    text = re.sub(" at 0x[0-9a-f]+", "", str(program.jaxpr))  # where a function lies is not what it computes
    constants = [np.asarray(constant).tobytes() for constant in program.consts]
    return hashlib.sha256(b"".join([text.encode(), jax.__version__.encode(), *constants])).hexdigest()[:8]


def initializer_digest(initializer: Callable[..., Any], shape: tuple[int, int], dtype: str) -> str:
    """A name for what a user's initializer draws."""
    import jax

    draw = lambda key: initializer(key, shape, jax.numpy.dtype(dtype))
    return f"initializer-{digest_of(draw, jax.random.key(0))}"


def block_digest(block: Callable[..., Any], inputs: int, widths: tuple[int, int], dtype: str) -> str:
    """A name for what a user's block computes: of functions that no block contains, in the place of W and phi."""
    import jax
    import jax.numpy as jnp

    def linear(h: Any, features: int | None = None, **settings: Any) -> Any:
        image = jnp.full((h.shape[0], features or widths[1]), jnp.sum(jnp.arcsinh(h)), h.dtype)
        for name, value in sorted(settings.items()):
            image = image + (jnp.arctanh(value) if name == "sigma_w" else jnp.arccosh(value)).astype(h.dtype)
        return image

    signals = jax.ShapeDtypeStruct((inputs, widths[0]), dtype)
    return f"block-{digest_of(lambda h: block(linear, jnp.cbrt, h), signals)}"
