r"""What a sweep says, a row per activation and gain: means over seeds with standard errors, and a verdict.

The criteria of the verdict, over the depth that was run:

- the signal **explodes** where a value is not finite, or the std of the last layer is over 10 times that of
  the middle layer, or over 100 times that of the input;
- it **vanishes** where a seed has only zeros left, or that std is under 1/10 of the middle layer's, or under
  1/100 of the input's;
- it **saturates** where more than three quarters of the last layer's neurons sit where phi is flat (half of
  them do for every ReLU);
- it **merges** where the inputs have become one: their correlation at the last layer is over 0.999;
- it **survives** otherwise.
- The gradient **explodes** or **vanishes** where its rms at the input is over 10 times, or under 1/10, of
  that at the output, and **survives** in between. Where the signal is lost to overflow it is **unknown**.

The middle layer is at a tenth of the depth: the verdict is about the depth and not about the first layers.
"""

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import xarray

from jaxgain.propagation.config import SWEPT

FACTOR = 10.0
FIT = (0.1, 0.9)
FLAT = 0.75
MERGED = 0.999
SAME = 1e-6

# Bytes of a dataset that are looked at together.
SLAB = 2**26


def summarize(dataset: xarray.Dataset, *, middle: int | None = None) -> xarray.Dataset:
    r"""Reduce a sweep's dataset over seeds and layers.

    Args:
        dataset: of `jaxgain.sweep`, dims (activation, gain, seed, layer), perhaps (input).
        middle: the earlier of the two layers shown, or the recorded one after it; by default a tenth of the
            depth.

    Returns:
        A dataset over (activation, gain), plus any other swept dims:

        - `std_middle`, `std_end`, `correlation_end`: seed means at the middle and the last layer, of seeds
          that are finite there; `correlation_end` is that of the pre-activations, NaN with one input;
        - `log_growth`: slope of `log_grad_rms` per layer *going back*, least squares over layers from 10% to
          90% of the depth, per seed, then averaged; positive: the gradient explodes toward the input;
        - `efold` $= 1/|\mathrm{log\_growth}|$: layers over which the gradient changes by a factor e;
        - `log_gradient_change`: log of the gradient's rms at the input over that at the output;
        - each but `efold` with a standard error over seeds, `..._error`, NaN for a single seed;
        - `nonfinite`, `vanished`: how many seeds lost the signal that way, and the first layer where one did
          (`first_nonfinite`, `first_vanished`; -1 if none);
        - `signal`, `gradient`: the verdict in a word each; `verdict`: in a sentence.

        Statistics that were not recorded are NaN, and so is a gradient past an overflow. A gradient that is
        exactly zero has slope -inf. Attributes: those of `dataset`, and `middle_layer`, `last_layer`.

    Raises:
        ValueError: where `std` and `log_grad_rms` were both not recorded: there is nothing to say.
    """
    if "std" not in dataset and "log_grad_rms" not in dataset:
        raise ValueError("a summary needs the statistics std or log_grad_rms, and neither was recorded")
    return by_gains(lambda slab: _summarize(slab, middle), dataset)


