"""The linear operations of a traced program that touch the data: found by walking it once, before it runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Literal

from jaxgain.probing.values import Place, Source, Value, joined, of_literal, outputs_of, taken

LINEAR = {"dot_general": "matmul", "conv_general_dilated": "convolution"}
INLINE = {"jit", "pjit", "closed_call", "core_call", "core_closed_call", "remat", "remat2", "checkpoint"}
CUSTOM = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}

NO_REVERSE = "reverse mode does not pass through lax.while_loop"


class Loop(NamedTuple):
    """A scan around a site: where it is, how many turns it takes, and whether it runs backwards."""

    place: Place
    length: int
    reverse: bool


@dataclass(eq=False)
class Site:
    """A linear operation that touches the data, and what the program says of it."""

    index: int
    place: Place
    operation: str  # "matmul", "convolution" or, of two values that both depend on data, "product"
    loops: tuple[Loop, ...]
    inputs: tuple[int, ...]  # positions of the operands that depend on data
    source: Source | None  # of the other operand
    entering: tuple[int, ...]  # shape of the input; of a product's first operand
    shape: tuple[int, ...]  # of the weights; of a product's second operand
    fan_in: int
    dtype: Any
    features: tuple[int, ...]  # axes of the output that count its units
    output: Value
    parents: tuple[frozenset[int], ...]  # per operand, the sites it was last computed from
    gradient: str = ""  # why there is no gradient here, if there is none


class Body(NamedTuple):
    """A program with its constants, whichever way this version of JAX holds them together."""

    program: Any
    constants: tuple[Any, ...]


def body_of(held: Any) -> Body:
    """Return a jaxpr, closed or not, as a body."""
    return Body(getattr(held, "jaxpr", held), tuple(getattr(held, "consts", ())))


def called(equation: Any) -> Body | None:
    """Return the program that an equation calls once, if it does."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in equation.params:
            return body_of(equation.params[name])
    return None


def scan_parts(equation: Any) -> tuple[int, int]:
    """Return how many constants and how many carried values a scan has."""
    parameters = equation.params
    if "num_consts" in parameters:
        return parameters["num_consts"], parameters["num_carry"]
    constants, carry, *_ = parameters["ft_in"].unpack()  # jax 0.11 and later
    return len(list(constants)), len(list(carry))


def has_linear(body: Body) -> bool:
    """Whether there is a linear operation anywhere in a program."""
    return any(
        equation.primitive.name in LINEAR or any(has_linear(inner) for inner in _bodies(equation))
        for equation in body.program.eqns
    )


def _bodies(equation: Any) -> list[Body]:
    held = []
    for value in equation.params.values():
        held += value if isinstance(value, (tuple, list)) else [value]
    return [body_of(value) for value in held if hasattr(getattr(value, "jaxpr", value), "eqns")]


class Use(NamedTuple):
    """An equation that is not walked into, with what is known of its inputs and outputs."""

    place: Place
    equation: Any
    inputs: list[Value]
    outputs: list[Value]


