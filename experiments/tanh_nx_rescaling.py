"""Is tanh(nx) the same as tanh with other weights, and does it train the same?

Claims, from the last answer to a question on tanh(nx) as an activation and the comments under it (Zephyr, Tuyen):
B14 "all we have done is rescaled all the weights and biases of the network". B15 "this will … not affect the training";
"even if you rescale the learning rate by n, things are still very much different".

Let A have the activation tanh(nx) and parameters θ, and B tanh, n θ in every layer followed by tanh (weights and
biases), and A's readout. They are the same function, so the gradient in a layer of A is n times that of B, and after a
step nθ has moved by n times A's step. SGD, θ ← θ - η ∇, moves nθ by n · η · n∇: B needs the rate n² η in these layers
and η in the readout. Momentum is linear in the gradient, so the same. Adam's step η m/(√v + ε) does not know the
gradient's scale, except by ε: nθ moves by n η m/(√v + ε/n), so B needs n η and ε/n in these layers, η and ε in the
readout.

    python -m experiments.tanh_nx_rescaling

trains such pairs in float64 for 200 steps, prints the verdicts and writes tanh_nx_rescaling.png, in a minute. With
these settings the paths are apart by 1e-14 of their length; with others by a third and more, and 3e-5 where only Adam's
ε was forgotten. With one rate for both SGD trains tanh(3x) faster than tanh.
"""

import dataclasses
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.experiments import Found, Verdict, main_of, verdict_of

TOGETHER, APART = 1e-10, 1e-9
COLOURS = ("#009e73", "#0072b2", "#d55e00", "#cc79a7", "#e69f00")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1)))


class Rule(NamedTuple):
    """What B's settings are in units of A's, as powers of n."""

    name: str
    weights: int
    """Of the learning rate of the weights of layers followed by tanh."""
    biases: int
    readout: int
    epsilon: int = 0
    """Of ε in the layers followed by tanh."""


LINEAR = (
    Rule("n² η, readout η", 2, 2, 0),
    Rule("the same η", 0, 0, 0),
    Rule("n η, readout η", 1, 1, 0),
    Rule("n² η, readout too", 2, 2, 2),
    Rule("n² η, biases η", 2, 0, 0),
)
ADAM = (
    Rule("n η and ε/n, readout η, ε", 1, 1, 0, -1),
    Rule("the same η and ε", 0, 0, 0),
    Rule("n η, the same ε", 1, 1, 0),
    Rule("n η and ε/n, readout n η", 1, 1, 1, -1),
    Rule("n² η and ε/n", 2, 2, 0, -1),
)
RULES = {"sgd": LINEAR, "momentum": LINEAR, "adam": ADAM}
"""Of each optimizer first what the algebra says, then others."""


@dataclasses.dataclass(frozen=True)
class RescalingConfig:
    """Sizes of the networks and of the training."""

    scales: tuple[float, ...] = (0.5, 2.0, 3.0)
    """n."""
    depth: int = 4
    """Layers followed by tanh."""
    width: int = 32
    """Neurons per layer."""
    steps: int = 200
    """Steps of each optimizer."""
    seeds: int = 8
    """Networks per n."""
    learning_rates: tuple[float, float, float] = (0.05, 0.01, 0.003)
    """η of SGD, momentum and Adam in A."""
    epsilon: float = 1e-8
    """ε of Adam in A."""
    out: Path = Path("experiments/figures")
    """Folder of the dataset and the figure."""


FULL = RescalingConfig()
SMOKE = RescalingConfig(scales=(3.0,), depth=2, width=8, steps=20, seeds=2)


def run(config: RescalingConfig) -> Found:
    """Train all pairs; how far they are apart over the steps, and the losses of both."""
    found: Found = {}
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), config.seeds)
        tasks = jax.jit(jax.vmap(partial(task, config=config)))(keys)
        found["functions"] = functions(config, tasks)
        found |= pairs(config, tasks)
    return found


