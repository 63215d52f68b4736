r"""How a sweep is cut so that it fits into memory: gains, devices and seeds at a time.

Which gains run together decides the last bits of a result, as the compiler groups sums by the size of the batch. So
that follows from the settings alone; how many seeds and devices run at a time changes nothing, and follows from the
memory.
"""

import dataclasses
import math
from typing import NamedTuple

from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.network import OF_TANGENTS, setting_of
from jaxgain.propagation.program import neurons_at_once
from jaxgain.propagation.settings import OF_PAIRS, OF_REVERSE

# Working memory from which the gains of a seed are met in several batches.
BYTES_AT_ONCE = 2**30

# Seeds that one device runs before the host hears of it: at least 2, and more of small networks.
SEEDS_AT_ONCE = (2, 16)
NEURONS_OF_CALL = 2**26


class Plan(NamedTuple):
    """How a sweep is cut."""

    at_widths: tuple[SweepConfig, ...]
    """The sweep of each width."""
    activations: int
    gains: int
    gains_at_once: int
    """Gains of a batch; with all that is swept beside them, each."""
    seeds: int
    seeds_at_once: int
    """Per device."""
    devices: int
    bytes: int
    """The working memory, JAX's own and the compiler's not counted."""

    @property
    def batches(self) -> int:
        """Batches of gains."""
        return -(-self.gains // self.gains_at_once)

    @property
    def tasks(self) -> int:
        """Seeds, in every batch of gains of every activation and width."""
        return len(self.at_widths) * self.activations * self.batches * self.seeds

    def place(self, task: int) -> tuple[int, int, slice]:
        """Width and activation of a task, by their index, and its batch of gains; its seed is `task % seeds`."""
        rest, batch = divmod(task // self.seeds, self.batches)
        width, phi = divmod(rest, self.activations)
        start = batch * self.gains_at_once
        return width, phi, slice(start, min(start + self.gains_at_once, self.gains))

    def __str__(self) -> str:
        """In words, for people."""
        devices = f"{self.devices} device{'s' * (self.devices > 1)}"
        gains = f"{self.gains_at_once} of {self.gains} gains" if self.batches > 1 else f"{self.gains} gains"
        return f"{gains} × {self.devices * self.seeds_at_once} seeds at a time on {devices}, {_amount(self.bytes)}"


def plan_sweep(config: SweepConfig, activations: int, gains: int, devices: int, *, in_memory: bool) -> Plan:
    """Cut a sweep to `config.memory`; with `in_memory` that holds all results too.

    Raises `ValueError` where the smallest pieces do not fit.
    """
    at_widths = tuple(dataclasses.replace(config, width=width, widths=()) for width in config.widths or (config.width,))
    widest = at_widths[-1]
    beside = math.prod(len(values) for name, values in config.swept().items() if name != "width")
    batches = next(n for n in range(1, gains + 1) if n == gains or _fits(widest, -(-gains // n) * beside))
    together = -(-gains // batches)
    networks = together * beside

    of_device, of_seed = working_bytes(widest, networks), result_bytes(widest, networks)
    at_a_time = _seeds_at_once(widest, networks)
    whole = 2 * of_seed * batches * config.seeds * activations * len(at_widths) if in_memory else 0
    limit = config.memory * 2**30

    def need(devices: int, seeds: int) -> int:
        # What a device fills, what the host fetches and puts in order, of this call and the one before.
        return devices * (of_device + 4 * seeds * of_seed) + whole

    devices = next((n for n in range(min(devices, config.seeds), 1, -1) if need(n, SEEDS_AT_ONCE[0]) <= limit), 1)
    while at_a_time > SEEDS_AT_ONCE[0] and need(devices, at_a_time) > limit:
        at_a_time //= 2
    if need(devices, at_a_time) > limit:
        remedies = "lower width, depth, the number of gains or the statistics, or raise record_every"
        remedies += ", or give the sweep a folder, where it keeps what memory cannot" if whole else ""
        raise ValueError(
            f"this sweep needs about {_amount(need(devices, at_a_time))} and memory is {config.memory:g} GiB; "
            f"raise memory, or {remedies}"
        )
    sizes = (activations, gains, together, config.seeds, at_a_time, devices)
    return Plan(at_widths, *sizes, bytes=need(devices, at_a_time))


def _fits(config: SweepConfig, networks: int) -> bool:
    return working_bytes(config, networks) + 4 * result_bytes(config, networks) <= BYTES_AT_ONCE


def _seeds_at_once(config: SweepConfig, networks: int) -> int:
    """A power of 2: as many as keep a device busy for a good part of a second, or a little more."""
    least, most = SEEDS_AT_ONCE
    neurons = max(setting_of(config).widths) * config.depth * networks * _rows(config)
    if config.weights == "dense":
        neurons *= max(setting_of(config).widths)
    return max(least, min(most, 2 ** int(math.log2(max(1, NEURONS_OF_CALL / neurons)))))


def _rows(config: SweepConfig) -> int:
    return config.inputs * (1 + config.directions * bool(set(OF_TANGENTS) & set(config.statistics)))


def working_bytes(config: SweepConfig, networks: int) -> int:
    """What a device needs to run the networks of one seed."""
    setting, signals, rows = setting_of(config), config.inputs, _rows(config)
    width = max(setting.widths)
    met = min(width, neurons_at_once(networks)) if setting.carries_means else width
    final_depths = max(1, len(config.depths))
    # Whole layers of numbers: those of the layer and of layer 0, the bits that they come from, and the network's ends.
    live = 4 * met * networks * (6 * rows + 4) * final_depths + 24 * width * rows
    if setting.carries_vectors:
        live += 4 * width * networks * rows * (config.depth + 12)
    if config.weights == "dense":
        maps = {"one_layer": 1, "two_layer": 2, "glu": 2, "glu_ffn": 3}[config.branch]
        live += 4 * width * (2 * maps * width + signals * networks * config.depth)
    carried = 4 * config.depth * networks * (3 * rows**2 + 8 * rows)
    return live + carried


def result_bytes(config: SweepConfig, networks: int) -> int:
    """What is recorded of the networks of one seed."""
    kept = config.inputs if config.keep_inputs else 1
    sizes = dict.fromkeys(OF_PAIRS, config.inputs**2) | {"log_singular_values": config.directions * kept}
    final_depths = max(1, len(config.depths))
    recorded = sum(sizes.get(name, kept) * (final_depths if name in OF_REVERSE else 1) for name in config.statistics)
    return 4 * networks * (1 + config.depth // config.record_every) * recorded


def _amount(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 0.05 * 2**30 else f"{max(1, round(count / 2**20))} MiB"
