"""The language of numbers and activations, as typed at a shell: `5/3`, `sqrt(2)`, `leaky_relu(0.2, 2x)`."""

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import NamedTuple

_BINARY: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, Callable[[float], float]] = {"sqrt": math.sqrt, "exp": math.exp, "log": math.log}
_CONSTANTS = {"pi": math.pi, "e": math.e}
# Longer text is no number that a person typed, and a deep enough nest of brackets would exhaust the
# parser's stack.
_LONGEST = 200


class Call(NamedTuple):
    """An activation as written: `leaky_relu(0.2, 2x)` is `Call("leaky_relu", (0.2,), 2.0)`."""

    name: str
    parameters: tuple[float, ...]
    input_scale: float


def number(text: str, **variables: float) -> float:
    """Return the finite number that `text` denotes.

    Digits, `+ - * / **`, brackets, `sqrt`, `exp`, `log` (natural), `pi` and `e`, and the names of `variables`.

    Raises `ValueError` on anything else, and where the result is not a finite real number.

    >>> number("5/3") == 5 / 3, number("2*sqrt(2)") == 8**0.5, number("1e-3")
    (True, True, 0.001)
    >>> number("1/sqrt(L)", L=4)
    0.5
    """
    return _evaluate(text, variables)


def split_call(text: str) -> Call:
    """Split an activation's name from its parameters and the scale of its input.

    The argument with an `x` in it is the input; `x` alone may be left out, and must come last.

    Raises `ValueError` where brackets do not match, a parameter is no number, or the input is not a
    multiple of x.

    >>> split_call("leaky_relu(0.2, 2x)")
    Call(name='leaky_relu', parameters=(0.2,), input_scale=2.0)
    >>> split_call("tanh(x/2)")
    Call(name='tanh', parameters=(), input_scale=0.5)
    """
    match = re.fullmatch(r"\s*([A-Za-z_][\w\- ]*?)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if match is None:
        raise ValueError(
            f"cannot read the activation {text!r}; write a name, such as gelu, leaky_relu(0.2) or tanh(2x)"
        )
    name, inside = match.groups()
    arguments = _split_commas(inside) if inside and inside.strip() else []
    input_scale = 1.0
    if arguments and re.search(r"(?<![A-Za-z_])x\b", arguments[-1]):
        input_scale = _multiple_of_x(arguments.pop(), text)
    return Call(name, tuple(number(argument) for argument in arguments), input_scale)


def _split_commas(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _multiple_of_x(text: str, whole: str) -> float:
    product = re.sub(r"(?<=[\d.)])\s*x\b", "*x", text)
    one, two, far = (_evaluate(product, {"x": x}) for x in (1.0, 2.0, 1024.0))
    # Proportional to x: three points decide it, up to rounding.
    if one == 0 or not (math.isclose(two, 2 * one) and math.isclose(far, 1024 * one)):
        raise ValueError(f"the input in {whole!r} must be a multiple of x, such as 2x or 2x/3, got {text.strip()!r}")
    return one


def _evaluate(text: str, variables: dict[str, float]) -> float:
    message = f"{text!r} is not a number; write digits, + - * / **, brackets, sqrt, exp, log, pi or e"
    if not isinstance(text, str):
        raise TypeError(f"a number to be read must be text, got {text!r}")
    if len(text) > _LONGEST:
        raise ValueError(f"a number of {len(text)} characters is longer than {_LONGEST}; write it as digits")
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body, variables)
    except ZeroDivisionError:
        raise ValueError(f"{text!r} divides by zero") from None
    except (SyntaxError, ValueError, OverflowError, TypeError, KeyError, RecursionError, MemoryError):
        raise ValueError(message) from None
    if isinstance(value, complex) or not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite real number")
    return value


def _value(node: ast.expr, variables: dict[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.Name(id=name):
            return (_CONSTANTS | variables)[name]
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, variables))
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, variables), _value(right, variables))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return _FUNCTIONS[name](_value(argument, variables))
    raise ValueError(ast.dump(node))