class Task(NamedTuple):
    """What a network is trained on, and where it starts."""

    start: list[Array]
    """Of tanh: weights and biases in turn, the last two of the readout."""
    x: Array
    y: Array
    """Labels by a random teacher."""
    batches: Array
    """(steps, batch): which examples."""


def task(key: Array, config: RescalingConfig) -> Task:
    """Everything that is random."""
    sizes = [16, *[config.width] * config.depth, 4]
    keys = jax.random.split(key, 4)

    def parameters(key: Array) -> list[Array]:
        found = []
        for place, shape in enumerate(pairwise(sizes)):
            draws = (jg.initializers.scaled(1.2), shape), (jg.initializers.bias(0.2), shape[1:])
            for side, (draw, own) in enumerate(draws):
                found.append(draw(jax.random.fold_in(key, 2 * place + side), own, jnp.float64))
        return found

    x = jax.random.normal(keys[0], (512, 16), jnp.float64)
    y = jnp.argmax(network(parameters(keys[1]), x, 1.0), -1)
    return Task(parameters(keys[2]), x, y, jax.random.randint(keys[3], (config.steps, 32), 0, len(x)))


def network(params: list[Array], x: Array, n: Any) -> Array:
    """Logits of the network with tanh(nx)."""
    for w, b in zip(params[:-2:2], params[1:-2:2], strict=True):
        x = jnp.tanh(n * (x @ w + b[None]))
    return x @ params[-2] + params[-1][None]


def times(params: list[Array], weights: Any, biases: Any, readout: Any) -> list[Array]:
    """Each parameter times the factor of its kind."""
    factors = [weights, biases] * (len(params) // 2 - 1) + [readout, readout]
    return [factor * value for factor, value in zip(factors, params, strict=True)]


def functions(config: RescalingConfig, tasks: Task) -> xarray.Dataset:
    """Largest difference between A's outputs and those of tanh with scaled parameters, as a share of the largest."""
    b, x = [value[0] for value in tasks.start], tasks.x[0]
    found: dict[str, list[float]] = {name: [] for name in ("tanh_layers", "all_layers", "weights_only")}
    for n in config.scales:
        a = times(b, 1 / n, 1 / n, 1.0)
        out = network(a, x, n)
        for name, factors in zip(found, ((n, n, 1.0), (n, n, n), (n, 1.0, 1.0)), strict=True):
            apart = jnp.abs(network(times(a, *factors), x, 1.0) - out).max() / jnp.abs(out).max()
            found[name].append(float(apart))
    return xarray.Dataset({k: ("n", np.array(v)) for k, v in found.items()}, coords={"n": np.array(config.scales)})


def pairs(config: RescalingConfig, tasks: Task) -> Found:
    """Of each optimizer over (rule, n, seed, step): ‖nθ_A - θ_B‖ as a share of θ_B's path so far, and both losses."""
    powers = jnp.array([[rule[1:] for rule in rules] for rules in RULES.values()], jnp.float64)
    one = partial(pair, config=config)
    for axes in ((None, None, None, None, 0), (None, None, None, 0, None), (None, None, 0, None, None)):
        one = jax.vmap(one, in_axes=axes)
    rates = jnp.array(config.learning_rates)
    found = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None, None)))(
        jnp.arange(len(RULES)), rates, powers, jnp.array(config.scales), tasks
    )
    values = dict(zip(("deviation", "loss_a", "loss_b"), found, strict=True))
    return {
        name: xarray.Dataset(
            {key: (("rule", "n", "seed", "step"), np.asarray(value[place])) for key, value in values.items()},
            coords={"rule": [rule.name for rule in rules], "n": np.array(config.scales)},
        )
        for place, (name, rules) in enumerate(RULES.items())
    }


