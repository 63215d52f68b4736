"""How much faster does a grid of small networks train when the steps are scanned?

Claim: `jaxgain.train`, which compiles all steps of a network into one program, runs networks on every core, and small
ones side by side, trains a grid of networks of 2 layers up to a width of 64, and of 10 layers of 16, at least 6 times
as fast as the usual loop over a step in `nnx.jit`, one network after the other, and learns the same: from the same
weights on the same batches, losses equal to 1e-5.

It is overhead that is saved: 3.6 times at 10 layers of 64, and less for larger networks, whose time is that of their
matrix products. A loop that saves most of it itself is nearer: see the table.

    python -m experiments.training_speed

prints the table and the verdict, and writes training_speed.nc and training_speed.png, in two minutes.

The loops are those of Flax's guide to performance: `nnx.jit`; `nnx.cached_partial`, which goes through the modules
once; and a functional step in `jax.jit` that never goes through them. Their batches lie ready on the
device, and nothing waits for a loss before the last. Whatever is timed is warm: models, batches and compiled steps of
the loops are made before, while the time of `jaxgain.train` is that of the whole call, with weights, batches, records
and accuracies. What is compared takes turns; a ratio is the median of the rounds' ratios.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import xarray
from flax import nnx
from matplotlib.figure import Figure
from rich.table import Table

import jaxgain as jg
from jaxgain.activations import activation
from jaxgain.experiments import console, experiment, save_dataset, save_figure
from jaxgain.training.engine import Member, Shape, batch_of, model_of
from jaxgain.training.train import member_of, scales_of, shape_of

LEAST, EQUAL = 6.0, 1e-5  # times as fast; largest relative difference of losses
CLAIMED = ((2, 16), (2, 64), (10, 16))  # hidden layers and width
RATE, MOMENTUM = 0.01, 0.9
FEATURE = {"nnx.jit": "#0072b2", "nnx.cached_partial": "#e69f00", "jax.jit": "#999999"}


@dataclasses.dataclass(frozen=True)
class TrainingSpeedConfig:
    """Sizes of what is timed; the claim is about the defaults."""

    depths: tuple[int, ...] = (2, 10)
    """Hidden layers."""
    widths: tuple[int, ...] = (16, 64)
    """Neurons per layer."""
    inits: tuple[str, ...] = ("3/4", "1", "5/3", "critical")
    """Initializations of the grid."""
    seeds: int = 2
    """Networks of the grid per initialization."""
    steps: int = 300
    """Steps of SGD with momentum, batches of 64 digits."""
    looped: int = 2
    """Networks that the loops train in a round, one of each of the first initializations; the time of all is scaled
    from theirs."""
    rounds: int = 4
    """Times that everything is repeated."""
    out: Path = Path("experiments/figures")
    """Folder for the dataset and the figure."""

    def __post_init__(self) -> None:
        """Check what no training checks; raises `ValueError` with one sentence."""
        for name, least in (("steps", 10), ("rounds", 1), ("looped", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.looped > len(self.inits):
            raise ValueError(f"looped must be at most the number of inits, {len(self.inits)}, got {self.looped}")


SMOKE = TrainingSpeedConfig(depths=(2, 3), widths=(16,), inits=("1", "critical"), seeds=2, steps=20, looped=1, rounds=2)


def grid_of(config: TrainingSpeedConfig, depth: int, width: int) -> jg.TrainConfig:
    """Tanh networks of one size, their gradients recorded ten times."""
    return jg.TrainConfig(
        inits=config.inits,
        depths=(depth,),
        widths=(width,),
        learning_rates=RATE,
        seeds=config.seeds,
        steps=config.steps,
        gradient_every=config.steps // 10,
        measure_every=config.steps // 10,
    )


# The loops


def loss_of(model: Any, inputs: Any, labels: Any) -> Any:
    """Cross-entropy of a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()


def step(model: Any, optimizer: nnx.Optimizer, inputs: Any, labels: Any) -> Any:
    """One step, which changes the model; returns the loss before it."""
    loss, gradient = nnx.value_and_grad(loss_of)(model, inputs, labels)
    optimizer.update(model, gradient)
    return loss


jitted = nnx.jit(step)


@partial(jax.jit, static_argnums=0)
def functional(graph: Any, state: Any, inputs: Any, labels: Any) -> tuple[Any, Any]:
    """The same step without objects: state to state."""
    model, optimizer = nnx.merge(graph, state)
    loss = step(model, optimizer, inputs, labels)
    return nnx.state((model, optimizer)), loss


