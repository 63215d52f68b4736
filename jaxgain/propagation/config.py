"""`SweepConfig`, the settings of a sweep, validated once: the Python call, the flags and the hash alike.

Imports neither jax nor numpy, so that the command line can show it at once.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Optional, get_args

from jaxgain.propagation.settings import (
    GAIN_KINDS,
    LARGEST,
    MORE_STATISTICS,
    NAMED,
    STATISTICS,
    Words,
    activations_of,
    block_digest,
    check_choice,
    count_of,
    counts_of,
    depths_of,
    gains_of,
    initializer_digest,
    initializer_of,
    label_of,
    number_of,
    numbers_of,
    profile_of,
    read_gains,
    real_of,
    seed_of,
    statistics_of,
)

__all__ = ["GAIN_KINDS", "MORE_STATISTICS", "STATISTICS", "SweepConfig", "Words", "read_gains"]

_DISTRIBUTIONS = Literal["normal", "uniform", "truncated_normal", "orthogonal", "sparse"]
_BLOCKS = Literal["plain", "residual", "prenorm", "postnorm", "batchnorm"]

if TYPE_CHECKING:  # what Python accepts
    Activations = Sequence[str | Callable[..., Any]]
    Gains = Sequence[float | str]
    Statistics = Sequence[str]
    Depths = Sequence[int | str]
    Numbers = Any  # a number, words for one, or several; once checked a float, a tuple or None
    Counts = Any  # a whole number or several
    Distribution = str | Callable[..., Any]
    Block = str | Callable[..., Any]
else:
    Activations = Gains = Statistics = Depths = Numbers = Counts = Words
    Distribution, Block = _DISTRIBUTIONS, _BLOCKS

Weights = Literal["matrix_free", "dense"]
Cotangent = Literal["random", "sum"]
Mode = Literal["fan_in", "fan_out", "fan_avg"]
Branch = Literal["one_layer", "two_layer", "glu", "glu_ffn"]
Norm = Literal["layernorm", "rmsnorm"]
Precision = Literal["float32", "bfloat16", "float16"]

SWEPT = {
    "width": "neurons per layer",
    "sigma_b": "σ_b: standard deviation of the biases",
    "alpha": "α: what multiplies the branch",
    "input_correlation": "cosine between input 1 and each other input",
}
"""What may be swept beside activations and gains, in the order of a dataset's dims, and what it is."""


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

    sigma_b: Numbers = Words((0.0,))
    """Standard deviation of the biases, in units of the pre-activation; several, such as 0 0.1 0.2, are swept."""

    width: Counts = Words((1000,))
    """Neurons per layer, and per input vector; or the widths of the input and of every layer, depth + 1 numbers."""

    widths: Counts = Words(())
    """Widths to sweep, in the place of width."""

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

    input_correlation: Numbers = Words(())
    """Exact cosine between input 1 and each other input, from -1 to 1; several are swept; none: drawn independently."""

    weights: Weights = "matrix_free"
    """matrix_free samples what a random matrix does to the signal, exactly in law; dense draws it."""

    distribution: Distribution = "normal"
    """Distribution of the weights; matrix_free has normal and orthogonal (Haar). In Python also an initializer
    (key, shape (fan_in, fan_out), dtype), whose weights the gain multiplies."""

    sparsity: float = 0.9
    """Probability of a weight to be zero, of the distribution sparse, which keeps its variance."""

    mode: Mode = "fan_in"
    """By what sigma_w**2 is divided, where widths differ; fan_avg is that of Xavier."""

    tied: bool = False
    """One matrix and one bias for all layers; dense only."""

    first_gain: Optional[float] = None  # noqa: UP045 (the command line reads `| None` slowly)
    """sigma_w of the first layer, in the place of the gain."""

    readout_gain: Optional[float] = None  # noqa: UP045
    """sigma_w of the last layer, in the place of the gain."""

    layer_gains: Numbers = Words(())
    """What multiplies the gain in each layer, depth numbers."""

    block: Block = "plain"
    """How a layer is made: plain is the branch itself, residual h + alpha branch(h), prenorm and postnorm have a norm
    before the branch or after the sum, batchnorm one over the inputs before phi. In Python also a function of yours,
    block(linear, phi, h)."""

    branch: Branch = "one_layer"
    """What a layer does: one_layer is phi(W h), two_layer V phi(W h) with a unit V, glu the gated phi(W h) * (V h),
    glu_ffn a unit map of that."""

    norm: Norm = "layernorm"
    """Norm of prenorm and postnorm."""

    alpha: Numbers = Words((1.0,))
    """What multiplies the branch of residual, prenorm and postnorm: numbers, or rules such as 1/sqrt(L) in the depth L;
    several are swept."""

    dropout: float = 0.0
    """Probability of an activation to be dropped."""

    dtype: Precision = "float32"
    """Type of weights, activations and gradients; dense only below float32. Statistics are float32."""

    draw_dtype: Precision = "float32"
    """Type in which weights are drawn, before they are scaled and cast; dense only below float32."""

    cotangent: Cotangent = "random"
    """Gradient at the output: random is normal with unit variance, sum is that of the sum of the outputs."""

    directions: int = 1
    """Orthonormal directions per input along which the Jacobian is followed; with the width, all of it."""

    statistics: Statistics = Words(STATISTICS)
    """Statistics to record, by name; beside the default ones there are correlations, log_one_minus_correlations,
    effective_rank, grad_correlation, grad_alignment, and of the Jacobian log_jacobian_second_moment,
    log_largest_singular_value, log_singular_values."""

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
        put = partial(object.__setattr__, self)
        put("activations", Words(activations_of(self.activations)))
        put("gains", Words(gains_of(self.gains)))
        put("statistics", Words(statistics_of(self.statistics)))
        for name, (least, meaning) in _COUNTS.items():
            put(name, count_of(name, getattr(self, name), least, meaning))
        put("seed", seed_of(self.seed))
        for name, (legal, expected) in _REALS.items():
            if getattr(self, name) is not None or name not in _OPTIONAL:
                put(name, real_of(name, number_of(name, getattr(self, name)), legal, expected))
        put("depths", Words(depths_of(self.depths, self.depth)))
        for name, choices in _CHOICES.items():
            if not (name in ("distribution", "block") and callable(getattr(self, name))):
                check_choice(name, getattr(self, name), get_args(choices))
        for name in ("keep_inputs", "tied"):
            if type(getattr(self, name)) is not bool:
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.record_every > self.depth:
            raise ValueError(f"record_every must be at most the depth, {self.depth}, got {self.record_every}")
        self._check_sizes()
        self._check_numbers()
        self._check_weights()
        self._check_used()

    def _check_sizes(self) -> None:
        put = partial(object.__setattr__, self)
        width = counts_of("width", self.width, 1, "counts the neurons of a layer")
        if isinstance(width, tuple) and len(width) != self.depth + 1:
            raise ValueError(
                f"width must be one number, or depth + 1 = {self.depth + 1} of them, input first, got {len(width)}; "
                "to sweep widths use widths"
            )
        if isinstance(width, tuple) and len(set(width)) == 1:
            width = width[0]
        if width is None:
            raise ValueError("width must not be empty; give the neurons of a layer")
        swept = counts_of("widths", self.widths, 1, "are the neurons of a layer, to be swept")
        swept = (swept,) if isinstance(swept, int) else swept or ()
        if len(set(swept)) < len(swept):
            raise ValueError(f"widths must differ, got {swept}")
        put("widths", Words(sorted(swept)))
        put("width", max(swept) if swept else width)
        if isinstance(width, tuple) and self.block in ("residual", "prenorm", "postnorm"):
            raise ValueError(
                f"block {self.block!r} adds a layer's input to its output, so all widths must be equal, got {width}; "
                "use one width, or block='plain'"
            )
        if isinstance(width, tuple) and (self.tied or self.widths):
            other = "tied weights are one matrix" if self.tied else "widths are swept one by one"
            raise ValueError(f"{other}, so width must be one number, got {width}")
        if isinstance(width, tuple) and self.depths:
            raise ValueError("depths need one width, as a cotangent of one width starts from each; leave depths out")
        if self.block == "batchnorm" and self.inputs < 2:
            raise ValueError(f"batchnorm needs at least 2 inputs to normalize over, got inputs={self.inputs}")
        if self.directions > self.smallest_width():
            raise ValueError(f"directions must be at most the width, {self.smallest_width()}, got {self.directions}")

    def _check_numbers(self) -> None:
        put = partial(object.__setattr__, self)
        sigma_b = numbers_of("sigma_b", self.sigma_b, lambda value: 0 <= value <= LARGEST, _STANDARD_DEVIATION)
        if sigma_b is None:
            raise ValueError("sigma_b must not be empty; 0 is no bias")
        put("sigma_b", sigma_b)
        alpha = numbers_of("alpha", self.alpha, math.isfinite, "finite", L=self.depth)
        if alpha is None:
            raise ValueError("alpha must not be empty; 1 is the plain sum")
        if alpha != 1 and self.block not in ("residual", "prenorm", "postnorm"):
            raise ValueError(f"alpha multiplies the branch of a residual block, and block is {self.block!r}")
        given = [self.alpha] if not isinstance(self.alpha, (tuple, list)) else list(self.alpha)
        if self.depths and (self.readout_gain is not None or any("L" in str(each) for each in given)):
            raise ValueError(
                "depths are networks that end there: leave out readout_gain and rules for alpha, or depths"
            )
        put("alpha", alpha)
        cosine = numbers_of("input_correlation", self.input_correlation, *_CORRELATION)
        if cosine is not None and self.inputs < 2:
            raise ValueError(f"input_correlation needs at least 2 inputs, got inputs={self.inputs}; set inputs=2")
        if cosine is not None and self.smallest_width() == 1 and cosine not in (-1, 1, (-1, 1)):
            raise ValueError(f"two numbers (width 1) have correlation 1 or -1, got input_correlation={cosine!r}")
        put("input_correlation", cosine)
        put("layer_gains", profile_of("layer_gains", self.layer_gains, self.depth))

    def _check_weights(self) -> None:
        if callable(self.distribution):
            initializer_of(self.distribution, self._first_widths(), self.draw_dtype)
        if self.weights == "dense":
            return
        name = "an initializer" if callable(self.distribution) else self.distribution
        if name not in ("normal", "orthogonal"):
            raise ValueError(f"matrix_free weights are normal or orthogonal, got {name}; use weights='dense'")
        for field, default in (("tied", False), ("dtype", "float32"), ("draw_dtype", "float32")):
            if getattr(self, field) != default:
                raise ValueError(
                    f"{field} = {getattr(self, field)!r} needs the matrices themselves; use weights='dense'"
                )

    def _check_used(self) -> None:
        """Refuse what would change nothing: whoever set it expects a difference."""
        normalized = self.block in ("prenorm", "postnorm")
        unused = {
            "mode": callable(self.distribution) and "an initializer brings its own scale",
            "sparsity": self.distribution != "sparse" and "it is of the distribution 'sparse'",
            "norm": not normalized and "it is of the blocks 'prenorm' and 'postnorm'",
            "branch": callable(self.block) and "a block of yours is all of a layer",
        }
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, why in unused.items():
            if why and getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} = {getattr(self, name)!r} would change nothing: {why}; leave it out")
        if self.depth == 1 and None not in (self.first_gain, self.readout_gain):
            raise ValueError("first_gain and readout_gain are of the same layer where depth is 1; give one of them")

    def _first_widths(self) -> tuple[int, int]:
        return (self.width, self.width) if isinstance(self.width, int) else self.width[:2]

    def smallest_width(self) -> int:
        """The fewest neurons of a layer, over all widths that are swept."""
        widths = self.widths or (self.width if isinstance(self.width, tuple) else (self.width,))
        return min(widths)

    def swept(self) -> dict[str, tuple[float, ...]]:
        """The values of each of `SWEPT` that has several, or was given as several.

        >>> SweepConfig(sigma_b=(0, 0.1), widths=(10, 20)).swept()
        {'width': (10, 20), 'sigma_b': (0.0, 0.1)}
        """
        found = {name: getattr(self, "widths" if name == "width" else name) for name in SWEPT}
        return {name: values for name, values in found.items() if isinstance(values, tuple) and values}

    def activation_names(self) -> tuple[str, ...]:
        """Labels of the activations, in order, for a dataset's `activation` coordinate."""
        return tuple(label_of(phi) for phi in self.activations)

    def to_json(self) -> str:
        """The settings as canonical JSON: sorted keys, no spaces, callables by their label.

        >>> json.loads(SweepConfig(gains=("5/3", "forward")).to_json())["gains"]
        [1.6666666666666667, 'forward']
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["activations"] = self.activation_names()
        if callable(self.distribution):
            fields["distribution"] = initializer_digest(self.distribution, self._first_widths(), self.draw_dtype)
        if callable(self.block):
            fields["block"] = block_digest(self.block, self.inputs, self._first_widths(), self.dtype)
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def hash(self) -> str:
        """SHA-256, in hexadecimal, of the settings that change a result: all but `memory`.

        >>> SweepConfig(gains=["5/3"]).hash() == SweepConfig(gains=(5 / 3,), memory=1.0).hash()
        True
        """
        fields = {key: value for key, value in json.loads(self.to_json()).items() if key != "memory"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


_STANDARD_DEVIATION = "finite and at least 0, a standard deviation"
_CORRELATION: tuple[Callable[[float], bool], str] = (lambda value: -1 <= value <= 1, "between -1 and 1")
_COUNTS = {
    "depth": (1, "counts the layers"),
    "seeds": (1, "counts the independent networks"),
    "inputs": (1, "counts the input vectors"),
    "directions": (1, "counts the directions of the Jacobian"),
    "record_every": (1, "counts the layers from one record to the next"),
}
_REALS: dict[str, tuple[Callable[[float], bool], str]] = {
    "input_scale": (lambda value: value > 0, "finite and positive, a root mean square"),
    "sparsity": (lambda value: 0 <= value < 1, "at least 0 and below 1, a probability"),
    "dropout": (lambda value: 0 <= value < 1, "at least 0 and below 1, a probability"),
    "first_gain": (lambda value: 0 <= value <= LARGEST, _STANDARD_DEVIATION),
    "readout_gain": (lambda value: 0 <= value <= LARGEST, _STANDARD_DEVIATION),
    "memory": (lambda value: value > 0, "finite and positive, in GiB"),
}
_OPTIONAL = ("first_gain", "readout_gain")
_CHOICES = {
    "weights": Weights,
    "distribution": _DISTRIBUTIONS,
    "mode": Mode,
    "block": _BLOCKS,
    "branch": Branch,
    "norm": Norm,
    "cotangent": Cotangent,
    "dtype": Precision,
    "draw_dtype": Precision,
}