def pair(which: Array, rate: Array, powers: Array, n: Array, task: Task, config: RescalingConfig) -> Any:
    """Train A and B on the same batches, side by side, with the optimizer of that place in `RULES`."""
    start = task.start
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), times(start, 1 / n, 1 / n, 1.0), start)
    # Of A and of B: n, the factors of the rates, and ε in the layers followed by tanh.
    weights, biases, readout, epsilon = (jnp.stack([jnp.ones_like(n), n**power]) for power in powers)
    settings = (jnp.stack([n, jnp.ones_like(n)]), weights, biases, readout, config.epsilon * epsilon)

    def loss(params: list[Array], n: Any, chosen: Array) -> Array:
        logits = network(params, task.x[chosen], n)
        return optax.softmax_cross_entropy_with_integer_labels(logits, task.y[chosen]).mean()

    def move(params: list[Array], states: Any, setting: Any, chosen: Array) -> Any:
        n, weights, biases, readout, epsilon = setting
        value, grads = jax.value_and_grad(loss)(params, n, chosen)
        rules = [rule_of(name, epsilon, config.epsilon) for name in RULES]
        moves, states = zip(*(rule.update(grads, own) for rule, own in zip(rules, states, strict=True)), strict=True)
        own = [jnp.stack(each)[which] for each in zip(*moves, strict=True)]
        moved = [p - rate * m for p, m in zip(params, times(own, weights, biases, readout), strict=True)]
        return moved, states, value

    def step(carry: Any, chosen: Array) -> tuple[Any, Any]:
        both, states, losses = jax.vmap(move, in_axes=(0, 0, 0, None))(carry[0], carry[1], settings, chosen)
        a, b = ([value[place] for value in both] for place in (0, 1))
        return (both, states), (distance(times(a, n, n, 1.0), b) / distance(b, start), *losses)

    states = tuple(jax.vmap(rule_of(name, 1.0, 1.0).init)(both) for name in RULES)
    return jax.lax.scan(step, (both, states), task.batches)[1]


def distance(one: list[Array], other: list[Array]) -> Array:
    """Between two lists of parameters, Euclidean."""
    return jnp.sqrt(sum(jnp.sum((p - q) ** 2) for p, q in zip(one, other, strict=True)))


def rule_of(optimizer: str, epsilon: Any, readout: Any) -> Any:
    """Optax's optimizer before the learning rate, Adam with its own ε in the readout."""
    if optimizer != "adam":
        return optax.identity() if optimizer == "sgd" else optax.trace(decay=0.9)
    label = lambda params: ["tanh"] * (len(params) - 2) + ["readout"] * 2
    return optax.multi_transform(
        {"tanh": optax.scale_by_adam(eps=epsilon), "readout": optax.scale_by_adam(eps=readout)}, label
    )


def judge(found: Found) -> list[Verdict]:
    """Read the verdicts off the numbers."""
    of = found["functions"]
    same, every, weights = (float(of[name].max()) for name in ("tanh_layers", "all_layers", "weights_only"))
    largest = {name: found[name]["deviation"].max("step") for name in RULES}
    seeds = largest["sgd"].sizes["seed"] * largest["sgd"].sizes["n"]
    exact = {name: float(one.isel(rule=0).max()) for name, one in largest.items()}
    others = {name: one.isel(rule=slice(1, None)).min(["n", "seed"]) for name, one in largest.items()}
    nearest = {name: float(one.min()) for name, one in others.items()}
    unchanged = {name: float(largest[name].isel(rule=1).max()) for name in RULES}
    coincide = all(value < TOGETHER for value in exact.values())
    only = all(value > APART for value in nearest.values())
    sgd, adam = found["sgd"].isel(rule=1, n=-1), str(others["adam"]["rule"].values[int(others["adam"].argmin("rule"))])
    gap = (sgd["loss_a"] - sgd["loss_b"]).isel(step=slice(-20, None)).mean("step")
    n, error = float(sgd["n"]), float(gap.std("seed", ddof=1)) / gap.sizes["seed"] ** 0.5
    each = lambda values: ", ".join(f"{value:.0e} ({name})" for name, value in values.items())
    return [
        Verdict(
            "B14", "tanh(nx) is only a rescaling of all weights and biases",
            verdict_of(every < TOGETHER, imprecise=same < TOGETHER),
            f"outputs differ by {same:.0e} of the largest with n θ in the layers followed by tanh, by {every:.2g} with "
            f"n θ in all layers, by {weights:.2g} with n times the weights but not the biases (exact)",
            0,
            "As a function it is: tanh(nx) with θ is tanh with n θ in each layer that is followed by tanh, weights and "
            "biases. A linear readout stays as it is.",
        ),
        Verdict(
            "B15", "… and training is unaffected",
            verdict_of(max(unchanged.values()) < TOGETHER, imprecise=coincide and only),
            f"after {found['sgd'].sizes['step']} steps, relative to the path: with the rescaled rates apart by at most "
            f"{each(exact)}; with any other by at least {each(nearest)}",
            seeds,
            _why(coincide, only, adam) + f" With the same rate SGD learns otherwise: at n = {n:g} the losses of the "
            f"last 20 steps differ by {float(gap.mean()):+.3f} ± {error:.3f}.",
        ),
    ]  # fmt: skip


