import jax
import jax.numpy as jnp
import numpy as np


def test_mapped_small_products_with_a_reduction_are_right():
    # jax-ml/jax#39103: wrong in some rows with jax 0.9 and 0.10 on the CPU, which pyproject.toml excludes for it. All
    # optimizations, wherever the other tests have few.
    matrix, rows = (jax.random.normal(jax.random.key(seed), shape) for seed, shape in enumerate([(3, 3), (33_000, 3)]))
    options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    found = jax.jit(jax.vmap(lambda row: jnp.mean((matrix @ row) ** 2)), compiler_options=options)(rows)
    expected = np.mean((np.float64(rows) @ np.float64(matrix).T) ** 2, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