def by_functional(model: Any, optimizer: nnx.Optimizer) -> Callable[..., Any]:
    """`functional` as a function of a batch that keeps the state."""
    graph, state = nnx.split((model, optimizer))

    def one(inputs: Any, labels: Any) -> Any:
        nonlocal state
        state, loss = functional(graph, state, inputs, labels)
        return loss

    return one


LOOPS: dict[str, Callable[[Any, nnx.Optimizer], Callable[..., Any]]] = {
    "nnx.jit": lambda model, optimizer: partial(jitted, model, optimizer),
    "nnx.cached_partial": lambda model, optimizer: nnx.cached_partial(jitted, model, optimizer),
    "jax.jit": by_functional,
}
SGD = optax.sgd(RATE, momentum=MOMENTUM)  # one for all: another would be another program


def loop(name: str, shape: Shape, member: Member, batches: list[Any]) -> tuple[float, np.ndarray]:
    """Seconds of training one network step by step, without those of making it, and its losses."""
    model: Any = nnx.jit(model_of, static_argnums=0)(shape, member)
    one = LOOPS[name](model, nnx.Optimizer(model, SGD, wrt=nnx.Param))
    started = time.perf_counter()
    losses = jax.block_until_ready([one(inputs, labels) for inputs, labels in batches])
    return time.perf_counter() - started, np.array(losses)


def batches_of(shape: Shape, member: Member) -> list[Any]:
    """The batches of a seed, on the device."""
    data = jg.load_data("digits")
    x, y = data.x.astype(np.float32), data.y.astype(np.int32)
    draw = jax.jit(partial(batch_of, shape, member, examples=len(y)))
    return [jax.device_put((x[chosen], y[chosen])) for chosen in (np.array(draw(i)) for i in range(shape.steps))]


# Run


def run(config: TrainingSpeedConfig) -> xarray.Dataset:
    """Seconds per network over (way, depth, width, round), and how far the losses are apart, over (loop, …, step)."""
    ways = ("jaxgain", *LOOPS)
    seconds = np.empty((len(ways), len(config.depths), len(config.widths), config.rounds))
    apart = np.empty((len(LOOPS), len(config.depths), len(config.widths), config.steps))
    for (d, depth), (w, width) in product(enumerate(config.depths), enumerate(config.widths)):
        console().print(f"{depth} layers of {width} …", style="dim", highlight=False)
        one = measure(grid_of(config, depth, width), config.looped)
        next(one)  # compiles everything
        for r, (spent, differences) in enumerate(islice(one, config.rounds)):
            seconds[:, d, w, r], apart[:, d, w] = spent, differences
    grid = ("depth", "width")
    return xarray.Dataset(
        {
            "seconds": (("way", *grid, "round"), seconds, {"units": "s", "description": "per network"}),
            "difference": (("loop", *grid, "step"), apart, {"description": "of losses, the largest, relative"}),
        },
        coords={"way": list(ways), "loop": list(LOOPS), "depth": list(config.depths), "width": list(config.widths)},
        attrs={"steps": config.steps, "jax": jax.__version__, "devices": len(jax.devices())},
    )


def measure(grid: jg.TrainConfig, looped: int) -> Iterator[tuple[list[float], list[np.ndarray]]]:
    """Rounds: seconds per network by jaxgain and by each loop, and each loop's relative differences, over steps."""
    phi = activation("tanh")
    shape = shape_of(grid, phi, grid.depths[0], grid.widths[0], jg.load_data("digits"))
    values = dict(zip(grid.labels(), grid.values(), strict=True))
    members = {label: member_of(grid, scales_of(grid, phi, values[label]), RATE, 0) for label in list(values)[:looped]}
    batches = batches_of(shape, next(iter(members.values())))  # all are of the first seed
    networks = len(values) * grid.seeds
    while True:
        started = time.perf_counter()
        dataset = jg.train(grid)
        seconds, apart = [(time.perf_counter() - started) / networks], []
        expected = dataset["loss"].sel(activation="tanh", seed=0).squeeze(["depth", "width", "learning_rate"])
        for name in LOOPS:
            runs = {label: loop(name, shape, member, batches) for label, member in members.items()}
            seconds.append(float(np.mean([spent for spent, _ in runs.values()])))
            relative = [abs(losses / expected.sel(init=label).values - 1) for label, (_, losses) in runs.items()]
            apart.append(np.max(relative, axis=0))
        yield seconds, apart


# Judge, table and figure


