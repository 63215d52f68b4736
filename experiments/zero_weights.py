"""What do zero weights give, which gradients are then zero, and does a zero output cost infinitely much?

A note on exploding and vanishing gradients:

C8  "If our network's weights are initialized all to 0, then the output is the same value regardless of inputs.
    Gradients will be zero everywhere."
C9  "Also, if the output is 0 and uses the cross entropy loss, we will get inf in the final cost."

    python -m experiments.zero_weights

prints the verdicts and writes zero_weights.nc and zero_weights.png, in seconds.

Three layers, a readout and biases everywhere; gradients of the cross-entropy by JAX, so that a zero is exact. All at
zero, only the output's bias has a gradient, and with the sigmoid, which is not 0 at 0, the readout's weights.
"""

import dataclasses
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from matplotlib.figure import Figure

from jaxgain.experiments import Verdict, main_of, verdict_of

# What starts at random, of the weights and biases of hidden layers; everything else starts at 0.
CASES = {
    "tanh, all 0": ("tanh", ()),
    "relu, all 0": ("relu", ()),
    "sigmoid, all 0": ("sigmoid", ()),
    "tanh, random biases": ("tanh", ("biases",)),
    "tanh, random hidden weights": ("tanh", ("weights",)),
}
PARTS = ("weights", "biases", "readout", "output_bias")
DIMS = {"gradient": ("part",), "loss": ("step",)}
PHI = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


@dataclasses.dataclass(frozen=True)
class ZeroConfig:
    """Sizes of the networks and of their training."""

    width: int = 32
    """Neurons per layer, and numbers per input."""
    depth: int = 3
    """Hidden layers."""
    classes: int = 5
    """Of which a random linear map of the input is the largest."""
    inputs: int = 256
    """Examples."""
    steps: int = 1000
    """Steps of gradient descent, at a learning rate of 0.3, on all examples."""
    seeds: int = 16
    """Sets of examples, and of random weights."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""


FULL = ZeroConfig()
SMOKE = ZeroConfig(width=8, depth=1, inputs=16, steps=5, seeds=2)


def run(config: ZeroConfig) -> dict[str, xarray.Dataset]:
    """Return gradients at the start, outputs and training of each case, and the costs of an output that is 0."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    kinds = jnp.array([list(PHI).index(phi) for phi, _ in CASES.values()])
    scales = jnp.array([[float(name in drawn) for name in PARTS[:2]] for _, drawn in CASES.values()])
    train = jax.vmap(jax.vmap(partial(_train, config), (0, None, None)), (None, 0, 0))
    columns = {
        name: (("case", "seed", *DIMS.get(name, ())), np.asarray(values))
        for name, values in jax.jit(train)(keys, kinds, scales).items()
    }
    coords = {"case": list(CASES), "part": list(PARTS)}
    cases = xarray.Dataset(columns, coords, {"classes": config.classes})
    zero, apart = jnp.zeros(config.classes), jnp.array([0.0, 120.0])
    costs = {
        "scores": -jax.nn.log_softmax(zero)[0],
        "probability": -jnp.log(zero[0]),
        "logistic": -jnp.log(jax.nn.sigmoid(zero[0])),
        "softmax first": -jnp.log(jax.nn.softmax(apart)[0]),
        "log_softmax": -jax.nn.log_softmax(apart)[0],
    }
    values = np.array([float(value) for value in costs.values()])
    return {"cases": cases, "costs": xarray.Dataset({"cost": ("output", values)}, {"output": list(costs)})}


def _train(config: ZeroConfig, key: jax.Array, kind: jax.Array, scales: jax.Array) -> dict[str, jax.Array]:
    """Train one network, whose hidden weights and biases start at random where `scales` are 1."""
    n, width, classes = config.inputs, config.width, config.classes
    keys = jax.random.split(key, 4)
    x, teacher = jax.random.normal(keys[0], (n, width)), jax.random.normal(keys[1], (width, classes))
    target = jnp.argmax(x @ teacher, axis=1)
    parameters = {
        "weights": scales[0] * width**-0.5 * jax.random.normal(keys[2], (config.depth, width, width)),
        "biases": scales[1] * jax.random.normal(keys[3], (config.depth, width)),
        "readout": jnp.zeros((width, classes)),
        "output_bias": jnp.zeros(classes),
    }

    def phi(z):
        return jnp.select([kind == place for place in range(len(PHI))], [one(z) for one in PHI.values()])

    def scores(p):
        h = x
        for layer in range(config.depth):
            h = phi(h @ p["weights"][layer] + p["biases"][layer][None, :])
        return h @ p["readout"] + p["output_bias"][None, :]

    def loss(p):
        return -jnp.take_along_axis(jax.nn.log_softmax(scores(p)), target[:, None], axis=1).mean()

    def step(p, _):
        value, gradient = jax.value_and_grad(loss)(p)
        rms = jnp.stack([jnp.sqrt(jnp.square(gradient[name]).mean()) for name in PARTS])
        return jax.tree.map(lambda a, g: a - 0.3 * g, p, gradient), (value, rms)

    trained, (losses, gradients) = jax.lax.scan(step, parameters, None, length=config.steps)
    frequencies = jnp.bincount(target, length=classes) / n
    return {
        "gradient": gradients[0],
        "spread": jnp.ptp(scores(parameters), axis=0).max(),
        "loss": losses,
        "accuracy": (jnp.argmax(scores(trained), axis=1) == target).mean(),
        "guess": frequencies.max(),
    }


