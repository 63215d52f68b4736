"""The traced program run with statistics: the same operations in the same order, and what each site says."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import eval_jaxpr
from jax.extend.core import Literal

from jaxgain.probing.sites import CUSTOM, INLINE, Body, Site, body_of, called, scan_parts
from jaxgain.probing.statistics import ROWS, SUMS, Forward, flat, gram, real, sums, tap, working
from jaxgain.probing.trace import Traced
from jaxgain.probing.values import Place

Record = dict[int, Forward]
Flat = dict[int, Array]
Tokens = dict[int, Array]


class Recorded(NamedTuple):
    """What the sites inside of a body have recorded."""

    sites: Record
    flat: Flat


def tokens(traced: Traced) -> Tokens:
    """Return zeros, a few for every turn of every site: the derivative with respect to them are its sums."""
    return {
        site.index: jnp.zeros((*(loop.length for loop in site.loops), SUMS + 1), working(site.dtype))
        for site in traced.sites
        if not site.gradient
    }


def run(traced: Traced, arrays: Sequence[Any], taps: Tokens) -> tuple[list[Any], Record]:
    """Return the model's outputs, flat, and the statistics of its sites going forward."""
    runner = Runner(traced, arrays)
    recorded = Recorded({}, {})
    inputs = arrays[: len(traced.body.program.invars)]
    outputs = runner.body(traced.body, inputs, (), taps, recorded)
    return outputs, _with_flat(recorded)


def _with_flat(recorded: Recorded) -> Record:
    return {
        index: forward._replace(flat=recorded.flat[index]) if index in recorded.flat else forward
        for index, forward in recorded.sites.items()
    }


