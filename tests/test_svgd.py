"""The collaborative score against automatic differentiation and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from syncos_jax.sampling.svgd import bandwidth, collaborative_score, squared_distances


def particles(count, *shape, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(scale * rng.normal(size=(count, *shape)), jnp.float32)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_equals_the_kernel_differentiated(count):
    x, s, b = particles(count, 3, 5), particles(count, 3, 5, seed=1), 0.7
    flat = x.reshape(count, -1)
    d = jnp.array([[jnp.sum((p - q) ** 2) for q in flat] for p in flat])
    h = jnp.median(d) / np.log(count + 1)

    def kernel(p, q):
        return jnp.exp(-jnp.sum((p - q) ** 2) / h)

    expected = []
    for i in range(count):
        g = jnp.zeros_like(x[0])
        for j in range(count):
            g += kernel(x[i], x[j]) * s[j] + jax.grad(kernel)(x[i], x[j])
        expected.append(b**2 / count * g)
    score = collaborative_score(x, s, b)
    np.testing.assert_allclose(score, np.stack(expected), rtol=1e-5, atol=1e-6)


def test_descending_pushes_two_particles_apart():
    x = jnp.asarray([[0.0, 0.0], [1.0, 0.0]])
    score = collaborative_score(x, jnp.zeros_like(x), 1.0)
    after = x - 0.1 * score
    assert after[0, 0] < x[0, 0] and after[1, 0] > x[1, 0]
    np.testing.assert_allclose(score[0], -score[1], atol=1e-7)


def test_median_is_over_all_entries_with_the_diagonal():
    d = jnp.asarray([[0.0, 4.0], [4.0, 0.0]])  # median of 0, 0, 4, 4
    np.testing.assert_allclose(bandwidth(d), 2.0 / np.log(3.0), rtol=1e-6)


def test_one_window_is_plain_score_distillation():
    x, s = particles(1, 4), particles(1, 4, seed=1)
    np.testing.assert_allclose(collaborative_score(x, s, 0.5), 0.25 * s, rtol=1e-6)


def test_windows_all_alike_share_the_mean_score():
    x = jnp.broadcast_to(particles(1, 4), (3, 4))
    s = particles(3, 4, seed=1)
    score = collaborative_score(x, s, 1.0)
    np.testing.assert_allclose(score, np.broadcast_to(s.mean(axis=0), (3, 4)), rtol=1e-5)


def test_distances_keep_precision_far_from_the_origin():
    x = 1000.0 + particles(5, 64, scale=0.01)
    exact = np.asarray(x, np.float64)
    exact = ((exact[:, None] - exact[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(squared_distances(x), exact, rtol=1e-4, atol=1e-8)
