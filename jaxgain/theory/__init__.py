"""Infinite width: deterministic quantities of an activation, in float64."""