class Runner:
    """Runs a body equation by equation; what is done at a site is `_site`'s business."""

    def __init__(self, traced: Traced, arrays: Sequence[Any]):
        self.traced, self.arrays = traced, arrays
        self.sites = {site.place: site for site in traced.sites}
        self.inside = {site.place[:depth] for site in traced.sites for depth in range(len(site.place))}
        self.points: dict[Place, list[Site]] = {}
        for site, activation in zip(traced.sites, traced.activations, strict=True):
            if activation is not None:
                self.points.setdefault(activation.place, []).append(site)
        self.rows = max((min(batch.size, ROWS) for batch in traced.batches if batch is not None), default=1)
        self.seen: dict[tuple[Any, int], tuple[Any, Any]] = {}

    def body(self, body: Body, inputs: Sequence[Any], place: Place, taps: Tokens, recorded: Recorded) -> list[Any]:
        """Return the outputs of a body, and add to `recorded` what its sites say."""
        known = dict(zip(body.program.constvars, map(self._constant, body.constants), strict=True))
        known.update(zip(body.program.invars, inputs, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else known[atom]

        for number, equation in enumerate(body.program.eqns):
            here = (*place, number)
            values = [read(atom) for atom in equation.invars]
            outputs = self._equation(equation, values, here, taps, recorded)
            known.update(zip(equation.outvars, outputs, strict=True))
            for site in self.points.get(here, ()):
                recorded.flat[site.index] = self._flat(site, outputs[0])
        return [read(atom) for atom in body.program.outvars]

    def _constant(self, constant: Any) -> Any:
        number = self.traced.constants.get(id(constant))
        return constant if number is None else self.arrays[number]

    def _equation(self, equation: Any, values: list[Any], place: Place, taps: Tokens, recorded: Recorded) -> list[Any]:
        if place in self.sites:
            output = bind(equation, values)[0]
            return [self._site(self.sites[place], values, output, taps, recorded)]
        if place not in self.inside:
            return bind(equation, values)
        name = equation.primitive.name
        if name in INLINE:
            return self._call(equation, values, place, taps, recorded)
        if name in CUSTOM:
            return self._custom(equation, values, place, taps, recorded)
        return {"scan": self._scan, "while": self._while, "cond": self._cond}[name](
            equation, values, place, taps, recorded
        )

    def _site(self, site: Site, values: list[Any], output: Array, taps: Tokens, recorded: Recorded) -> Array:
        kind = working(output.dtype)
        weights, shift = jnp.full(SUMS, jnp.nan, kind), jnp.full((), jnp.nan, kind)
        if site.operation != "product":
            weights, shift = self._once(_of_weights, values[1 - site.inputs[0]])
        held = lax.stop_gradient(output)
        leaving = sums(held)
        recorded.sites[site.index] = jax.tree.map(
            lambda x: x.astype(kind),
            Forward(
                entering=self._once(sums, values[site.inputs[0]]),
                leaving=leaving,
                weights=weights,
                shift=shift,
                gram=self._gram(site, held, leaving[-1]),
                flat=jnp.full(2, jnp.nan, kind),
                executed=jnp.ones((), kind),
            ),
        )
        return tap(output, taps[site.index]) if site.index in taps else output

    def _gram(self, site: Site, output: Array, largest: Array) -> Array:
        batch = self.traced.batches[site.index]
        if batch is None:
            return jnp.full((self.rows, self.rows), jnp.nan, largest.dtype)
        return gram(output, largest, batch.axis, batch.size)

    def _once(self, statistic: Any, value: Any) -> Any:
        """Take a statistic of an array that several sites share once."""
        key = (statistic, id(value))
        if key not in self.seen:
            self.seen[key] = (value, statistic(lax.stop_gradient(value)))  # the array is held: its id stays its own
        return self.seen[key][1]

    def _flat(self, site: Site, z: Array) -> Array:
        ends = self.traced.flat[site.index]
        assert ends is not None
        units = site.features if z.shape == site.output.shape else (z.ndim - 1,)
        return flat(lax.stop_gradient(z), *ends, units).astype(working(site.dtype))

    def _call(self, equation: Any, values: list[Any], place: Place, taps: Tokens, recorded: Recorded) -> list[Any]:
        inner = called(equation)
        assert inner is not None
        if not equation.primitive.name.startswith(("remat", "checkpoint")):
            return self.body(inner, values, place, taps, recorded)

        def once_more(values: list[Any], taps: Tokens) -> tuple[list[Any], Recorded]:
            found = Recorded({}, {})
            return self._in_body(inner, values, place, taps, found), found

        parameters = equation.params
        again = jax.checkpoint(once_more, policy=parameters["policy"], prevent_cse=parameters["prevent_cse"])
        outputs, found = again(values, self._below(place, taps))
        _add(recorded, found)
        return outputs

    def _in_body(self, body: Body, inputs: Sequence[Any], place: Place, taps: Tokens, recorded: Recorded) -> list[Any]:
        """Run a body that is traced on its own: what was computed outside of it is not shared with it."""
        outside, self.seen = self.seen, {}
        try:
            return self.body(body, inputs, place, taps, recorded)
        finally:
            self.seen = outside

    def _below(self, place: Place, taps: Tokens) -> Tokens:
        depth = len(place)
        return {index: token for index, token in taps.items() if self.traced.sites[index].place[:depth] == place}

    def _custom(self, equation: Any, values: list[Any], place: Place, taps: Tokens, recorded: Recorded) -> list[Any]:
        """Keep the derivative that the function brings, and look at a second copy of what is inside of it."""
        inner, found = called(equation), Recorded({}, {})
        assert inner is not None
        held = [lax.stop_gradient(value) for value in values]
        self._in_body(inner, held, place, {}, found)
        _add(recorded, found)
        outputs = bind(equation, values)
        for index, token in self._below(place, taps).items():  # the one site whose output is the function's own
            assert self.traced.sites[index].index == index
            outputs = [tap(outputs[0], token)]
        return outputs

    def _scan(self, equation: Any, values: list[Any], place: Place, taps: Tokens, recorded: Recorded) -> list[Any]:
        inner, (constants, carry), parameters = called(equation), scan_parts(equation), equation.params
        assert inner is not None
        fixed = values[:constants]

        def turn(carried: list[Any], slices: tuple[list[Any], Tokens]) -> tuple[list[Any], tuple[list[Any], Recorded]]:
            found = Recorded({}, {})
            outputs = self._in_body(inner, [*fixed, *carried, *slices[0]], place, slices[1], found)
            return outputs[:carry], (outputs[carry:], found)

        optional = {key: parameters[key] for key in ("_split_transpose",) if key in parameters}
        carried, (stacked, found) = lax.scan(
            turn,
            values[constants : constants + carry],
            (values[constants + carry :], self._below(place, taps)),
            length=parameters["length"],
            reverse=parameters["reverse"],
            unroll=parameters["unroll"],
            **optional,
        )
        _add(recorded, found)
        return [*carried, *stacked]

    def _while(self, equation: Any, values: list[Any], place: Place, taps: Tokens, recorded: Recorded) -> list[Any]:
        """Keep the statistics of the last turn; no derivative passes, as reverse mode does not through a while loop."""
        parameters = equation.params
        tests, constants = parameters["cond_nconsts"], parameters["body_nconsts"]
        values = [lax.stop_gradient(value) for value in values]
        for_test, fixed, start = values[:tests], values[tests : tests + constants], values[tests + constants :]
        test, inner = body_of(parameters["cond_jaxpr"]), body_of(parameters["body_jaxpr"])

        def turn(carried: list[Any]) -> tuple[list[Any], Recorded]:
            found = Recorded({}, {})
            outputs = self._in_body(inner, [*fixed, *carried], place, {}, found)
            return outputs, found

        def go_on(state: tuple[list[Any], Recorded]) -> Array:
            plain = eval_jaxpr(test.program, test.constants, *for_test, *state[0])
            return plain[0]

        nothing = _nothing(jax.eval_shape(lambda carried: turn(carried)[1], start))
        outputs, found = lax.while_loop(go_on, lambda state: turn(state[0]), (start, nothing))
        _add(recorded, found)
        return list(outputs)

    def _cond(self, equation: Any, values: list[Any], place: Place, taps: Tokens, recorded: Recorded) -> list[Any]:
        """Run the branch taken; the sites of the others say NaN, and `executed` 0."""
        bodies = [body_of(branch) for branch in equation.params["branches"]]
        below = self._below(place, taps)

        def run_branch(number: int, values: list[Any], taps: Tokens) -> tuple[list[Any], Recorded]:
            found = Recorded({}, {})
            return self._in_body(bodies[number], values, (*place, number), taps, found), found

        operands = values[1:]
        shapes = [
            jax.eval_shape(lambda values, taps, number=number: run_branch(number, values, taps)[1], operands, below)
            for number in range(len(bodies))
        ]

        def branch(number: int) -> Any:
            def of(values: list[Any], taps: Tokens) -> tuple[list[Any], Recorded]:
                outputs, found = run_branch(number, values, taps)
                for other, shape in enumerate(shapes):
                    if other != number:
                        _add(found, _nothing(shape))
                return outputs, found

            return of

        outputs, found = lax.switch(values[0], [branch(number) for number in range(len(bodies))], operands, below)
        _add(recorded, found)
        return outputs


def _of_weights(weights: Array) -> tuple[Array, Array]:
    """Return the sums of the weights less the first of them, and that one."""
    weights = real(weights)
    shift = weights[(0,) * weights.ndim]
    return sums(weights - shift), shift


def _add(recorded: Recorded, found: Recorded) -> None:
    recorded.sites.update(found.sites)
    recorded.flat.update(found.flat)


def _nothing(shapes: Any) -> Any:
    """Return NaN for every statistic, and 0 for `executed`."""
    empty = jax.tree.map(lambda spec: jnp.full(spec.shape, jnp.nan, spec.dtype), shapes)
    for index, forward in empty.sites.items():
        empty.sites[index] = forward._replace(executed=jnp.zeros_like(forward.executed))
    return empty


def bind(equation: Any, values: Sequence[Any]) -> list[Any]:
    """Evaluate one equation as it is."""
    found = equation.primitive.get_bind_params(equation.params)
    functions, parameters = found if isinstance(found, tuple) else ((), found)
    with equation.ctx.manager:
        outputs = equation.primitive.bind(*functions, *values, **parameters)
    return list(outputs) if equation.primitive.multiple_results else [outputs]
