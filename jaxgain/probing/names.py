"""Sites as rows: loops unrolled, each row with a name, and with the rows that play the same part at other depths."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jaxgain.probing.sites import Loop, Site
from jaxgain.probing.trace import Traced
from jaxgain.probing.values import Place, Source

Turns = tuple[int, ...]
Parts = tuple[str, ...]  # of a name: ("layers[3]", "attention", "query", "kernel")


@dataclass(frozen=True)
class Row:
    """One site in one turn of the loops around it."""

    site: int
    turns: Turns
    name: str
    parents: tuple[int, ...]  # rows that it was last computed from, as far as they are in the same turn


def rows_of(traced: Traced) -> list[Row]:
    """Return a row for every turn of every site, in the order in which the program runs them."""
    placed = list(_in_order(traced.sites, 0, ()))
    names = _Names(traced)
    taken: Counter[str] = Counter()
    rows: list[Row] = []
    numbers = {place: number for number, place in enumerate(placed)}
    for index, turns in placed:
        name = ".".join(names.parts(traced.sites[index], turns))
        taken[name] += 1
        site = traced.sites[index]
        parents = {
            numbers[parent, turns[: len(traced.sites[parent].loops)]]
            for parent in frozenset().union(*site.parents)
            if _encloses(traced.sites[parent].loops, site.loops)
        }
        shown = name if taken[name] == 1 else f"{name} ({taken[name]})"
        rows.append(Row(index, turns, shown, tuple(sorted(parents))))
    return rows


def _encloses(outer: Sequence[Loop], inner: Sequence[Loop]) -> bool:
    return list(inner[: len(outer)]) == list(outer)


def _in_order(sites: Sequence[Site], depth: int, turns: Turns) -> "itertools.chain[tuple[int, Turns]]":
    return itertools.chain.from_iterable(_grouped(sites, depth, turns))


def _grouped(sites: Sequence[Site], depth: int, turns: Turns):
    for loop, group in itertools.groupby(sites, lambda site: site.loops[depth] if len(site.loops) > depth else None):
        inside = list(group)
        if loop is None:
            yield [(site.index, turns) for site in inside]
        else:
            order = range(loop.length)
            for turn in reversed(order) if loop.reverse else order:
                yield _in_order(inside, depth + 1, (*turns, turn))


class _Names:
    def __init__(self, traced: Traced):
        self.traced = traced
        self.prefixes = {loop.place: self._prefix(loop.place) for site in traced.sites for loop in site.loops}

    def _prefix(self, loop: Place) -> int:
        """Return how much of their paths the parameters share that a loop goes through: the stack's own name."""
        leaves = {
            site.source.leaf
            for site in self.traced.sites
            if site.source is not None and any(pick.loop == loop for pick in site.source.picks)
        }
        paths = [self.traced.leaves[leaf].path for leaf in leaves]
        if not paths:
            return 1
        # Its name ends before that of the parameter itself, unless there is nothing else.
        short = [path if isinstance(path[-1], int) else path[:-1] for path in paths]
        common = 0
        while all(len(path) > common for path in short) and len({path[common] for path in short}) == 1:
            common += 1
        return max(1, common)

    def parts(self, site: Site, turns: Turns) -> Parts:
        if site.source is not None:
            return self._of_parameter(site, site.source, turns)
        if site.operation == "product":
            return self._of_product(site, turns)
        return (f"{site.operation}{_number(turns, '@')}",)

    def _of_parameter(self, site: Site, source: Source, turns: Turns) -> Parts:
        path = self.traced.leaves[source.leaf].path or (f"argument{source.leaf}",)
        marks: dict[int, str] = {}
        used = set()
        for loop, turn in zip(site.loops, turns, strict=True):
            if any(pick.loop == loop.place for pick in source.picks):
                at = min(self.prefixes[loop.place], len(path))
                marks[at] = marks.get(at, "") + f"[{turn}]"
                used.add(loop.place)
        shared = [turn for loop, turn in zip(site.loops, turns, strict=True) if loop.place not in used]
        for pick in source.picks:
            if pick.loop is None:
                part = f"[{pick.start}]" if pick.stop == pick.start + 1 else f"[{pick.start}:{pick.stop}]"
                marks[len(path)] = marks.get(len(path), "") + part
        parts: list[str] = []
        for number, part in enumerate(path, start=1):
            if isinstance(part, int) and parts:
                parts[-1] += f"[{part}]"
            else:
                parts.append(str(part))
            parts[-1] += marks.get(number, "")
        parts[-1] += _number(tuple(shared), "@")
        return tuple(parts)

    def _of_product(self, site: Site, turns: Turns) -> Parts:
        """Name a product after what it multiplies: attention.query·key."""
        operands = []
        for parents in site.parents:
            near = [self.traced.sites[parent] for parent in sorted(parents) if parent < site.index]
            near = [parent for parent in near if _encloses(parent.loops, site.loops)]
            operands.append(self.parts(near[-1], turns[: len(near[-1].loops)]) if near else ("input",))
        stems = [parts[:-1] if len(parts) > 1 and "·" not in parts[-1] else parts for parts in operands]
        common = 0
        while all(len(stem) > common + 1 for stem in stems) and stems[0][common] == stems[1][common]:
            common += 1
        labels = [".".join(stem[common:]) for stem in stems]
        labels = [f"({label})" if "·" in label else label for label in labels]
        return (*stems[0][:common], "·".join(labels))


def _number(turns: Turns, sign: str) -> str:
    return sign + ",".join(map(str, turns)) if turns else ""


def chains_of(names: Sequence[str]) -> list[str]:
    """Return for each name that of its chain: the name with one number replaced by #, as many share it as possible.

    >>> chains_of(["blocks[0].conv1", "blocks[0].conv2", "blocks[1].conv1", "blocks[1].conv2", "head"])
    ['blocks[#].conv1', 'blocks[#].conv2', 'blocks[#].conv1', 'blocks[#].conv2', 'head']
    >>> chains_of(["mlp/linear.w", "mlp/linear_1.w"])
    ['mlp/linear_#.w', 'mlp/linear_#.w']
    """
    options = [_templates(name) for name in names]
    counts = Counter(template for templates in options for template in set(templates))
    return [max(templates, key=lambda template: counts[template]) for templates in options]


def _templates(name: str) -> list[str]:
    """Return the name with each of its numbers replaced in turn, itself, and with the number 0 that Haiku omits."""
    numbered = [name[: found.start()] + "#" + name[found.end() :] for found in re.finditer(r"\d+", name)]
    omitted = [name[: found.end()] + "_#" + name[found.end() :] for found in re.finditer(r"[A-Za-z_]\b", name)]
    return [*numbered, name, *omitted]
