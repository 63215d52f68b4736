"""Verdicts on the sites of a probed model, the theory's suggestion for each, and the check for test suites."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import xarray

VERDICTS = ("healthy", "vanishes", "explodes", "saturates", "dead", "near limit", "not run")


@dataclass(frozen=True)
class Limits:
    """Where a verdict begins.

    `vanishing` and `exploding` are factors: of a site's rms to that of the first site of its chain (the sites that
    play the same part at other depths) or to that of its own input; going back, of its gradient's rms to that of the
    last site of its chain. Between sites of no common chain signal and gradient may change by the squares of both,
    counted from the input of the first site and from the gradient of the last.
    `saturated` is a fraction of entries, `dead` a fraction of units. `margin` is the factor that must be left between
    the largest number and the largest that the format has, and between an rms and its smallest normal number.

    >>> Limits(vanishing=1e-4).exploding
    1000.0
    """

    vanishing: float = 1e-3
    exploding: float = 1e3
    saturated: float = 0.5
    dead: float = 0.9
    margin: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} must be a positive number, got {value!r}")
        for name in ("saturated", "dead"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is a fraction, at most 1, got {getattr(self, name)!r}")
        if not self.vanishing < 1 < self.exploding:
            raise ValueError(
                f"vanishing must be below 1 and exploding above, got {self.vanishing!r} and {self.exploding!r}"
            )


class Judgement(NamedTuple):
    """What is wrong with a site: one of `VERDICTS`, in which direction, and the numbers behind it."""

    verdict: str
    cause: str  # "signal", "gradient" or ""
    reason: str


HEALTHY = Judgement("healthy", "", "")


class Unhealthy(AssertionError):
    """A model with a site that does not pass its limits."""


def judge(report: "xarray.Dataset", limits: Limits) -> list[Judgement]:
    """Return a judgement for each site of a report, from its statistics and these limits."""
    rows = rows_in(report)
    ran = [row for row in rows if row["executed"]]
    gradients = [row["log_grad_output"] for row in ran if np.isfinite(row["log_grad_output"])]
    silent = {int(parent) for row in ran if row["weight_rms"] == 0 for parent in str(row["parents"]).split()}
    judgements = []
    for index, row in enumerate(rows):
        if not row["executed"]:
            judgements.append(Judgement("not run", "", "in a branch that was not taken"))
            continue
        chain = [other for other in ran if other["chain"] == row["chain"]]
        judgements.append(
            _of_activation(row, limits)
            or _of_signal(row, chain[0], ran[0], limits)
            or _of_gradient(row, chain[-1], gradients, limits, silent=index in silent)
            or _of_format(row, limits)
            or HEALTHY
        )
    return judgements


def rows_in(report: "xarray.Dataset") -> list[dict[str, Any]]:
    """Return the variables of a report, a dictionary per site."""
    columns = {str(name): report[name].values for name in report.variables if report[name].dims == ("site",)}
    return [{name: values[index] for name, values in columns.items()} for index in range(report.sizes["site"])]


def _of_activation(row: dict[str, Any], limits: Limits) -> Judgement | None:
    phi = row["activation"]
    if row["saturating"] and row["saturated"] >= limits.saturated:
        return Judgement("saturates", "signal", f"{phi} is flat at {row['saturated']:.0%} of its inputs")
    if row["dead"] >= limits.dead:
        return Judgement("dead", "signal", f"{phi} is flat for every input in {row['dead']:.0%} of the units")
    return None


def _of_signal(row: dict[str, Any], first: dict[str, Any], start: dict[str, Any], limits: Limits) -> Judgement | None:
    if row["nonfinite_out"] > 0 or row["nonfinite_in"] > 0:
        where = "output" if row["nonfinite_in"] == 0 else "input"
        fraction = row["nonfinite_out"] if where == "output" else row["nonfinite_in"]
        return Judgement("explodes", "signal", f"{fraction:.2g} of its {where} is not finite in {row['dtype']}")
    if row["rms_out"] == 0:
        if row["weight_rms"] == 0 and row["rms_in"] > 0:
            return None if row["log_grad_parameter"] > -np.inf else Judgement("dead", "signal", "its weights are 0")
        return Judgement("dead", "signal", "its output is 0 for every input")
    comparisons = [(row["rms_in"], "its input's", 1), (start["rms_in"], f"that of what enters {start['name']}", 2)]
    if first is not row:
        comparisons.insert(1, (first["rms_out"], f"that of {first['name']}", 1))
    for other, of, power in comparisons:
        ratio = row["rms_out"] / other if other > 0 else math.nan
        if ratio < limits.vanishing**power:
            return Judgement("vanishes", "signal", f"its rms is {ratio:.2g} × {of}")
        if ratio > limits.exploding**power:
            return Judgement("explodes", "signal", f"its rms is {ratio:.2g} × {of}")
    return None


def _of_gradient(
    row: dict[str, Any], last: dict[str, Any], gradients: Sequence[float], limits: Limits, *, silent: bool
) -> Judgement | None:
    log_rms = row["log_grad_output"]
    if row["nonfinite_grad"] > 0:
        return Judgement("explodes", "gradient", f"{row['nonfinite_grad']:.2g} of its gradient is not finite")
    if np.isnan(log_rms):
        return None
    if log_rms == -np.inf:
        # Weights that are 0 behind it let nothing back until they have learned something.
        return None if silent or not gradients else Judgement("vanishes", "gradient", "its gradient is 0")
    if not gradients:
        return None
    comparisons = [(gradients[-1], "the last one's", 2)]
    if last is not row and np.isfinite(last["log_grad_output"]):
        comparisons.insert(0, (last["log_grad_output"], f"that of {last['name']}", 1))
    for other, of, power in comparisons:
        ratio = log_rms - other
        if ratio < power * math.log(limits.vanishing):
            return Judgement("vanishes", "gradient", f"its gradient's rms is {_power(ratio)} × {of}")
        if ratio > power * math.log(limits.exploding):
            return Judgement("explodes", "gradient", f"its gradient's rms is {_power(ratio)} × {of}")
    return None


def _power(log: float) -> str:
    """Write e^log, which may be beyond any floating-point number."""
    if abs(log) < 9:
        return f"{math.exp(log):.2g}"
    exponent = math.floor(log / math.log(10))
    return f"{math.exp(log - exponent * math.log(10)):.1f}e{exponent:+d}"


def _of_format(row: dict[str, Any], limits: Limits) -> Judgement | None:
    largest, smallest = row["format_largest"], row["format_smallest"]
    for name, cause, of in (("max_out", "signal", "output"), ("max_grad", "gradient", "gradient")):
        if row[name] * limits.margin > largest:
            reason = f"its {of} reaches {row[name]:.3g}, and {row['dtype']} ends at {largest:.3g}"
            return Judgement("near limit", cause, reason)
    if 0 < row["rms_out"] < limits.margin * smallest:
        return Judgement("near limit", "signal", f"its rms is {row['rms_out']:.2g}; {_below(row)}")
    if -np.inf < row["log_grad_output"] < math.log(limits.margin * smallest):
        return Judgement(
            "near limit", "gradient", f"its gradient's rms is {_power(row['log_grad_output'])}; {_below(row)}"
        )
    return None


def _below(row: dict[str, Any]) -> str:
    return f"below {row['format_smallest']:.2g} {row['dtype']} loses digits"


def first_bad(judgements: Sequence[Judgement]) -> int | None:
    """Return the row where it begins: the first whose signal is bad, else the last whose gradient is.

    A gradient goes back from the loss, so that what spoils it is behind the last site that it is spoiled at.
    """
    signal = [index for index, found in enumerate(judgements) if found.cause == "signal"]
    gradient = [index for index, found in enumerate(judgements) if found.cause == "gradient"]
    return signal[0] if signal else gradient[-1] if gradient else None


@functools.cache
def _critical(name: str) -> tuple[float, float, str] | None:
    """Return the sigma_w and sigma_b that theory has for an activation, and what they are."""
    from jaxgain.theory.critical import critical_init

    found = critical_init(name)
    if found.init is None:
        return None
    return found.init.sigma_w, found.init.sigma_b, "critical" if found.kind != "none" else "closest to critical"


def suggestion(row: dict[str, Any], judgement: Judgement) -> str:
    """Return what to change at a site that is not healthy, "" where theory has nothing to say."""
    if judgement.verdict in ("healthy", "not run"):
        return ""
    if judgement.verdict == "near limit":
        other = "bfloat16 or float32" if row["dtype"] == "float16" else "float32"
        return other if judgement.cause == "signal" else f"{other}, or scale the loss"
    if not row["activation"] or np.isnan(row["sigma_w"]):
        return ""
    found = _critical(str(row["activation"]))
    if found is None:
        return ""
    sigma_w, sigma_b, kind = found
    sigma_w /= row["activation_scale"]
    wanted = f"σ_w {sigma_w:.4g}" + (f" with σ_b {sigma_b:.3g}" if sigma_b > 0 else "")
    now = row["sigma_w"]
    if abs(now / sigma_w - 1) > 0.1:
        return f"{wanted}, {kind} for {row['activation']} (now {now:.3g})"
    if sigma_b > 0:
        return f"{wanted}, {kind} for {row['activation']}"
    enters = f"mean {row['mean_in']:.2g}, rms {row['rms_in']:.2g}"
    return f"σ_w is {kind} for {row['activation']}: look at what enters ({enters})"


def assert_healthy(report: "xarray.Dataset", *, limits: Limits | None = None, ignore: Sequence[str] = ()) -> None:
    """Raise `Unhealthy`, an AssertionError, that names the first bad site of a probed model.

    `limits` are those of the verdicts, `jaxgain.Limits()` unless given; `ignore` holds names of sites, or beginnings
    of them, that may be as they are. Raises TypeError where `report` is not one of `probe`.

    >>> import jax, jax.numpy as jnp, jaxgain as jg
    >>> weights = jax.random.normal(jax.random.key(0), (20, 64, 64)) / 8
    >>> def mlp(weights, x):
    ...     return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]
    >>> x = jax.random.normal(jax.random.key(1), (8, 64))
    >>> jg.assert_healthy(jg.probe(mlp, weights, x))
    >>> jg.assert_healthy(jg.probe(mlp, 0.5 * weights, x))
    Traceback (most recent call last):
        ...
    jaxgain.probing.verdicts.Unhealthy: weights[11] vanishes: its rms is ...
    """
    if "log_grad_output" not in getattr(report, "variables", {}):
        raise TypeError(f"assert_healthy needs a report of jaxgain.probe, got {type(report).__name__}")
    names = [str(name) for name in report["name"].values]
    judgements = [
        HEALTHY if name.startswith(tuple(ignore)) else judgement
        for name, judgement in zip(names, judge(report, limits or Limits()), strict=True)
    ]
    bad = first_bad(judgements)
    if bad is None:
        return
    advice = suggestion(rows_in(report)[bad], judgements[bad])
    others = sum(found.cause != "" for found in judgements) - 1
    raise Unhealthy(
        f"{names[bad]} {described(judgements[bad])}{'; ' + advice if advice else ''}"
        + (f"; {others} more site{'s' * (others > 1)} not healthy" if others else "")
    )


def described(judgement: Judgement) -> str:
    """Return a judgement as the end of a sentence that begins with the site's name."""
    verb = {"dead": "is dead", "near limit": "is near the format's limit"}.get(judgement.verdict, judgement.verdict)
    return f"{verb}: {judgement.reason}"