class Walk:
    """Walks a program and collects its sites, the constants in it, and what it could not look into."""

    def __init__(self, leaves: int):
        self.sites: list[Site] = []
        self.constants: dict[int, tuple[int, Any]] = {}  # id -> (number among the leaves, the constant itself)
        self.opaque: list[str] = []
        self.loops: dict[Place, Loop] = {}
        self.whiles = 0  # those that a gradient would have to pass through
        self._leaves = leaves

    def body(
        self,
        body: Body,
        inputs: Sequence[Value],
        place: Place = (),
        loops: tuple[Loop, ...] = (),
        gradient: str = "",
    ) -> list[Value]:
        """Return what is known of the outputs of a body with these inputs."""
        known = dict(zip(body.program.constvars, map(self._constant, body.constants), strict=True))
        known.update(zip(body.program.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            return of_literal(atom) if isinstance(atom, Literal) else known[atom]

        for number, equation in enumerate(body.program.eqns):
            values = [read(atom) for atom in equation.invars]
            found = self._equation(equation, values, (*place, number), loops, gradient)
            known.update(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in body.program.outvars]

    def _constant(self, constant: Any) -> Value:
        shape, dtype = tuple(jnp.shape(constant)), jnp.result_type(constant)
        if not shape:
            return Value(shape, dtype)
        if id(constant) not in self.constants:
            self.constants[id(constant)] = (self._leaves + len(self.constants), constant)
        return Value(shape, dtype, source=Source(self.constants[id(constant)][0], tuple(range(len(shape)))))

    def _equation(
        self, equation: Any, values: list[Value], place: Place, loops: tuple[Loop, ...], gradient: str
    ) -> list[Value]:
        name = equation.primitive.name
        if name in LINEAR and any(value.data for value in values[:2]):
            return [self._site(equation, values, place, loops, gradient)]
        inner = called(equation)
        if name in INLINE and inner is not None:
            return self.body(inner, values, place, loops, gradient)
        if any(value.data for value in values):
            walk = {
                "scan": lambda: self._scan(equation, values, place, loops, gradient),
                "while": lambda: self._while(equation, values, place, loops),
                "cond": lambda: self._cond(equation, values, place, loops, gradient),
            }.get(name)
            if name in CUSTOM and inner is not None and has_linear(inner):
                walk = lambda: self._custom(inner, values, place, loops)
            if walk:
                found = walk()
                for value in {id(value): value for value in values}.values():
                    value.around.append(Use(place, equation, values, found))
                return found
            if any(has_linear(inner) for inner in _bodies(equation)):
                self.opaque.append(name)
        found = outputs_of(equation, values)
        use = Use(place, equation, values, found)
        for value in {id(value): value for value in values}.values():
            value.users.append(use)
        return found

    def _site(self, equation: Any, values: list[Value], place: Place, loops: tuple[Loop, ...], gradient: str) -> Value:
        lhs, rhs = values[:2]
        inputs = tuple(position for position, value in enumerate((lhs, rhs)) if value.data)
        operation = LINEAR[equation.primitive.name] if len(inputs) == 1 else "product"
        weights = values[1 - inputs[0]]
        if any(values[position].raw for position in inputs):
            raise ValueError(
                f"integers of the input enter a {operation} with weights {weights.shape} as they are; look them up in "
                "an embedding or convert them to a floating type before the model"
            )
        aval = equation.outvars[0].aval
        output = Value(tuple(aval.shape), aval.dtype, True, origins=frozenset([len(self.sites)]))
        if not gradient and not jnp.issubdtype(aval.dtype, jnp.inexact):
            gradient = "the output is of integers"
        fan_in, features = _geometry(equation, 1 - inputs[0])
        site = Site(
            *(len(self.sites), place, operation, loops, inputs, weights.source),
            *(values[inputs[0]].shape, weights.shape, fan_in),
            *(aval.dtype, features, output, (lhs.origins, rhs.origins), gradient),
        )
        for value in {id(value): value for value in (lhs, rhs)}.values():
            value.users.append(Use(place, equation, values, [output]))
        self.sites.append(site)
        return output

    def _again(self, walk: Any, carried: list[Value]) -> list[Value]:
        """Walk a loop's body until what is known of the carried values does not change; forget what was found."""
        for _ in range(2 * len(carried) + 1):
            kept = len(self.sites), len(self.opaque)
            after = walk([value.entering() for value in carried])
            del self.sites[kept[0] :], self.opaque[kept[1] :]
            merged = [joined(pair) for pair in zip(carried, after, strict=True)]
            if all(_same(a, b) for a, b in zip(carried, merged, strict=True)):
                break
            carried = merged
        return carried

    def _scan(
        self, equation: Any, values: list[Value], place: Place, loops: tuple[Loop, ...], gradient: str
    ) -> list[Value]:
        inner, (constants, carry) = called(equation), scan_parts(equation)
        assert inner is not None
        loop = Loop(place, equation.params["length"], equation.params["reverse"])
        self.loops[place] = loop
        fixed = [value.entering() for value in values[:constants]]
        slices = []
        for value in values[constants + carry :]:
            one = value.entering(value.shape[1:])
            one.source = taken(value.source, 0, loop=place)
            slices.append(one)

        def walk(carried: list[Value]) -> list[Value]:
            entering = [value.entering() for value in (*fixed, *carried, *slices)]
            found = self.body(inner, entering, place, (*loops, loop), gradient)
            for value in found:
                value.users.append(None)
            return found

        start = [value.entering() for value in values[constants : constants + carry]]
        for value in start:
            value.constant = None
        carried = self._again(lambda carried: walk(carried)[:carry], start)
        whiles, first = self.whiles, len(self.sites)
        found = walk(carried)
        if self.whiles > whiles:  # what follows it in one turn comes before it in the next
            for site in self.sites[first:]:
                site.gradient = site.gradient or NO_REVERSE
        _leaves_body(values)
        stacked = [value.entering((loop.length, *value.shape)) for value in found[carry:]]
        for value in stacked:
            value.source = None
        return [value.entering() for value in found[:carry]] + stacked

    def _while(self, equation: Any, values: list[Value], place: Place, loops: tuple[Loop, ...]) -> list[Value]:
        parameters = equation.params
        tests, constants = parameters["cond_nconsts"], parameters["body_nconsts"]
        inner = body_of(parameters["body_jaxpr"])

        def walk(carried: list[Value]) -> list[Value]:
            fixed = [value.entering() for value in values[tests : tests + constants]]
            found = self.body(inner, [*fixed, *carried], place, loops, NO_REVERSE)
            for value in found:
                value.users.append(None)
            return found

        start = [value.entering() for value in values[tests + constants :]]
        for value in start:
            value.constant = None
        carried = self._again(walk, start)
        found = walk([value.entering() for value in carried])
        _leaves_body(values)
        if any(value.data and jnp.issubdtype(value.dtype, jnp.inexact) for value in found):
            self.whiles += 1
            for site in self.sites:  # what came before it has no whole gradient either
                site.gradient = site.gradient or NO_REVERSE
        return [value.entering() for value in found]

    def _cond(
        self, equation: Any, values: list[Value], place: Place, loops: tuple[Loop, ...], gradient: str
    ) -> list[Value]:
        found = []
        for number, branch in enumerate(equation.params["branches"]):
            inputs = [value.entering() for value in values[1:]]
            found.append(self.body(body_of(branch), inputs, (*place, number), loops, gradient))
            for value in found[-1]:
                value.users.append(None)
        _leaves_body(values)
        outputs = [joined(options) for options in zip(*found, strict=True)]
        for value in outputs:
            value.data |= values[0].data
        return outputs

    def _custom(self, inner: Body, values: list[Value], place: Place, loops: tuple[Loop, ...]) -> list[Value]:
        """Walk what has a derivative of its own: the rule gives one to its inputs and outputs, not in between."""
        start = len(self.sites)
        inputs = [value.entering() for value in values]
        found = self.body(inner, inputs, place, loops, "it is inside of a function with its own derivative")
        for site in self.sites[start:]:
            if any(site.output is value for value in found) and len(found) == 1:
                site.gradient = ""
        _leaves_body(values)
        return found


def _leaves_body(values: Sequence[Value]) -> None:
    for value in values:
        value.users.append(None)


def _same(a: Value, b: Value) -> bool:
    return (a.data, a.source, a.raw, a.constant, a.origins) == (b.data, b.source, b.raw, b.constant, b.origins)


def _geometry(equation: Any, weights: int) -> tuple[int, tuple[int, ...]]:
    """Return fan_in, and the axes of the output that count units: those that come from the weights."""
    shapes = [atom.aval.shape for atom in equation.invars[:2]]
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "conv_general_dilated":
        kernel = numbers.rhs_spec
        shape = shapes[1]
        return math.prod(shape) // max(1, shape[kernel[0]]), (numbers.out_spec[1],)
    contracting, batch = numbers
    free = [
        [axis for axis in range(len(shape)) if axis not in contracting[side] and axis not in batch[side]]
        for side, shape in enumerate(shapes)
    ]
    first = len(batch[0]) + (len(free[0]) if weights == 1 else 0)
    fan_in = math.prod(shapes[weights][axis] for axis in contracting[weights])
    return fan_in, tuple(range(first, first + len(free[weights])))
