"""Experiments run in the process of the tests, which has its devices and keeps nothing that is compiled."""

import pytest

from jaxgain.cli import arguments


@pytest.fixture(autouse=True)
def prepared(monkeypatch):
    """How often JAX was prepared: once in the list for each time."""
    times = []
    monkeypatch.setattr(arguments, "prepare_jax", lambda: times.append(None))
    return times
