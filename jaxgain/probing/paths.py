"""Main path and residual branches: which sites lie beside an identity, and whose output is added to it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxgain.probing.sites import Site, Use
from jaxgain.probing.values import Place, Value

PATHS = ("main", "branch", "branch end")


class Branch(NamedTuple):
    """A residual branch: the numbers of its sites, and of those whose output is what is added."""

    sites: frozenset[int]
    ends: frozenset[int]


def paths_of(sites: Sequence[Site]) -> list[str]:
    """Return one of `PATHS` for each site.

    Where h + f(h) is computed, the sites of f are a branch, and those that f was last computed from its end; but not
    sites in a loop in f, of which only the last turn is added.
    """
    branches = list(_branches(sites))
    inside = frozenset().union(*(branch.sites for branch in branches))
    ends = frozenset().union(*(branch.ends for branch in branches))
    return ["branch end" if site.index in ends else "branch" if site.index in inside else "main" for site in sites]


def _branches(sites: Sequence[Site]) -> Iterator[Branch]:
    within: dict[Place, set[int]] = defaultdict(set)
    for site in sites:
        for size in range(1, len(site.place) + 1):
            within[site.place[:size]].add(site.index)
    for use in _downstream([site.output for site in sites]):
        if use.equation.primitive.name not in ("add", "add_any") or not all(value.data for value in use.inputs):
            continue
        for stream, added in (use.inputs, use.inputs[::-1]):
            if stream is added or stream.shape != added.shape:
                continue
            found = _between(stream, added, use, within)
            if found & added.origins:
                yield Branch(found, frozenset(end for end in found & added.origins if _in_loops_of(use, sites[end])))
                break


def _in_loops_of(use: Use, site: Site) -> bool:
    """Whether the site is in no loop that the use is not in too."""
    return all(use.place[: len(loop.place)] == loop.place for loop in site.loops)


def _between(stream: Value, added: Value, use: Use, within: Mapping[Place, set[int]]) -> frozenset[int]:
    """Return the sites on the ways from the stream to what is added to it, if there are any."""
    onwards = [other for other in _downstream([stream]) if other.place < use.place]
    reaching, found = {id(added)}, set()
    for other in sorted(onwards, key=lambda other: other.place, reverse=True):
        if any(id(output) in reaching for output in other.outputs):
            reaching |= {id(value) for value in other.inputs}
            found |= within.get(other.place, set())
    return frozenset(found) if id(stream) in reaching else frozenset()


def _downstream(values: Iterable[Value]) -> list[Use]:
    """Return every equation, as far as it is in the same body, that something computed from these values enters."""
    found: dict[tuple[int, ...], Use] = {}
    queue = list(values)
    while queue:
        value = queue.pop()
        for use in (*value.users, *value.around):
            if use is not None and use.place not in found:
                found[use.place] = use
                queue += use.outputs
    return list(found.values())
