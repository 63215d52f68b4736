"""Rescale the weights of a model by what it does to data, so that its signal and its gradient keep their size."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jaxgain.probing.report import Report

# Rms on the main path, as powers of two in the order in which they are tried.
LADDER = (0, -1, -2, -3, -4, -5, -6, 1, 2, 3, 4)
OFF = 0.05


class Calibrated(NamedTuple):
    """What `calibrate` returns.

    `model` is what holds the parameters, with new values. `before` and `after` are reports of `probe`; in both
    `target` is the rms that each site's output was to have, NaN where the site was left as it is. `rms` is that of
    the main path. `spread` is the largest ratio of the gradient's rms between sites that play the same part at
    different depths and have outputs of the same shape. `off` names the sites that are farther than 5% from their
    target.
    """

    model: Any
    before: "Report"
    after: "Report"
    rms: float
    spread: float
    off: tuple[str, ...]


def calibrate(
    model: Any,
    *args: Any,
    target: float | str = "balance",
    leave: Sequence[str] | Callable[[str], bool] = (),
    spread: float = 2.0,
    loss: Callable[[Any], Any] | None = None,
    cotangent: Any = None,
    data: Sequence[int] | None = None,
    passes: int = 10,
) -> Calibrated:
    r"""Return the model with its weights rescaled so that every linear operation's output has the rms wanted of it.

    A pass goes through the program once and brings each site's output to its target, after all sites before it have
    been: layer-sequential unit variance (Mishkin & Matas, 2016), without its orthogonal weights, and for any model
    that `probe` takes. Weights are multiplied by one number each, or one for each turn of a scan over a stack; biases
    and norms stay. Weights that several sites share get the scale that fits best, in as many passes as that takes.

    With `target` a number t, outputs on the main path and inside of residual branches have rms t, and those of the n
    sites that end a branch, so that they are added to what enters it, $t/\sqrt n$: the sum of all branches is then of
    the order of t. With "balance" the gradient counts too: t is the nearest to 1, smaller ones first, for which its
    rms changes by less than the factor `spread` between sites that play the same part. At rms t the weights that keep
    the length let the mean square of the gradient grow by

    $$\chi_\perp = \frac{t^2 E \phi'(tz)^2}{E \phi(tz)^2}$$

    per layer: 1 for ReLU at any t, 1.07 for GELU and 1.18 for tanh at t = 1, and 1 for both as t goes to 0, where they
    are linear. Where no t keeps the gradient (networks of sigmoids, very deep or narrow ones), the one with the least
    spread is taken: look at `spread` of the result. What the readout does to the gradient is part of it only
    where it has the shape of other layers.

    The arguments are those of `probe`; `leave` has names of sites, or beginnings of them, whose weights stay as they
    are, or is a function that is true of such names. Weights stay, too, that are zero, of integers, closed over by the
    function, or inside of a while loop.

    Returns `Calibrated`; its `model` is a new nnx or Equinox module, or the variables, parameters or first
    arguments that a linen module, a Haiku transform or a function was given. What was given is not changed.

    Raises ValueError where `target`, `spread` or `passes` is no positive number, `leave` fits no site, or no weight
    is left that could be rescaled; and what `probe` raises.

    >>> import jax, jax.numpy as jnp, jaxgain as jg
    >>> def mlp(weights, x):
    ...     return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]
    >>> weights = jax.random.normal(jax.random.key(0), (30, 64, 64))
    >>> x = jax.random.normal(jax.random.key(1), (128, 64))
    >>> found = jg.calibrate(mlp, weights, x, target=0.5)
    >>> round(float(found.before["rms_out"][-1])), found.after["rms_out"].round(3)[[0, 10, 29]].values.tolist()
    (8, [0.5, 0.5, 0.5])
    >>> scale = found.model[0, 0, 0] / weights[0, 0, 0]
    >>> found.model.shape, bool(jnp.allclose(found.model[0], scale * weights[0], rtol=1e-5))
    ((30, 64, 64), True)
    """
    import numpy as np

    from jaxgain.probing.calibration import Calibration
    from jaxgain.probing.prepared import prepared

    _check(target, spread, passes)
    work = Calibration(model, prepared(model, args, loss, cotangent, data), leave)
    if isinstance(target, str):
        best = None
        for power in LADDER:
            tried = work.at(2.0**power, passes)
            best = tried if best is None or tried.spread < best.spread else best
            if tried.spread < spread:
                best = tried
                break
        assert best is not None
    else:
        best = work.at(float(target), passes)
    before, after = (work.report(s, best.targets) for s in (work.statistics(work.traced.arrays), best.statistics))
    with np.errstate(invalid="ignore"):
        off = np.abs(after["rms_out"].values / best.targets - 1) > OFF
    names = tuple(name for name, is_off in zip(work.names, off, strict=True) if is_off)
    return Calibrated(work.rebuilt(best.arrays), before, after, best.rms, best.spread, names)


def _check(target: float | str, spread: float, passes: int) -> None:
    if isinstance(target, str):
        if target != "balance":
            raise ValueError(f"target must be 'balance' or an rms, got {target!r}")
    elif not (isinstance(target, (int, float)) and math.isfinite(target) and target > 0):
        raise ValueError(f"target must be 'balance' or an rms, a positive number, got {target!r}")
    if not (isinstance(spread, (int, float)) and spread > 1):
        raise ValueError(f"spread is a factor, above 1, got {spread!r}")
    if not (isinstance(passes, int) and passes >= 1):
        raise ValueError(f"passes must be a whole number, at least 1, got {passes!r}")
