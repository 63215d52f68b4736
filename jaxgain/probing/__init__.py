"""Models people have: where the signal and the gradient go, and what to change."""