def ratios(dataset: xarray.Dataset) -> xarray.DataArray:
    """How many times as long the loops take as jaxgain, in each round."""
    seconds = dataset["seconds"]
    return seconds.sel(way=list(LOOPS)) / seconds.sel(way="jaxgain", drop=True)


def judge(dataset: xarray.Dataset) -> dict[str, float]:
    """The smallest ratio of the loop in nnx.jit and the largest difference of losses, of the sizes of the claim."""
    median, apart = ratios(dataset).median("round"), dataset["difference"].max("step")
    sizes = [(d, w) for d, w in CLAIMED if d in dataset["depth"] and w in dataset["width"]]
    own = [(median.sel(depth=d, width=w), apart.sel(depth=d, width=w)) for d, w in sizes]
    return {
        "ratio": min((float(ratio.sel(way="nnx.jit")) for ratio, _ in own), default=np.nan),
        "difference": max((float(difference.max()) for _, difference in own), default=np.nan),
        "difference_anywhere": float(apart.max()),
    }


def table(dataset: xarray.Dataset) -> Table:
    """A row per size: time of a step, how many times as long the loops take, and the largest difference of losses."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), title="times as long as jaxgain: median (least – most)")
    for header in ("layers", "width", "µs a step", *LOOPS, "Δ loss"):
        drawn.add_column(header, justify="right", no_wrap=True)
    times, spent = ratios(dataset), dataset["seconds"].sel(way="jaxgain").median("round") / dataset.attrs["steps"]
    for depth, width in product(dataset["depth"].values, dataset["width"].values):
        at = {"depth": depth, "width": width}
        cells = []
        for name in LOOPS:
            one = times.sel(way=name, **at)
            cells.append(f"{float(one.median()):.1f} ({float(one.min()):.1f} – {float(one.max()):.1f})")
        apart = float(dataset["difference"].sel(at).max())
        drawn.add_row(str(depth), str(width), f"{float(spent.sel(at)) * 1e6:.0f}", *cells, f"{apart:.0e}")
    return drawn


def draw(figure: Figure, dataset: xarray.Dataset) -> None:
    """A panel per depth: the ratios over the width."""
    depths, widths = dataset["depth"].values, dataset["width"].values
    figure.set_size_inches(3.2 * len(depths) + 1, 3.8)
    times = ratios(dataset)
    panels = np.atleast_1d(figure.subplots(1, len(depths), sharey=True))
    for axes, depth in zip(panels, depths, strict=True):
        for (name, colour), mark in zip(FEATURE.items(), "osD", strict=True):
            one = times.sel(way=name, depth=depth)
            axes.fill_between(widths, one.min("round"), one.max("round"), color=colour, alpha=0.25, lw=0)
            axes.plot(widths, one.median("round"), color=colour, marker=mark, ms=5, label=f"loop of {name}")
        for level, what in ((LEAST, "6 times"), (1, "as fast")):
            axes.axhline(level, color="0.3", lw=0.8, ls=":" if level > 1 else "-", zorder=0)
            axes.annotate(what, (1, level), xycoords=axes.get_yaxis_transform(), fontsize=8, color="0.3", va="bottom")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        axes.set_title(f"{depth} hidden layers", loc="left", fontsize=10)
        axes.set_xlabel("width")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("times as long as jaxgain")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.05, 0.92))
    figure.suptitle("Training a grid: loops over jitted steps against jaxgain.train", fontsize=12, x=0.06, ha="left")
    figure.tight_layout(rect=(0, 0, 1, 0.9))


def main(words: Sequence[str] | None = None, default: TrainingSpeedConfig = TrainingSpeedConfig()) -> bool:
    """Run, judge and draw, with the options in `words`, of the process by default; return whether the claim holds."""
    with experiment("training_speed", default, words) as config:
        dataset = run(config)
    save_dataset(dataset, config.out / "training_speed.nc")
    figure = Figure()
    draw(figure, dataset)
    save_figure(figure, config.out / "training_speed.png")
    console().print(table(dataset))
    found = judge(dataset)
    holds = found["ratio"] >= LEAST and found["difference"] <= EQUAL
    print(
        f"At the sizes of the claim the loop in nnx.jit takes at least {found['ratio']:.1f} times as long, and losses "
        f"differ by at most {found['difference']:.1e} (at any size: {found['difference_anywhere']:.1e}).\n"
        f"The claim {'holds' if holds else 'FAILS'}, over {config.rounds} rounds of {config.steps} steps."
    )
    return holds


if __name__ == "__main__":
    main()