def judge(found: dict[str, xarray.Dataset]) -> list[Verdict]:
    """C8 and C9."""
    cases, zero = found["cases"], list(CASES)[:3]
    gradient = cases["gradient"].sel(case=zero)
    same = bool((cases["spread"].sel(case=zero) == 0).all())
    hidden = bool((gradient.sel(part=["weights", "biases"]) == 0).all())
    living = {name: [part for part in PARTS if float(gradient.sel(case=name, part=part).min()) > 0] for name in zero}
    number = "; ".join(
        f"{name}: "
        + (", ".join(f"{part} {float(gradient.sel(case=name, part=part).mean()):.3f}" for part in parts) or "none")
        for name, parts in living.items()
    )
    accuracy = cases["accuracy"].mean("seed")
    stuck, guess = float(accuracy.sel(case=zero).max()), float(cases["guess"].mean())
    learnt = float(accuracy.sel(case="tanh, random hidden weights"))
    why = "Every gradient is zero." if not any(living.values()) else (
        "The output's bias learns how frequent the classes are, and where φ(0) is not 0 the readout has a gradient "
        "too; the gradients of the hidden layers come through the readout, which is 0, and are exactly 0."
    )  # fmt: skip
    why += f" Trained from there accuracy is at most {stuck:.2f} (guessing: {guess:.2f}); a readout of 0 alone does no "
    why += f"harm: {learnt:.2f}." if learnt > stuck + 0.1 else f"better: {learnt:.2f}."
    return [
        Verdict(
            "C8",
            "all-zero weights: the same output for every input, gradients zero everywhere",
            verdict_of(same and not any(living.values()), imprecise=same and hidden),
            f"outputs {'equal' if same else 'not equal'}; rms gradients that are not exactly 0: {number}",
            cases.sizes["seed"],
            why,
        ),
        _infinite(found["costs"], cases.attrs["classes"]),
    ]


def _infinite(costs: xarray.Dataset, classes: int) -> Verdict:
    cost = {str(name): float(costs["cost"].sel(output=name)) for name in costs["output"].values}
    scores, probability = math.isinf(cost["scores"]), math.isinf(cost["probability"])
    number = (
        f"scores of 0: {cost['scores']:.6f} = ln {classes}; one logistic output at 0: {cost['logistic']:.6f}; a "
        f"probability of 0: {cost['probability']}"
    )
    why = "Any zero output costs infinitely much." if scores else (
        "What zero weights make 0 are scores before the softmax, which then says 1/classes for each. Infinite is the "
        "cost of a probability of 0 of the true class, also one that softmax rounds to 0: with scores 120 apart "
        f"log(softmax) gives {cost['softmax first']}, log_softmax {cost['log_softmax']:.0f}."
    )  # fmt: skip
    says = "a zero output under cross-entropy gives an infinite cost"
    return Verdict("C9", says, verdict_of(scores, imprecise=probability), number, 0, why)


def draw(figure: Figure, found: dict[str, xarray.Dataset]) -> None:
    """Left which gradients are zero, right what training makes of each start."""
    figure.set_size_inches(13, 4.8)
    table, training = figure.subplots(1, 2, width_ratios=(1.25, 1))
    rms = found["cases"]["gradient"].mean("seed").transpose("case", "part").values
    table.imshow(rms > 0, cmap="Blues", vmin=0, vmax=1.8, aspect="auto")
    for row, column in np.ndindex(*rms.shape):
        words = f"{rms[row, column]:.2g}" if rms[row, column] else "exactly 0"
        table.text(
            column, row, words, ha="center", va="center", fontsize=10, color="black" if rms[row, column] else "0.5"
        )
    names = ["hidden\nweights", "hidden\nbiases", "readout\nweights", "output\nbias"]
    table.set_xticks(range(len(PARTS)), names, fontsize=9)
    table.set_yticks(range(len(CASES)), list(CASES), fontsize=9)
    table.tick_params(length=0)
    table.spines[:].set_visible(False)
    table.set_title("rms of the gradient before the first step\n(the readout starts at 0 in every row)", fontsize=11)
    colours = ("#000000", "#56b4e9", "#e69f00", "#009e73", "#d55e00")
    styles = ("-", (0, (2, 2)), "--", "-.", "-")
    for name, colour, style in zip(CASES, colours, styles, strict=True):
        loss = found["cases"]["loss"].sel(case=name).mean("seed")
        training.plot(loss, color=colour, linewidth=2, linestyle=style, label=name)
    training.axhline(math.log(found["cases"].attrs["classes"]), color="0.6", linewidth=1)
    training.text(
        0, math.log(found["cases"].attrs["classes"]) + 0.02, "scores of 0: ln(classes), not infinite", fontsize=9
    )
    training.set(xlabel="step of gradient descent", ylabel="cross-entropy in nats", ylim=(0, 1.85))
    training.set_title(
        "from zero weights only class frequencies are learnt;\na readout of zeros alone does no harm", fontsize=11
    )
    training.legend(fontsize=9, frameon=False, loc="center right")
    training.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()


main = main_of("zero_weights", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
