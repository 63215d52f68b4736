"""The benchmark's opponents, in PyTorch, which is no dependency: the forum's loop, and the best dense code."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch  # pyright: ignore[reportMissingImports]


def forum_loops(gains: Sequence[float], *, width: int, depth: int) -> None:
    """`forum_loop` for one gain after another."""
    for gain in gains:
        forum_loop(gain, width=width, depth=depth)


def forum_loop(gain: float, *, width: int, depth: int) -> tuple[list[float], list[float]]:
    """Std and gradient rms of layers 1 … depth, the way people find them: a fresh layer at a time, then `backward`."""
    h, activations = torch.randn(width), []
    for _ in range(depth):
        layer = torch.nn.Linear(width, width, bias=False)
        torch.nn.init.xavier_normal_(layer.weight, gain)
        h = layer(h).tanh()
        h.retain_grad()
        activations.append(h)
    h.sum().backward()
    return [h.std().item() for h in activations], [h.grad.square().mean().sqrt().item() for h in activations]


def dense_sweep(gains: Sequence[float], *, seeds: int, width: int, depth: int) -> dict[str, Any]:
    """As fast as we can: a draw of W per seed and layer, all gains as rows of one matmul, the way back by hand.

    Matrices are kept for the way back, since drawing one again costs several times reading it. Returns q, mean,
    std, second moment and the logs of the gradients' rms, mean absolute value and rms entry of ∂loss/∂W, each of
    shape (seeds, depth, gains); the gradient is scaled to unit rms in each layer and its logarithm carried.
    """
    with torch.no_grad():
        scale = torch.tensor(gains)[:, None] / math.sqrt(width)
        weights, h = _room(depth, width, width), _room(depth + 1, len(gains), width)
        z, gradient, buffer = (_room(len(gains), width, copy=copy) for copy in range(3))
        networks = []
        for seed in range(seeds):
            generators = generators_of(seed)
            h[0] = _unit_rms(torch.randn(1, width, generator=generators[0]))
            records = []
            for layer in range(depth):
                draw_normal(weights[layer], generators)
                torch.mm(h[layer], weights[layer], out=z).mul_(scale)
                after = torch.tanh(z, out=h[layer + 1])
                mean = after.mean(dim=1)
                std = _rms(torch.sub(after, mean[:, None], out=buffer))
                records.append([_rms(z).square(), mean, std, _rms(after).square()])
            gradient.copy_(torch.randn(1, width, generator=generators[0]))
            log_scale = torch.zeros(len(gains))
            for layer in reversed(range(depth)):
                rms = _rms(gradient)
                mean_abs = torch.linalg.vector_norm(gradient, 1, dim=1) / width
                torch.mul(h[layer + 1], h[layer + 1], out=buffer)
                delta = torch.addcmul(gradient, gradient, buffer, value=-1, out=buffer)
                weight_rms = _rms(delta) * _rms(h[layer])
                records[layer] += [log_scale + x.log() for x in (rms, mean_abs, weight_rms)]
                torch.mm(delta, weights[layer].T, out=gradient).mul_(scale / rms[:, None])
                log_scale = log_scale + rms.log()
            networks.append(torch.stack([torch.stack(record) for record in records], dim=1))
        names = ("q", "mean", "std", "second_moment", "log_grad_rms", "log_grad_mean_abs", "log_weight_grad_rms")
        return dict(zip(names, torch.stack(networks, dim=1), strict=True))


def draw_normal(matrix: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Fill and return a matrix of standard normals, a band of rows per thread: PyTorch itself draws with one thread."""
    bands = matrix.chunk(len(generators))
    list(_threads().map(lambda band, generator: band.normal_(generator=generator), bands, generators))
    return matrix


def generators_of(seed: int) -> list[torch.Generator]:
    """A generator of random numbers per thread."""
    threads = torch.get_num_threads()
    return [torch.Generator().manual_seed(seed * threads + thread) for thread in range(threads)]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads())


@cache
def _room(*shape: int, copy: int = 0) -> torch.Tensor:
    """A buffer that outlives the call: fresh memory costs a page fault per 4 KiB."""
    return torch.zeros(shape)


def _rms(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=-1) / math.sqrt(x.shape[-1])


def _unit_rms(x: torch.Tensor) -> torch.Tensor:
    return x / _rms(x)[..., None]
