"""A run in parts: watched, stopped, put back, gone wrong, out of memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import monitoring
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.errors import InputError
from syncos_jax.sampling import CoDenoising, SynCoS, failures, memory, sample, start
from syncos_jax.sampling import run as runs
from syncos_jax.sampling.failures import DeviceMemoryError, NonFiniteError
from syncos_jax.sampling.run import run_to_end
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=10, window=4, stride=2)  # 4 windows
NETWORK = Network()
PARTIAL = SynCoS(steps=3, iterations=2, t_min=400, windows_per_call=3, learning_rate=0.1)


def arguments(**changes):
    return {
        "cond": conditioning(LAYOUT.count),
        "params": parameters(),
        "layout": LAYOUT,
        "frame_shape": FRAME,
        "schedule": NoiseSchedule.from_betas(beta_end=0.006),
        "sampler": PARTIAL,
        "key": jax.random.key(0, impl="rbg"),
    } | changes


def fresh(**changes):
    return start(NETWORK, **arguments(**changes))


@pytest.fixture(scope="module")
def whole():
    """The result, and how often the network was traced for it."""
    before = NETWORK.traces
    result = np.asarray(sample(NETWORK, **arguments()))
    assert NETWORK.traces == before + 1
    return result


def test_parts_of_every_length_are_one_program_and_the_same_video(whole):
    before = NETWORK.traces
    run = fresh()
    for calls in (1, 1, 3, 0, 2):  # across the ends of updates and steps
        run.advance(calls)
    assert run.next_call == 7 < run.num_calls
    run.wait()
    run.advance()
    assert run.next_call == run.num_calls
    run.advance()  # nothing is left
    np.testing.assert_array_equal(run.latents(), whole)
    assert NETWORK.traces == before


def test_a_state_kept_on_the_host_goes_on_bit_for_bit(whole):
    run, other = fresh(), fresh(key=jax.random.key(0, impl="rbg"))
    run.advance(5)
    assert not run.call_schedule.calls.first[5]  # in the middle of a update
    kept = jax.tree.map(np.asarray, run.carry)
    other.advance(2)
    other.restore(run.samples_done, kept)
    assert other.next_call == 5
    run_to_end(other)
    np.testing.assert_array_equal(other.latents(), whole)
    other.restore(run.samples_done, kept)  # `kept` has not been given away; the rest as one part
    other.advance()
    np.testing.assert_array_equal(other.latents(), whole)


def test_a_state_goes_on_with_other_numbers_of_clips(whole):
    """From every call of calls of 2, 3 and 4 windows, to calls of other sizes."""
    sizes = {batch: fresh(sampler=PARTIAL.replace(windows_per_call=batch)) for batch in (1, 2, 4)}
    assert [run.call_schedule.samples_per_call for run in sizes.values()] == [1, 2, 4]
    run = sizes[1]
    total = run.samples_done + sum(run.call_schedule.used.sum(axis=1))
    for call in (1, 2, 5, 6, 11):
        run.advance(call - run.next_call)
        done, kept = run.samples_done, jax.tree.map(np.asarray, run.carry)
        for batch in (2, 4):
            other = sizes[batch]
            other.restore(done, kept)
            # Where no call begins there, from the beginning of the update, 4 samples each.
            exact = done % batch == 0
            assert other.samples_done == (done if exact else done // 4 * 4)
            other.advance()
            np.testing.assert_allclose(other.latents(), whole, rtol=0, atol=1e-5)
            assert other.samples_done == total
        run.restore(done, kept)


def test_a_state_at_the_end_is_the_result(whole):
    run, other = fresh(), fresh()
    run.advance()
    other.restore(run.samples_done, run.carry)
    assert other.next_call == other.num_calls
    np.testing.assert_array_equal(other.latents(), whole)


def test_a_state_of_another_run_is_refused():
    run = fresh()
    state = run.carry.state
    longer = run.carry._replace(state=state._replace(x=jnp.zeros((12, *FRAME))))
    with pytest.raises(InputError, match="the carry belongs to another run"):
        run.restore(1, longer)
    with pytest.raises(InputError, match="the carry belongs to another run"):
        run.restore(1, state)
    total = int(run.call_schedule.used.sum())
    for samples in (-1, total + 1):
        with pytest.raises(InputError, match=f"samples_done must be 0 to {total}, got {samples}"):
            run.restore(samples, run.carry)
    with pytest.raises(InputError, match="calls have not run yet"):
        run.latents()


def test_progress_and_pauses():
    seen, paused = [], []

    def pause(run):
        run.check()
        paused.append((run.next_call, bool(jnp.isfinite(run.carry.state.x).all())))

    run = fresh()
    run_to_end(run, progress=lambda *at: seen.append(at), pause=pause, pause_seconds=0)
    assert seen[0] == (1, run.num_calls) and seen[-1] == (run.num_calls, run.num_calls)
    assert seen == sorted(set(seen))
    assert paused == [(done, True) for done, _ in seen]

    rare = []
    run_to_end(fresh(), pause=lambda run: rare.append(run.next_call), pause_seconds=3600)
    assert rare == [run.num_calls]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_raised_between_parts_stops_the_run_and_it_can_go_on(error, whole):
    def stop(done, total):
        if done >= 2:
            raise error

    run = fresh()
    with pytest.raises(error):
        run_to_end(run, progress=stop, part_seconds=0.0)
    assert 2 <= run.next_call < run.num_calls
    run_to_end(run)
    np.testing.assert_array_equal(run.latents(), whole)


def breaks_at_low_noise(params, x, t, cond):
    """Not finite for the window of the largest text, at timesteps below 700."""
    largest = cond["text"][:, 0, 0] > 1.5
    value = jnp.where(largest & (t < 700), jnp.float32(jnp.nan), jnp.float32(0.1))
    return value[:, None, None, None, None] * x


def marked(window):
    text = np.zeros((LAYOUT.count, 4, 5), np.float32)
    text[window] = 2.0
    return {"text": text}


@pytest.mark.parametrize("watched", [True, False])
def test_a_prediction_that_is_not_finite_is_named(watched):
    sampler = SynCoS(steps=3, iterations=1, t_min=900, windows_per_call=3)
    given = arguments(sampler=sampler, cond=marked(3))
    call_schedule = start(breaks_at_low_noise, **given).call_schedule
    t = call_schedule.updates.t[call_schedule.calls.update]
    expected = next(
        call
        for call in range(len(call_schedule))
        if t[call] < 700 and 3 in call_schedule.calls.windows[call]
    )
    step = int(call_schedule.updates.step[call_schedule.calls.update[expected]]) + 1
    watch = {"progress": lambda done, total: None} if watched else {}
    with pytest.raises(NonFiniteError) as caught:
        sample(breaks_at_low_noise, **given, **watch)
    error = caught.value
    assert isinstance(error, InputError)
    assert error.call == expected and error.windows == (3,) and error.video == 0
    assert (
        f"call {expected + 1} of {len(call_schedule)}, step {step} of 3, timestep {t[expected]:g} "
        "(co-denoising), windows 2-3 of 0-3: NaN or Inf in the prediction for 3" in str(error)
    )
    assert "lower the sampler's learning_rate" in str(error)


def test_the_last_good_state_is_kept():
    """No pause sees a state that has gone wrong."""
    sampler = SynCoS(steps=6, iterations=1, t_min=900, windows_per_call=2)
    run = start(breaks_at_low_noise, **arguments(sampler=sampler, cond=marked(0)))
    kept = []

    def keep(run):
        kept.append((run.next_call, jax.tree.map(np.asarray, run.carry)))

    with pytest.raises(NonFiniteError) as caught:
        run_to_end(run, pause=keep, pause_seconds=0, part_seconds=0.0)
    call, carry = kept[-1]
    assert 0 < call <= caught.value.call
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(carry))


def test_a_last_step_that_diverges_is_said():
    sampler = SynCoS(steps=1, iterations=1, t_min=0, learning_rate=3e38, weight_decay=1e5)
    with pytest.raises(NonFiniteError, match="diverged at call .*: the result holds NaN or Inf"):
        sample(NETWORK, **arguments(sampler=sampler))


def test_the_most_windows_that_fit():
    run = fresh(layout=LAYOUT, sampler=CoDenoising(steps=2))
    assert run.windows == run.max_windows == 4
    needs = {windows: memory.program_bytes(run, windows) for windows in (1, 2, 3, 4)}
    assert needs[1] < needs[2] < needs[4]
    everything = memory.largest_batch(run, room=needs[4])
    assert everything.windows == 4 and everything.needed <= needs[4]
    # 3 windows would fit, but need two calls as well as 2 do.
    some = memory.largest_batch(run, room=needs[3])
    assert some.windows == 2 and some.of == 4 and some.devices == 1
    assert memory.largest_batch(run, room=needs[1]).windows == 1
    with pytest.raises(InputError, match=r"one window per device needs .* GiB besides"):
        memory.largest_batch(run, room=needs[1] - 1)
    assert memory.free_bytes(run) > 2**20
    assert run.next_call == 0 and not run.carry.state.x.is_deleted()


@pytest.mark.parametrize(("room", "windows"), [(None, 4), (4, 4), (3, 2), (1, 1)])
def test_a_run_has_as_many_windows_as_the_device_has_memory_for(monkeypatch, room, windows):
    run = fresh(layout=LAYOUT, sampler=CoDenoising(steps=2))
    needed = None if room is None else memory.program_bytes(run, room)
    monkeypatch.setattr(memory, "_whole_room", lambda run: needed)
    assert memory.choose_batch(run) == windows
    assert memory._held(run) >= run.carry.predictions.nbytes


@pytest.mark.parametrize("changes", [{"steps": 5}, {"t_min": 850.0}, {"refine_steps": 0}])
def test_runs_of_other_lengths_are_the_same_program(whole, changes):
    """More steps, and fewer of them or none refined: the call_schedule is longer or shorter, no
    more."""
    before = NETWORK.traces
    shorter = np.asarray(sample(NETWORK, **arguments(sampler=PARTIAL.replace(**changes))))
    assert NETWORK.traces == before
    assert np.abs(shorter - whole).max() > 1e-3


def test_a_run_without_refined_steps_is_co_denoising(whole):
    ours = sample(NETWORK, **arguments(sampler=PARTIAL.replace(refine_steps=0)))
    theirs = sample(NETWORK, **arguments(sampler=CoDenoising(steps=3, windows_per_call=3)))
    np.testing.assert_array_equal(ours, theirs)


def test_a_program_that_was_looked_into_is_not_compiled_again():
    run = fresh(layout=LAYOUT, sampler=SynCoS(steps=3, iterations=1, t_min=900))
    memory.program_bytes(run, run.call_schedule.samples_per_call)
    compiled = []
    listener = lambda event, *_, **__: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        run.advance(1)
        run.wait()
    finally:
        monitoring.unregister_event_duration_listener(listener)
    assert [event for event in compiled if "backend_compile" in event] == []


def test_out_of_memory_says_what_would_fit(monkeypatch):
    run = fresh(sampler=SynCoS(steps=2, iterations=1, t_min=900))

    def full(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr(runs, "compiled", lambda *of: full)
    fit = memory.BatchFit(windows=2, of=4, devices=1, needed=2**30, room=2**31)
    monkeypatch.setattr(failures, "largest_batch", lambda run: fit)
    with pytest.raises(
        DeviceMemoryError, match=r"out of memory with 4 windows per call; an estimated 2 fit"
    ):
        run.advance()

    def other(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(runs, "compiled", lambda *of: other)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run.advance()