def by_gains(reduce: Callable[[xarray.Dataset], xarray.Dataset], dataset: xarray.Dataset) -> xarray.Dataset:
    """Reduce a dataset over other dims than the gain, a few gains at a time where it is large.

    >>> large = xarray.Dataset({"std": (("gain", "seed"), np.ones((3, SLAB // 8)))})
    >>> by_gains(lambda slab: slab.sum("seed") / slab.sizes["gain"], large)["std"].values.tolist() == [SLAB / 8] * 3
    True
    """
    slabs = min(-(-dataset.nbytes // SLAB), dataset.sizes["gain"])
    if slabs <= 1:
        return reduce(dataset)
    edges = np.linspace(0, dataset.sizes["gain"], slabs + 1).astype(int).tolist()
    parts = [reduce(dataset.isel(gain=slice(*pair))) for pair in itertools.pairwise(edges)]
    return xarray.concat(parts, "gain", data_vars="minimal", coords="minimal", compat="override", join="exact")


def _summarize(dataset: xarray.Dataset, middle: int | None) -> xarray.Dataset:
    over = complete(dataset)
    last = int(over["layer"][-1])
    at_middle = over.sel(layer=max(1, last // 10) if middle is None else middle, method="backfill")
    middle = int(at_middle["layer"])
    at_start, at_middle, at_end = (at.drop_vars("layer") for at in (over.isel(layer=0), at_middle, over.isel(layer=-1)))
    change = at_start["log_grad_rms"] - at_end["log_grad_rms"]

    summary = xarray.Dataset(attrs=dataset.attrs)
    for name, values in {
        "std_middle": at_middle["std"],
        "std_end": at_end["std"],
        "correlation_end": at_end["correlation"],
        "log_growth": growth_per_layer(over["log_grad_rms"]),
        "log_gradient_change": change,
    }.items():
        summary[name], summary[f"{name}_error"] = mean_and_error(values)
    with np.errstate(divide="ignore"):
        summary["efold"] = 1 / abs(summary["log_growth"])
    for count, first in (("nonfinite", "first_nonfinite"), ("vanished", "first_vanished")):
        summary[count] = (over[first] >= 0).sum("seed")
        summary[first] = over[first].where(over[first] >= 0, np.iinfo(np.int32).max).min("seed")
        summary[first] = summary[first].where(summary[count] > 0, -1).astype(int)
    flat = mean_and_error(at_end["saturated"])[0] > FLAT
    summary["signal"] = _signal(summary, mean_and_error(at_start["std"])[0], flat)
    summary["gradient"] = _gradient(summary)
    summary["verdict"] = xarray.apply_ufunc(_sentence, summary["signal"], summary["gradient"], vectorize=True)
    return summary.assign_attrs(middle_layer=middle, last_layer=last)


def growth_per_layer(log_rms: xarray.DataArray) -> xarray.DataArray:
    r"""Slope of a log rms per layer going back, least squares over layers from 10% to 90% of the depth.

    $-\sum_l (l - \bar l)\, y_l / \sum_l (l - \bar l)^2$. -inf where a value in that range is -inf, NaN where
    one is NaN or fewer than two layers were recorded there.

    >>> layers = np.arange(101)
    >>> float(growth_per_layer(xarray.DataArray(0.5 * (100 - layers), {"layer": layers})))
    0.5
    """
    last = int(log_rms["layer"][-1])
    y = log_rms.sel(layer=slice(math.ceil(FIT[0] * last), math.floor(FIT[1] * last))).astype(float)
    if y.sizes["layer"] < 2:
        return xarray.full_like(log_rms.isel(layer=0, drop=True), np.nan, dtype=float)
    x = y["layer"] - y["layer"].mean()
    zero = (y == -np.inf).any("layer")
    slope = -(x * y.where(y != -np.inf, 0.0)).sum("layer", skipna=False) / (x**2).sum()
    return slope.where(~zero | slope.isnull(), -np.inf)


def mean_and_error(values: xarray.DataArray) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Mean over the seeds that are not NaN or +inf, and its standard error, NaN with fewer than two of them.

    A seed at -inf (the log of an exact zero) makes the mean -inf and the error NaN.

    >>> mean, error = mean_and_error(xarray.DataArray([1.0, 3.0, np.nan], dims="seed"))
    >>> float(mean), float(error)
    (2.0, 1.0)
    """
    values = values.astype(float).where(values < np.inf)
    zero = (values == -np.inf).any("seed")
    finite = values.where(values != -np.inf)
    count = finite.count("seed")
    mean = finite.sum("seed") / count.where(count > 0)
    variance = ((finite - mean) ** 2).sum("seed") / (count - 1).where(count > 1)
    error = (variance / count.where(count > 0)) ** 0.5
    return mean.where(~zero, -np.inf), error.where(~zero)


def gains_to_show(dataset: xarray.Dataset, activation: str, *, all_gains: bool = False) -> dict[float, str]:
    """Return the gains that tables show for an activation, with their names ("" for none), rising.

    They are the activation's own named gains and every gain given as a number; all of them with `all_gains`,
    or where the settings had ranges only. Gains that agree to `SAME` are one, under all their names.

    >>> names = [["", "forward", "centred", ""]]
    >>> coords = {"activation": ["selu"], "gain": [0.5, 1, 1 + 1e-9, 2]}
    >>> coords["gain_name"] = (("activation", "gain"), names)
    >>> dataset = xarray.Dataset(coords=coords, attrs={"config": '{"gains": ["named", "0.5:2:2"]}'})
    >>> gains_to_show(dataset, "selu")
    {1.0: 'forward, centred'}
    """
    given = [gain for gain in json.loads(dataset.attrs["config"])["gains"] if not isinstance(gain, str)]
    names = dict(zip(dataset["gain"].values, dataset["gain_name"].sel(activation=activation).values, strict=True))
    if activation in missing_bias(dataset):
        names = {gain: name.replace("critical", "critical*") for gain, name in names.items()}
    shown = {gain: name for gain, name in names.items() if name or np.isclose(gain, given, rtol=SAME, atol=0).any()}
    merged: dict[float, str] = {}
    for gain, name in (names if all_gains or not shown else shown).items():
        last = next(reversed(merged), -np.inf)
        if gain - last > SAME * gain:
            merged[float(gain)] = str(name)
        else:
            merged[last] = ", ".join(each for each in (merged[last], str(name)) if each)
    return merged


def missing_bias(dataset: xarray.Dataset) -> dict[str, float]:
    """Return the sigma_b, by activation, that a critical gain needs beside it and that this sweep did not have.

    >>> coords = {"activation": ["gelu", "relu"], "gain": [1.4], "critical_sigma_b": ("activation", [0.4158, 0.0])}
    >>> coords["gain_name"] = (("activation", "gain"), [["critical"], ["critical"]])
    >>> missing_bias(xarray.Dataset(coords=coords, attrs={"config": '{"sigma_b": 0.0}'}))
    {'gelu': 0.4158}
    """
    if "critical_sigma_b" not in dataset.coords:
        return {}
    common = json.loads(dataset.attrs["config"])["sigma_b"]
    given = dataset["own_sigma_b"].values if "own_sigma_b" in dataset.coords else [common] * dataset.sizes["activation"]
    named = ["critical" in ", ".join(names) for names in dataset["gain_name"].values.tolist()]
    rows = zip(dataset["activation"].values, dataset["critical_sigma_b"].values, given, named, strict=True)
    return {str(name): float(needed) for name, needed, has, is_named in rows if is_named and abs(needed - has) > 1e-3}


def in_rows(dataset: xarray.Dataset) -> xarray.Dataset:
    """Return the dataset with what is swept beside the gain unfolded along `activation`, a label for each.

    >>> std = xarray.DataArray([[0.1, 0.2]], {"activation": ["tanh"], "sigma_b": [0.0, 0.5]}, name="std")
    >>> in_rows(std.to_dataset())["activation"].values.tolist()
    ['tanh, sigma_b 0', 'tanh, sigma_b 0.5']
    """
    swept = [name for name in SWEPT if name in dataset.dims]
    if not swept:
        return dataset
    words = {name: _told_apart(dataset[name].values) for name in swept}
    rows = []
    for activation in dataset["activation"].values:
        for values in itertools.product(*(dataset[name].values for name in swept)):
            at = {name: value.item() for name, value in zip(swept, values, strict=True)}
            told = [f"{_SHORT.get(name, name)} {words[name][x]}" for name, x in at.items()]
            label = ", ".join([str(activation), *told])
            one = dataset.sel(activation=[activation]).sel(at).drop_vars(swept).assign_coords(activation=[label])
            own = {"own_sigma_b": ("activation", [at["sigma_b"]])} if "sigma_b" in at else {}
            rows.append(one.assign_coords(own))
    return xarray.combine_nested(rows, "activation", coords="minimal", join="exact", combine_attrs="override")


def _told_apart(values: np.ndarray) -> dict[float, str]:
    """Numbers in words, in few digits unless they need more.

    >>> list(_told_apart(np.array([2 / 3, 0.999999, 1.0])).values())
    ['0.6667', '0.999999', '1']
    """
    words = [f"{x:.10g}" if len(f"{x:.10g}") <= 8 else f"{x:.4g}" for x in values.tolist()]
    return dict(
        zip(values.tolist(), words if len(set(words)) == len(words) else map(repr, values.tolist()), strict=True)
    )


_SHORT = {"input_correlation": "input corr."}


def complete(dataset: xarray.Dataset) -> xarray.Dataset:
    """Return the dataset of the whole depth without an input axis, with NaN (or -1) for what was not recorded."""
    if "depth" in dataset.dims:
        dataset = dataset.isel(depth=-1, drop=True)
    dataset = dataset.drop_dims([name for name in ("other_input", "singular_value") if name in dataset.dims])
    if "input" in dataset.dims:
        dataset = dataset.mean("input")
    shape = xarray.zeros_like(dataset["std" if "std" in dataset else "log_grad_rms"], dtype=float)
    absent = {
        name: shape * np.nan for name in ("std", "correlation", "saturated", "log_grad_rms") if name not in dataset
    }
    firsts = {
        name: shape.isel(layer=0, drop=True).astype(int) - 1
        for name in ("first_nonfinite", "first_vanished")
        if name not in dataset
    }
    return dataset.assign(absent | firsts)


def _signal(summary: xarray.Dataset, std_start: xarray.DataArray, flat: xarray.DataArray) -> xarray.DataArray:
    end, middle = summary["std_end"], summary["std_middle"]
    exploded = (summary["nonfinite"] > 0) | (end > FACTOR * middle) | (end > FACTOR**2 * std_start)
    vanished = (summary["vanished"] > 0) | (end < middle / FACTOR) | (end < std_start / FACTOR**2)
    words = [
        (exploded, "explodes"),
        (vanished, "vanishes"),
        (end.isnull(), "unknown"),
        (flat, "saturates"),
        (summary["correlation_end"] > MERGED, "merges"),
    ]
    return _first_true(words, otherwise="survives")


def _gradient(summary: xarray.Dataset) -> xarray.DataArray:
    change = summary["log_gradient_change"]
    words = [
        ((summary["nonfinite"] > 0) | change.isnull(), "unknown"),
        (change > math.log(FACTOR), "explodes"),
        (change < -math.log(FACTOR), "vanishes"),
    ]
    return _first_true(words, otherwise="survives")


def _first_true(words: list[tuple[xarray.DataArray, str]], *, otherwise: str) -> xarray.DataArray:
    like = words[0][0]
    verdict = xarray.full_like(like, otherwise, dtype="<U9")
    for condition, word in reversed(words):
        verdict = verdict.where(~condition, word)
    return verdict


def _sentence(signal: str, gradient: str) -> str:
    if signal == gradient and signal != "unknown":
        return f"signal and gradient both {_PLURAL[signal]}"
    said = [f"the gradient {gradient}"] if gradient != "unknown" else []
    if signal != "unknown":
        said.insert(0, "the inputs merge into one" if signal == "merges" else f"the signal {signal}")
    return ", ".join(said) or "unknown"


_PLURAL = {"survives": "survive", "explodes": "explode", "vanishes": "vanish"}