def _why(coincide: bool, only: bool, nearest: str) -> str:
    if not coincide:
        return "No rates were found with which the two train alike."
    if not only:
        return "They train alike with more than one choice of rates."
    return (
        "The same path is taken if tanh gets, in the layers followed by tanh, n² times the learning rate of tanh(nx) "
        "with SGD and momentum, with Adam n times and ε/n; the readout keeps its own. Rescaling by n, by n² in all "
        f"layers, or in weights alone is not enough; of the other choices for Adam “{nearest}” comes nearest."
    )


def draw(figure: Figure, found: Found) -> None:
    """How far the pairs are apart over the steps, for each optimizer; losses on the right."""
    figure.set_size_inches(15, 4.4)
    panels = figure.subplots(1, 4)
    for axes, optimizer in zip(panels, RULES, strict=False):
        _draw_pairs(axes, found[optimizer], optimizer)
    panels[0].set_ylabel("‖nθ(tanh nx) − θ(tanh)‖ / path of θ(tanh)")
    _draw_losses(panels[3], found["sgd"])
    for axes in panels:
        axes.set_xlabel("step")
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("tanh(nx), and tanh with n times the parameters, train alike if the rates are rescaled by layer")
    figure.tight_layout()


def _draw_pairs(axes: Axes, pairs: xarray.Dataset, optimizer: str) -> None:
    for place, name in enumerate(pairs["rule"].values):
        one = pairs["deviation"].isel(rule=place).clip(1e-17)
        flat = one.stack(network=("n", "seed"))
        line = flat.max("network") if place == 0 else flat.median("network")
        axes.semilogy(
            line, color=COLOURS[place], linestyle=DASHES[place], linewidth=2.2 - 0.3 * (place > 0), label=name
        )
    axes.axhline(TOGETHER, color="0.5", linewidth=0.8, linestyle=":")
    axes.set_ylim(1e-17, 1e2)
    axes.set_title({"sgd": "SGD", "momentum": "Momentum 0.9", "adam": "Adam"}[optimizer], fontsize=10, loc="left")
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.02, 0.17), "alignment": "left"}
    axes.legend(frameon=False, fontsize=8, title="settings of tanh:", title_fontsize=8, **where)


def _draw_losses(axes: Axes, sgd: xarray.Dataset) -> None:
    one = sgd.isel(n=-1).mean("seed").rolling(step=10, min_periods=1).mean()
    n = float(sgd["n"][-1])
    for name, place, colour, dash, words in (
        ("loss_a", 0, COLOURS[2], "-", f"tanh({n:g}x), η"),
        ("loss_b", 0, COLOURS[0], "--", "tanh, n² η, readout η"),
        ("loss_b", 1, COLOURS[1], "-.", "tanh, the same η"),
    ):
        axes.plot(one[name].isel(rule=place), color=colour, linestyle=dash, linewidth=2, label=words)
    axes.set(ylabel="training loss (nats), mean of 10 steps")
    axes.set_title(f"SGD, n = {n:g}: what it means for the loss", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8)


main = main_of("tanh_nx_rescaling", FULL, run, judge, draw)

if __name__ == "__main__":
    main()
