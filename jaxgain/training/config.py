"""`TrainConfig`, the settings of training runs, validated once: the Python call, the flags and the hash alike.

Imports neither jax nor numpy, so that the command line can show it at once.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Optional, get_args

from jaxgain.grammar import number
from jaxgain.propagation.settings import (
    Words,
    activations_of,
    check_choice,
    count_of,
    counts_of,
    gains_of,
    label_of,
    number_of,
    numbers_of,
    read_gains,
    real_of,
    seed_of,
)

if TYPE_CHECKING:  # what Python accepts
    Activations = Sequence[str | Callable[..., Any]]
    Inits = Sequence[float | str]
    Counts = Sequence[int]
    Numbers = Any
else:
    Activations = Inits = Counts = Numbers = Words

Dataset = Literal["digits", "mnist1d"]
Optimizer = Literal["sgd", "momentum", "adam", "adamw", "hypergradient"]
Schedule = Literal["constant", "linear", "cosine", "warmup_cosine"]
Block = Literal["plain", "residual", "prenorm"]
Scaling = Literal["1/sqrt(L)", "fixup", "zero"]
Distribution = Literal["normal", "uniform", "truncated_normal", "orthogonal"]
Precision = Literal["float32", "float64"]

FEATURES = {"digits": 64, "mnist1d": 40}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of training runs: every combination of the first six, each for as many seeds.

    Lists become tuples and a lone value a tuple of one. Raises `ValueError` or `TypeError` with one sentence for what
    cannot be run.

    >>> TrainConfig(inits=("critical", 1), depths=[5, 20]).labels()
    ('1', 'critical')
    >>> TrainConfig(optimizer="adamm")
    Traceback (most recent call last):
    ValueError: unknown optimizer 'adamm'; did you mean 'adam'? Use one of sgd, momentum, adam, adamw, hypergradient
    """

    activations: Activations = Words(("tanh",))
    """Activations by name, e.g. tanh gelu "leaky_relu(0.2)". In Python also elementwise callables."""

    inits: Inits = Words(("0.5:3:11",))
    """Initializations: numbers such as 5/3 or sqrt(2), or start:stop:count, the gain of every layer; or a kind of gain
    such as forward; or critical, with its biases and a first layer that starts at the fixed length."""

    depths: Counts = Words((2, 4, 8, 15, 30, 55, 100))
    """Hidden layers; of residual networks, blocks."""

    widths: Counts = Words((64,))
    """Neurons per hidden layer."""

    learning_rates: Numbers = Words((0.01,))
    """Learning rates: numbers, or start:stop:count."""

    seeds: int = 1
    """Independent networks, each with its own batches, per combination."""

    sigma_b: float = 0.0
    """Standard deviation of the biases where the initialization is a number."""

    optimizer: Optimizer = "momentum"
    """Optimizer: sgd, momentum (0.9), adam or adamw, as optax has them; hypergradient is sgd whose learning rate
    follows the cosine of successive gradients."""

    schedule: Schedule = "constant"
    """How the learning rate goes over the steps: constant; linear or cosine down to 0; warmup_cosine after a rise over
    the first tenth."""

    clip: Optional[float] = None  # noqa: UP045 (the command line reads `| None` slowly)
    """Norm of the whole gradient above which it is scaled down to it."""

    epsilon: float = 1e-8
    """What adam and adamw add to the root of the second moment."""

    weight_decay: float = 1e-4
    """Of adamw."""

    layer_rates: Numbers = Words(("1",))
    """What multiplies the learning rate of each layer: one expression in l (1 for the first layer) and L (their number,
    readout included) such as 1/sqrt(l); three numbers for first, hidden and readout; or L numbers."""

    block: Block = "plain"
    """plain layers, or two-layer residual branches without norm (residual) or behind a layer norm (prenorm)."""

    scaling: Scaling = "1/sqrt(L)"
    """How the branches of a residual network begin."""

    distribution: Distribution = "normal"
    """Distribution of the weights of plain networks."""

    dataset: Dataset = "digits"
    """digits: 8 x 8 images of scikit-learn, 1437 to train on and 360 to test; mnist1d: 4000 and 1000 series of length
    40. Features are centred, and every input scaled to mean square 1."""

    batch: int = 64
    """Examples per step, drawn with replacement."""

    steps: int = 300
    """Steps of the optimizer."""

    gradient_every: int = 1
    """Steps from one record of the gradient's norm in each layer to the next."""

    measure_every: int = 50
    """Steps from one measurement of length, correlation and saturation in each layer to the next."""

    dtype: Precision = "float32"
    """Type of parameters and arithmetic."""

    seed: int = 0
    """Root of the random keys, from 0 to 2**32 - 1."""

    def __post_init__(self) -> None:
        """Check every field once and bring it into its one form."""
        put = partial(object.__setattr__, self)
        put("activations", Words(activations_of(self.activations)))
        put("inits", Words(gains_of(self.inits, "inits")))
        for name, meaning in (("depths", "counts the hidden layers"), ("widths", "counts the neurons of a layer")):
            found = counts_of(name, getattr(self, name), 1, meaning)
            if found is None:
                raise ValueError(f"{name} must not be empty; it {meaning}")
            put(name, Words(sorted({found} if isinstance(found, int) else set(found))))
        rates = numbers_of("learning_rates", self.learning_rates, lambda value: value > 0, "finite and above 0")
        if rates is None:
            raise ValueError("learning_rates must not be empty; give at least one, e.g. 0.01")
        put("learning_rates", rates if isinstance(rates, Words) else Words((rates,)))
        for name, (least, meaning) in _COUNTS.items():
            put(name, count_of(name, getattr(self, name), least, meaning))
        put("seed", seed_of(self.seed))
        for name, (legal, expected) in _REALS.items():
            if not (name == "clip" and self.clip is None):
                put(name, real_of(name, number_of(name, getattr(self, name)), legal, expected))
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), get_args(choices))
        self._check_together()

    def _check_together(self) -> None:
        for name in ("gradient_every", "measure_every"):
            if self.steps % getattr(self, name):
                raise ValueError(
                    f"steps must be a multiple of {name}, got {self.steps} and {getattr(self, name)}; choose a divisor"
                )
        if self.measure_every % self.gradient_every:
            raise ValueError(
                f"measure_every must be a multiple of gradient_every, got {self.measure_every} and "
                f"{self.gradient_every}"
            )
        if self.block != "plain" and (self.sigma_b or self.distribution != "normal" or read_gains(self.inits)[0]):
            raise ValueError(
                f"block {self.block!r} takes kinds of gains as inits, no sigma_b and normal weights; got inits = "
                f"{tuple(self.inits)}, sigma_b = {self.sigma_b:g} and distribution = {self.distribution!r}"
            )
        given = self.layer_rates
        given = [given] if isinstance(given, (str, int, float)) else list(given)
        object.__setattr__(self, "layer_rates", Words(given))
        for depth in self.depths:
            self.rates_of_layers(depth)

    def rates_of_layers(self, depth: int) -> tuple[float, ...]:
        """What multiplies the learning rate of each layer: the first, then the others or the blocks, and the readout.

        >>> TrainConfig(layer_rates="1/l", depths=3).rates_of_layers(3)
        (1.0, 0.5, 0.3333333333333333, 0.25)
        >>> TrainConfig(layer_rates=(1, 2, 0), depths=3).rates_of_layers(3)
        (1.0, 2.0, 2.0, 0.0)
        """
        layers, given = depth + 1 + (self.block != "plain"), list(self.layer_rates)
        legal, expected = lambda value: value >= 0, "finite and at least 0"
        try:
            if len(given) == 1:
                read = [number(str(given[0]), l=layer, L=layers) for layer in range(1, layers + 1)]
            else:
                read = [number(str(item)) for item in given]
        except ValueError as error:
            raise ValueError(f"cannot read layer_rates {' '.join(map(str, given))!r}: {error}") from None
        if len(read) == 3 and layers != 3:
            read = [read[0], *[read[1]] * (layers - 2), read[2]]
        if len(read) != layers:
            raise ValueError(
                f"layer_rates must be one expression, 3 numbers or one for each of {layers} layers, got {len(read)}"
            )
        return tuple(real_of("layer_rates", value, legal, expected) for value in read)

    def labels(self) -> tuple[str, ...]:
        """Of the initializations, in the order of a dataset: rising numbers, then kinds."""
        numbers, kinds = read_gains(self.inits)
        return (*(f"{value:.6g}" for value in numbers), *kinds)

    def values(self) -> tuple[float | str, ...]:
        """The initializations themselves, in the order of `labels`."""
        numbers, kinds = read_gains(self.inits)
        return (*numbers, *kinds)

    def activation_names(self) -> tuple[str, ...]:
        """Labels of the activations, in order."""
        return tuple(label_of(phi) for phi in self.activations)

    def to_json(self) -> str:
        """The settings as canonical JSON: sorted keys, no spaces, callables by their label."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["activations"] = self.activation_names()
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def hash(self) -> str:
        """SHA-256, in hexadecimal, of the settings."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


_COUNTS = {
    "seeds": (1, "counts the independent networks"),
    "batch": (1, "counts the examples of a step"),
    "steps": (1, "counts the steps of the optimizer"),
    "gradient_every": (1, "counts the steps between records"),
    "measure_every": (1, "counts the steps between measurements"),
}
_REALS: dict[str, tuple[Callable[[float], bool], str]] = {
    "sigma_b": (lambda value: value >= 0, "finite and at least 0, a standard deviation"),
    "clip": (lambda value: value > 0, "finite and positive, the norm of a gradient"),
    "epsilon": (lambda value: value >= 0, "finite and at least 0"),
    "weight_decay": (lambda value: value >= 0, "finite and at least 0"),
}
_CHOICES = {
    "optimizer": Optimizer,
    "schedule": Schedule,
    "block": Block,
    "scaling": Scaling,
    "distribution": Distribution,
    "dataset": Dataset,
    "dtype": Precision,
}
