"""Finite width, sampled: random linear maps, networks, and the sweep over gains and seeds."""
