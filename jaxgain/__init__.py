"""jaxgain: does the signal, and does its gradient, survive the depth, and which initialization makes them?

Names are loaded on first use, so that `import jaxgain` and the command line's `--help` are instant.

>>> import jaxgain as jg
>>> jg.SweepConfig(activations=["tanh"]).width
1000
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxgain import experiments, initializers, nn
    from jaxgain.activations import ACTIVATIONS, activation
    from jaxgain.figures.outcomes import draw_outcomes
    from jaxgain.figures.probe import draw_drift, draw_probe
    from jaxgain.figures.sweep import draw_sweep
    from jaxgain.figures.theory import draw_theory
    from jaxgain.figures.training import draw_training
    from jaxgain.probing.calibrate import Calibrated, calibrate
    from jaxgain.probing.monitor import Monitor, monitor
    from jaxgain.probing.probe import probe
    from jaxgain.probing.verdicts import Limits, Unhealthy, assert_healthy
    from jaxgain.propagation.config import SweepConfig
    from jaxgain.propagation.disagreement import disagreement
    from jaxgain.propagation.network import propagate
    from jaxgain.propagation.solve import solve_gain
    from jaxgain.propagation.summary import growth_per_layer, mean_and_error
    from jaxgain.propagation.sweep import sweep
    from jaxgain.propagation.vanishing import vanishing_fraction
    from jaxgain.theory.chain import chain_probabilities, initial_map, joint_law, sample_chain
    from jaxgain.theory.critical import critical_init
    from jaxgain.theory.depth_profile import mean_field
    from jaxgain.theory.dropout import dropout_fixed_point
    from jaxgain.theory.edge import NoEdge, edge_curve, edge_of_chaos, edges_of_chaos
    from jaxgain.theory.fixed_points import fixed_point, fixed_points
    from jaxgain.theory.fluctuations import fluctuations
    from jaxgain.theory.gains import NoSuchGain, gain, gain_table
    from jaxgain.theory.jacobian import jacobian_spectrum
    from jaxgain.theory.kernels import nngp, ntk
    from jaxgain.theory.meanfield import Init, chi_par, chi_perp, correlation_map, length_map
    from jaxgain.theory.outcomes import outcome_map
    from jaxgain.theory.phase_diagram import phase_diagram
    from jaxgain.theory.portrait import portrait
    from jaxgain.theory.quadrature import expectation
    from jaxgain.theory.vanishing import exact_layer_law, exploding_probability, vanishing_probability
    from jaxgain.training.config import TrainConfig
    from jaxgain.training.data import load_data
    from jaxgain.training.summary import accuracy_and_error, best_rates
    from jaxgain.training.train import train

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "Calibrated",
    "Init",
    "Limits",
    "Monitor",
    "NoEdge",
    "NoSuchGain",
    "SweepConfig",
    "TrainConfig",
    "Unhealthy",
    "accuracy_and_error",
    "activation",
    "assert_healthy",
    "best_rates",
    "calibrate",
    "chain_probabilities",
    "chi_par",
    "chi_perp",
    "correlation_map",
    "critical_init",
    "disagreement",
    "draw_drift",
    "draw_outcomes",
    "draw_probe",
    "draw_sweep",
    "draw_theory",
    "draw_training",
    "dropout_fixed_point",
    "edge_curve",
    "edge_of_chaos",
    "edges_of_chaos",
    "exact_layer_law",
    "expectation",
    "experiments",
    "exploding_probability",
    "fixed_point",
    "fixed_points",
    "fluctuations",
    "gain",
    "gain_table",
    "growth_per_layer",
    "initial_map",
    "initializers",
    "jacobian_spectrum",
    "joint_law",
    "length_map",
    "load_data",
    "mean_and_error",
    "mean_field",
    "monitor",
    "nn",
    "nngp",
    "ntk",
    "outcome_map",
    "phase_diagram",
    "portrait",
    "probe",
    "propagate",
    "sample_chain",
    "solve_gain",
    "sweep",
    "train",
    "vanishing_fraction",
    "vanishing_probability",
]

_HOME = {
    "ACTIVATIONS": "jaxgain.activations",
    "activation": "jaxgain.activations",
    "gain": "jaxgain.theory.gains",
    "gain_table": "jaxgain.theory.gains",
    "NoSuchGain": "jaxgain.theory.gains",
    "Init": "jaxgain.theory.meanfield",
    "length_map": "jaxgain.theory.meanfield",
    "correlation_map": "jaxgain.theory.meanfield",
    "chi_perp": "jaxgain.theory.meanfield",
    "chi_par": "jaxgain.theory.meanfield",
    "critical_init": "jaxgain.theory.critical",
    "edge_curve": "jaxgain.theory.edge",
    "edge_of_chaos": "jaxgain.theory.edge",
    "edges_of_chaos": "jaxgain.theory.edge",
    "NoEdge": "jaxgain.theory.edge",
    "fixed_point": "jaxgain.theory.fixed_points",
    "fixed_points": "jaxgain.theory.fixed_points",
    "phase_diagram": "jaxgain.theory.phase_diagram",
    "dropout_fixed_point": "jaxgain.theory.dropout",
    "mean_field": "jaxgain.theory.depth_profile",
    "nngp": "jaxgain.theory.kernels",
    "ntk": "jaxgain.theory.kernels",
    "jacobian_spectrum": "jaxgain.theory.jacobian",
    "portrait": "jaxgain.theory.portrait",
    "disagreement": "jaxgain.propagation.disagreement",
    "SweepConfig": "jaxgain.propagation.config",
    "propagate": "jaxgain.propagation.network",
    "solve_gain": "jaxgain.propagation.solve",
    "sweep": "jaxgain.propagation.sweep",
    "chain_probabilities": "jaxgain.theory.chain",
    "initial_map": "jaxgain.theory.chain",
    "joint_law": "jaxgain.theory.chain",
    "sample_chain": "jaxgain.theory.chain",
    "fluctuations": "jaxgain.theory.fluctuations",
    "outcome_map": "jaxgain.theory.outcomes",
    "exact_layer_law": "jaxgain.theory.vanishing",
    "exploding_probability": "jaxgain.theory.vanishing",
    "vanishing_probability": "jaxgain.theory.vanishing",
    "vanishing_fraction": "jaxgain.propagation.vanishing",
    "probe": "jaxgain.probing.probe",
    "calibrate": "jaxgain.probing.calibrate",
    "Calibrated": "jaxgain.probing.calibrate",
    "monitor": "jaxgain.probing.monitor",
    "Monitor": "jaxgain.probing.monitor",
    "draw_probe": "jaxgain.figures.probe",
    "draw_drift": "jaxgain.figures.probe",
    "assert_healthy": "jaxgain.probing.verdicts",
    "Limits": "jaxgain.probing.verdicts",
    "Unhealthy": "jaxgain.probing.verdicts",
    "TrainConfig": "jaxgain.training.config",
    "train": "jaxgain.training.train",
    "expectation": "jaxgain.theory.quadrature",
    "growth_per_layer": "jaxgain.propagation.summary",
    "mean_and_error": "jaxgain.propagation.summary",
    "best_rates": "jaxgain.training.summary",
    "accuracy_and_error": "jaxgain.training.summary",
    "load_data": "jaxgain.training.data",
    "draw_sweep": "jaxgain.figures.sweep",
    "draw_theory": "jaxgain.figures.theory",
    "draw_training": "jaxgain.figures.training",
    "draw_outcomes": "jaxgain.figures.outcomes",
}
_MODULES = ("experiments", "initializers", "nn")


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it (PEP 562)."""
    if name in _MODULES:
        return import_module(f"jaxgain.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'jaxgain' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
