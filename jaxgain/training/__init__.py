"""Short training runs over initializations, depths, learning rates and seeds."""
