"""The statistics of a probe inside of a training loop: arrays, for use inside of jit, scan and cond."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgain.probing.measure import Statistics, finish
from jaxgain.probing.models import as_model, is_pytree_module
from jaxgain.probing.names import chains_of, rows_of
from jaxgain.probing.prepared import prepared

if TYPE_CHECKING:
    import xarray


class Monitor:
    """A function of what `monitor` was given, or others like it, that returns `Statistics`.

    `sites` has the names, `chains` those of sites that play the same part at other depths as one.
    """

    def __init__(
        self,
        model: Any,
        args: Sequence[Any],
        loss: Callable[[Any], Any] | None,
        cotangent: Any,
        data: Sequence[int] | None,
    ):
        ready = prepared(model, args, loss, cotangent, data)
        self._given, self._data, self._ready = model, data, ready
        self.sites: tuple[str, ...] = tuple(row.name for row in rows_of(ready.traced))
        self.chains: tuple[str, ...] = tuple(chains_of(self.sites))

    def __call__(self, *args: Any, when: Any = True) -> Statistics:
        """Return the statistics; NaN, and nothing is computed, where `when` is false: `when=step % 50 == 0`.

        The arguments are a module and its inputs, or, of a linen module, a Haiku transform or a function, what that
        takes. Raises ValueError where they are not shaped as those that the monitor was made with.
        """
        arrays = [*self._arrays(args), *self._ready.traced.arrays[len(self._ready.model.arrays) :]]
        if when is True:
            return self._measured(arrays)
        nothing = jax.eval_shape(self._measured, arrays)
        return jax.lax.cond(
            when,
            self._measured,
            lambda _: jax.tree.map(lambda spec: jnp.full(spec.shape, jnp.nan, spec.dtype), nothing),
            arrays,
        )

    def _arrays(self, args: Sequence[Any]) -> list[Any]:
        holds = is_pytree_module(self._given)
        given, rest = (args[0], args[1:]) if holds and args else (self._given, args)
        made = as_model(given, rest, self._data, check=False)
        kinds = [[(jnp.shape(array), array.dtype) for array in model.arrays] for model in (made, self._ready.model)]
        if kinds[0] != kinds[1]:
            wrong = next(iter(set(kinds[0]) ^ set(kinds[1])), "")
            raise ValueError(
                f"the monitor was made for arguments of other shapes or types; one of them has {wrong}: make another "
                "monitor for each"
            )
        return list(made.arrays)

    def _measured(self, arrays: list[Any]) -> Statistics:
        found = finish(self._ready.traced, self._ready.probed(arrays)[1])
        return Statistics(*(jnp.asarray(values, jnp.float32) for values in found))

    def dataset(
        self, monitored: Statistics | Sequence[Statistics], steps: Sequence[int] | None = None
    ) -> "xarray.Dataset":
        """Return what was measured over steps and sites as a labelled dataset, dims (step, site).

        `monitored` is a list, or one with a leading axis as `lax.scan` stacks it; `steps` their numbers, 0, 1, 2, …
        unless given. Steps at which nothing was measured, as `when` was false, are left out.

        Raises ValueError where `steps` are not as many.
        """
        import xarray

        from jaxgain.probing.report import LONG_NAMES

        if not isinstance(monitored, Statistics):
            monitored = Statistics(*(np.stack(part) for part in zip(*monitored, strict=True)))
        columns = {name: np.atleast_2d(np.asarray(values)) for name, values in monitored._asdict().items()}
        count = len(columns["rms_out"])
        numbers = np.arange(count) if steps is None else np.asarray(steps)
        if numbers.shape != (count,):
            raise ValueError(f"steps must be the numbers of {count} measurements, got {numbers.shape}")
        measured = ~np.all([np.isnan(values).all(axis=1) for values in columns.values()], axis=0)
        return xarray.Dataset(
            {
                name: (("step", "site"), values[measured], {"long_name": LONG_NAMES[name]})
                for name, values in columns.items()
            },
            coords={
                "step": numbers[measured],
                "site": np.arange(len(self.sites)),
                "name": ("site", list(self.sites)),
                "chain": ("site", list(self.chains)),
            },
            attrs=self._ready.attributes,
        )


def monitor(
    model: Any,
    *args: Any,
    loss: Callable[[Any], Any] | None = None,
    cotangent: Any = None,
    data: Sequence[int] | None = None,
) -> Monitor:
    """Return a function for a training loop of one's own, which returns what `probe` measures as arrays.

    The model is traced here, once; its arguments, and the errors raised, are those of `probe`. The result is called
    with what changes: `monitor(module, x)` for an nnx or Equinox module, and what the model itself takes for a
    linen module, a Haiku transform or a function; it may be called inside of jit, scan and cond. To see the gradient
    of a training loss with its labels, monitor the function that returns that loss: `monitor(loss_of, params, x, y)`.

    Called every 50 steps it added 5% of CPU time to the training of a GELU network of 50 layers of width 128, batch
    64, with Adam (`python -m experiments.probe_models` measures it).

    >>> import jax, jax.numpy as jnp, jaxgain as jg
    >>> def loss_of(weights, x, y):
    ...     return jnp.mean((jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0] - y) ** 2)
    >>> weights = jax.random.normal(jax.random.key(0), (5, 16, 16)) / 4
    >>> x, y = jax.random.normal(jax.random.key(1), (2, 8, 16))
    >>> monitor = jg.monitor(loss_of, weights, x, y)
    >>> def step(weights, number):
    ...     seen = monitor(weights, x, y, when=number % 10 == 0)
    ...     return weights - 0.1 * jax.grad(loss_of)(weights, x, y), seen
    >>> _, seen = jax.jit(lambda weights: jax.lax.scan(step, weights, jnp.arange(30)))(weights)
    >>> drift = monitor.dataset(seen)
    >>> drift["step"].values.tolist(), monitor.sites[-1], bool(drift["sigma_w"][0, 0] > 0.9)
    ([0, 10, 20], 'weights[4]', True)
    """
    return Monitor(model, args, loss, cotangent, data)
