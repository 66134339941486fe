"""Sampling as pure functions: within the caller's `jit`, `vmap` and `grad`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.errors import InputError
from syncos_jax.sampling import FIFO, CoDenoising, Sampling, SynCoS, sample
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=8, window=4, stride=2)  # 3 windows
SCHEDULE = NoiseSchedule.from_betas(beta_end=0.006)
SHORT = SynCoS(steps=2, iterations=2, t_min=400, learning_rate=0.2, guidance=2.0)
MINIBATCH = SHORT.replace(windows_per_step=1)  # of some frames no window is chosen
NETWORK = Network()
# Of this kind, vmap draws what single keys draw.
KEYS = jax.random.split(jax.random.key(0), 3)
# Of this kind they compile several times faster on a CPU.
KEY = jax.random.key(5, impl="rbg")


def arguments(sampler=SHORT, **changes):
    entries = LAYOUT.frames if sampler.lookahead is not None else LAYOUT.count
    return {
        "cond": conditioning(entries),
        "uncond": conditioning(entries, seed=1),
        "params": parameters(),
        "layout": LAYOUT,
        "frame_shape": FRAME,
        "schedule": SCHEDULE,
        "sampler": sampler,
    } | changes


SAMPLERS = {"syncos": SHORT.replace(eta=0.5), "fifo": FIFO(steps=4)}


@pytest.mark.parametrize("name", SAMPLERS)
def test_vmap_over_seeds_is_separate_runs(name):
    given = arguments(SAMPLERS[name])
    network = Network()
    together = jax.jit(jax.vmap(Sampling(network, **given)))(KEYS)
    assert together.shape == (3, LAYOUT.frames, *FRAME) and network.traces == 1
    for i, key in enumerate(KEYS):
        alone = sample(NETWORK, **given, key=key)
        close = 1e-5 * max(1.0, np.abs(alone).max())
        np.testing.assert_allclose(together[i], alone, rtol=0, atol=close)
    assert np.abs(together[0] - together[1]).max() > 0.1


def test_windows_drawn_by_a_seed_are_the_same_for_all_keys():
    run = Sampling(NETWORK, **arguments(MINIBATCH), seed=(3, 4))
    other = Sampling(NETWORK, **arguments(MINIBATCH), seed=(5,))
    assert not np.array_equal(run.calls.windows, other.calls.windows)
    of_key = tuple(np.asarray(jax.random.key_data(KEY)).tolist())
    by_seed = Sampling(NETWORK, **arguments(MINIBATCH), seed=of_key)(KEY)
    alone = sample(NETWORK, **arguments(MINIBATCH), key=KEY)
    np.testing.assert_allclose(by_seed, alone, rtol=0, atol=1e-5)
    assert np.abs(run(KEY) - alone).max() > 1e-3


def test_step_by_step_it_is_the_whole():
    run = Sampling(NETWORK, **arguments())
    step, carry = jax.jit(run.step), run.init(KEY)
    for i in range(len(run.calls.index)):
        carry = step(carry, jax.tree.map(lambda column, i=i: column[i], run.calls))
    np.testing.assert_allclose(run.result(carry), run(KEY), rtol=0, atol=1e-5)


def test_sample_within_jit_and_vmap():
    given = arguments(CoDenoising(steps=3))
    cond = given.pop("cond")

    def one(cond, key):
        return sample(NETWORK, cond, **given, key=key)

    plain = one(cond, KEYS[1])
    np.testing.assert_allclose(jax.jit(one)(cond, KEYS[1]), plain, rtol=0, atol=1e-5)
    over_keys = jax.jit(jax.vmap(one, in_axes=(None, 0)))(cond, KEYS)
    np.testing.assert_allclose(over_keys[1], plain, rtol=0, atol=1e-5)
    conds = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), cond)
    over_conds = jax.vmap(one, in_axes=(0, None))(conds, KEYS[1])
    np.testing.assert_allclose(over_conds[0], plain, rtol=0, atol=1e-5)
    assert np.abs(over_conds[1] - plain).max() > 1e-3
    old = jax.random.key_data(KEYS[1])
    np.testing.assert_allclose(jax.jit(one)(cond, old), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "old"])
def test_with_a_known_key_windows_are_drawn_within_jit_too(key):
    given = arguments(MINIBATCH)
    cond = given.pop("cond")
    plain = sample(NETWORK, cond, **given, key=key)
    # Nothing of it is traced, but it is within jit.
    inside = jax.jit(lambda: sample(NETWORK, cond, **given, key=key))()
    np.testing.assert_allclose(inside, plain, rtol=0, atol=1e-5)


def finite(tree):
    leaves = jax.tree.leaves(tree)
    return all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("sampler", [SHORT, MINIBATCH, FIFO(steps=4)], ids=["all", "one", "fifo"])
def test_gradients_of_one_step_are_finite(sampler):
    """Of a call of stage 1 and one of stage 2 (for FIFO of the clip, and of the queue)."""
    given = arguments(sampler)
    latents = jax.random.normal(KEY, (4 if sampler.lookahead else 8, *FRAME))

    def after(at, params, cond, latents):
        run = Sampling(NETWORK, **given | {"params": params, "cond": cond}, seed=(0,))
        carry = run.init(KEY, latents)
        call = jax.tree.map(lambda column: column[at], run.calls)
        state = run.step(carry, call).carry.state
        return sum(jnp.square(leaf).sum() for leaf in (state[0], state[1]))

    run = Sampling(NETWORK, **given, seed=(0,))
    stage_2 = run.updates.refine if sampler.lookahead is None else run.updates.iteration >= 0
    stage_2 = np.asarray(stage_2[run.calls.update])
    ends = np.asarray(run.calls.last)
    calls = [int(np.argmax(ends & (stage_2 == second))) for second in (False, True)]
    assert calls[0] < calls[1]
    gradient = jax.jit(jax.grad(after, argnums=(1, 2, 3)))
    for call in calls:
        of_params, of_cond, of_latents = gradient(call, given["params"], given["cond"], latents)
        for tree in (of_params, of_cond, of_latents):
            assert finite(tree)
            assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("sampler", [MINIBATCH, FIFO(steps=4)], ids=["one", "fifo"])
def test_gradients_of_a_whole_run_are_those_of_differences(sampler):
    given = arguments(sampler)
    target = jax.random.normal(KEY, (LAYOUT.frames, *FRAME))

    @jax.jit
    def loss(params):
        result = sample(NETWORK, **given | {"params": params}, key=KEY)
        return jnp.square(result - target).mean()

    gradient = jax.jit(jax.grad(loss))(given["params"])
    assert finite(gradient)
    direction = jax.tree.map(lambda leaf: leaf / norm(gradient), gradient)
    step = 1e-2

    def at(distance):
        moved = jax.tree.map(lambda p, d: p + distance * d, given["params"], direction)
        return float(loss(moved))

    slope = (at(step) - at(-step)) / (2 * step)
    assert slope == pytest.approx(float(norm(gradient)), rel=0.02)


def norm(tree):
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))


def test_what_cannot_be_had_within_jit():
    given = arguments(MINIBATCH)
    refused = {
        "draws windows or timesteps": given,
        "not available within jit": arguments() | {"progress": lambda done, total: None},
        "omit progress and mesh": arguments() | {"mesh": make_mesh(1)},
        "sampler must be settings": arguments() | {"sampler": "syncos"},
        r"frame_shape must be": arguments() | {"frame_shape": (2, 2)},
        "a leading axis of the 3 windows": arguments() | {"cond": conditioning(2)},
        r"latents has shape": arguments() | {"latents": jnp.zeros((3, *FRAME))},
        r"step_noise has shape": arguments() | {"step_noise": jnp.zeros((3, *FRAME))},
        "denoise must be a function": arguments() | {"denoise": 3},
    }
    for message, values in refused.items():
        values = {"denoise": NETWORK} | values
        with pytest.raises(InputError, match=message):
            jax.jit(lambda key, values=values: sample(**values, key=key))(KEYS[0])
    with pytest.raises(InputError, match="with a seed"):
        Sampling(NETWORK, **arguments(SHORT.replace(grounded_timestep=False)))
