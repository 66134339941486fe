"""The call_schedule says which calls are made, in which order, and what they cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncos_jax.sampling import FIFO, CoDenoising, RefinementOnly, SynCoS, noise
from syncos_jax.sampling.call_schedule import (
    CALL_OVERHEAD,
    MAX_SAMPLES_PER_CALL,
    Samples,
    choose_samples_per_call,
    make_samples,
    pack,
)
from syncos_jax.sampling.methods import make_call_schedule
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=11, window=4, stride=3)  # 4 windows
SCHEDULE = NoiseSchedule.from_betas()
EACH = np.arange(4, dtype=np.int32)
UNGUIDED = {"cond_index": [EACH]}


def updates(call_schedule):
    """The samples of each update, ``[(window, text, weight), ...]``, without the unused places."""
    found = [[] for _ in call_schedule.updates.step]
    for call in range(len(call_schedule)):
        columns = (
            call_schedule.calls.windows,
            call_schedule.calls.cond_index,
            call_schedule.calls.weights,
        )
        used = call_schedule.used[call]
        samples = zip(*(column[call][used].tolist() for column in columns), strict=True)
        found[call_schedule.calls.update[call]] += samples
    return found


def windows(call_schedule):
    """The windows of each update."""
    return [sorted({window for window, _, _ in samples}) for samples in updates(call_schedule)]


def test_co_denoising_in_calls_of_three():
    call_schedule = make_call_schedule(
        LAYOUT, SCHEDULE, CoDenoising(steps=3, windows_per_call=3), **UNGUIDED
    )
    calls = call_schedule.calls
    assert (
        calls.windows.tolist() == calls.cond_index.tolist() == [[0, 1], [2, 3]] * 3
    )  # no place empty
    assert call_schedule.used.all() and (calls.weights == 1).all()
    call_schedule = make_call_schedule(
        LAYOUT, SCHEDULE, CoDenoising(steps=3, windows_per_call=3), num_shards=3, **UNGUIDED
    )
    calls = call_schedule.calls
    assert calls.windows.tolist() == calls.cond_index.tolist() == [[0, 1, 2], [3, 3, 3]] * 3
    assert call_schedule.used.tolist() == [[True] * 3, [True, False, False]] * 3
    assert calls.weights.tolist() == [[1, 1, 1], [1, 0, 0]] * 3
    assert calls.update.tolist() == [0, 0, 1, 1, 2, 2]
    assert calls.first.tolist() == [True, False] * 3
    assert calls.last.tolist() == [False, True] * 3
    table = call_schedule.updates
    assert table.t.tolist() == [667, 334, 1] and table.step.tolist() == [0, 1, 2]
    assert not table.refine.any() and not table.draw_noise.any() and table.resume.all()
    assert table.a_next.tolist() == [*table.a[1:], 1] and table.eps_coef.tolist() == [
        *table.b[1:],
        0,
    ]


def test_a_guided_window_is_two_clips():
    call_schedule = make_call_schedule(
        LAYOUT, SCHEDULE, CoDenoising(steps=1, guidance=3.0, windows_per_call=1)
    )
    assert call_schedule.calls.windows.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert call_schedule.calls.cond_index.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert (call_schedule.calls.weights == [3, -2]).all()
    shared = make_call_schedule(
        LAYOUT, SCHEDULE, CoDenoising(steps=1), cond_index=[EACH // 2, 0 * EACH + 2]
    )
    assert shared.calls.cond_index.tolist() == [
        [0, 2, 0, 2, 1, 2, 1, 2]
    ]  # a table of three prompts
    assert (shared.calls.weights.reshape(4, 2) == [7.5, -6.5]).all()


@pytest.mark.parametrize(
    ("sampler", "samples"),
    [
        (CoDenoising(steps=4), [8, 8, 8, 8]),
        (CoDenoising(steps=4, guidance=1.0), [4, 4, 4, 4]),  # is none
        (CoDenoising(steps=4, guidance_t_min=251, guidance_t_max=600), [4, 8, 8, 4]),
        (SynCoS(steps=2, t_min=500, iterations=2, guided_refinement=False), [8, 4, 4, 8]),
        (SynCoS(steps=2, t_min=500, iterations=2, windows_per_step=3), [8, 6, 6, 8]),
        (SynCoS(steps=2, t_min=500, iterations=1, guidance_t_max=500), [4, 4, 8]),
        (FIFO(steps=4), [2] * 4 + [4] * 11),
    ],
)
def test_only_what_is_guided_has_negative_clips(sampler, samples):
    call_schedule = make_call_schedule(LAYOUT, SCHEDULE, sampler)
    assert [len(each) for each in updates(call_schedule)] == samples
    cond_index = [EACH] if sampler.lookahead is None else [np.arange(11, dtype=np.int32)]
    unguided = make_call_schedule(LAYOUT, SCHEDULE, sampler, cond_index=cond_index)
    assert windows(unguided) == windows(call_schedule)
    assert [len(each) for each in updates(unguided)] == [
        len(each) for each in windows(call_schedule)
    ]


def test_syncos_step_by_step():
    call_schedule = make_call_schedule(LAYOUT, SCHEDULE, SynCoS(steps=2, t_min=500, iterations=3))
    table = call_schedule.updates
    assert table.step.tolist() == [0, 0, 0, 0, 1]
    assert table.refine.tolist() == [False, True, True, True, False]
    assert table.draw_noise.tolist() == table.restart.tolist() == [False, True, False, False, False]
    assert table.resume.tolist() == [False, False, False, True, True]
    assert (table.t[:4] == 501).all() and len(set(table.noise_id[:4].tolist())) == 1
    assert call_schedule.calls.first.all() and call_schedule.calls.last.all()


def refinements(**end):
    sampler = SynCoS(steps=50, iterations=1, **end)
    return make_call_schedule(LAYOUT, SCHEDULE, sampler).describe().optimizer_steps


def test_where_the_refinement_ends():
    assert refinements(t_min=850) == refinements() == 7  # 981, 961, ..., 861
    assert refinements(t_min=861) == 6  # t_min itself is not refined
    assert refinements(t_min=0) == 50
    assert [refinements(refine_steps=n) for n in (0, 1, 7, 90)] == [0, 1, 7, 50]
    a, b = SCHEDULE.rates(861)
    ratio = float(a / b) ** 2
    assert refinements(refine_snr=ratio * 1.001) == 7 and refinements(refine_snr=ratio) == 6
    assert refinements(refine_snr=0.0) == 0


def test_ablations():
    sampler = SynCoS(steps=4, t_min=0, iterations=6, grounded_timestep=False)
    table = make_call_schedule(LAYOUT, SCHEDULE, sampler, (3,)).updates
    drawn = table.t[table.refine]
    assert len(set(drawn.tolist())) > 20
    a, b = SCHEDULE.rates(drawn.astype(int))
    np.testing.assert_allclose(table.a[table.refine], a, rtol=1e-6)
    np.testing.assert_allclose(table.b[table.refine], b, rtol=1e-6)
    assert (table.t[~table.refine] == [751, 501, 251, 1]).all()
    np.testing.assert_allclose(table.a_next[table.resume][:-1], SCHEDULE.rates([501, 251, 1])[0])

    sampler = SynCoS(steps=4, t_min=0, iterations=6, fixed_noise=False)
    table = make_call_schedule(LAYOUT, SCHEDULE, sampler).updates
    drawn = table.noise_id[table.draw_noise]
    assert len(drawn) == len(set(drawn.tolist())) == 24
    assert table.restart.sum() == 4


def test_refinement_alone_never_fuses_nor_resumes_before_the_end():
    call_schedule = make_call_schedule(
        LAYOUT, SCHEDULE, RefinementOnly(steps=3, iterations=2, windows_per_step=2)
    )
    table = call_schedule.updates
    assert table.refine.all() and table.resume.tolist() == [False] * 5 + [True]
    assert (table.a_next[-1], table.eps_coef[-1], table.sigma[-1]) == (1, 0, 0)
    assert call_schedule.samples_per_call == 4 and call_schedule.used.all()
    final = make_call_schedule(
        LAYOUT, NoiseSchedule.from_betas(final_timestep=0), RefinementOnly(steps=3)
    )
    assert final.updates.eps_coef[-1] == 0


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_rounds_do_not_depend_on_the_clips_of_a_call(per_step, batch, start, grounded, seed):
    layout = WindowLayout(frames=8 + start, window=4, stride=2)
    sampler = SynCoS(
        steps=3,
        t_min=300,
        iterations=2,
        windows_per_step=per_step,
        guidance_t_max=700,
        grounded_timestep=grounded,
    )
    call_schedule = make_call_schedule(
        layout,
        SCHEDULE,
        sampler.replace(windows_per_call=batch),
        (seed, 1),
        num_shards=batch % 3 + 1,
    )
    whole = make_call_schedule(layout, SCHEDULE, sampler, (seed, 1))
    assert updates(call_schedule) == updates(whole)
    for ours, theirs in zip(call_schedule.updates, whole.updates, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert call_schedule.calls.index.tolist() == list(range(len(call_schedule)))
    assert (np.diff(call_schedule.calls.update) >= 0).all()
    for number, there in enumerate(windows(call_schedule)):
        calls = np.flatnonzero(call_schedule.calls.update == number)
        assert call_schedule.calls.first[calls].tolist() == [True] + [False] * (len(calls) - 1)
        assert call_schedule.calls.last[calls].tolist() == [False] * (len(calls) - 1) + [True]
        assert call_schedule.used[calls[:-1]].all() and call_schedule.used[calls[-1], 0]
        chosen = call_schedule.updates.chosen[number].tolist()
        if call_schedule.updates.refine[number]:
            assert there == chosen and len(there) == min(per_step, layout.count)
        else:
            assert there == list(range(layout.count))
    assert (call_schedule.calls.weights[~call_schedule.used] == 0).all()


def test_minibatches_differ_between_iterations_steps_and_seeds():
    layout = WindowLayout(frames=40, window=4, stride=2)
    sampler = SynCoS(steps=3, t_min=0, iterations=2, windows_per_step=5)

    def drawn(seed):
        table = make_call_schedule(layout, SCHEDULE, sampler, seed).updates
        return {tuple(chosen) for chosen in table.chosen[table.refine].tolist()}

    assert len(drawn((0,))) == 6 and drawn((0,)) == drawn((0,))
    assert not drawn((0,)) & drawn((1,))


# -- the samples of a call
# ---------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(1, 50),
    st.integers(1, 5),
)
def test_no_other_number_of_clips_costs_less(counts, most, num_shards):
    def cost(samples):  # of a device: its share of each call, and the call itself
        return sum(
            -(-count // samples) * (samples / num_shards + CALL_OVERHEAD) for count in counts
        )

    chosen = choose_samples_per_call(counts, most, num_shards)
    # Whole num_shards; no more than the longest update needs, nor than are allowed.
    allowed = [
        n for n in range(num_shards, max(counts) + num_shards, num_shards) if n < most + num_shards
    ]
    assert chosen in allowed
    assert cost(chosen) == min(map(cost, allowed))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 12), st.data())
@hypothesis_settings(max_examples=50)
def test_what_is_packed_can_be_unpacked(counts, samples_per_call, data):
    number = st.integers(0, 99)
    given_rounds = [
        Samples(
            *(np.asarray(data.draw(st.lists(number, min_size=n, max_size=n))) for _ in range(4))
        )
        for n in counts
    ]
    calls, used = pack(given_rounds, samples_per_call)
    assert calls.windows.shape == used.shape == (len(calls.index), samples_per_call)
    for i, samples in enumerate(given_rounds):
        own = calls.update == i
        for name in Samples._fields:
            np.testing.assert_array_equal(
                getattr(calls, name)[own][used[own]], getattr(samples, name)
            )
        # What fills the last call is a clip that it has anyhow, of weight 0.
        assert set(calls.windows[own].ravel()) == set(samples.windows)
        assert (calls.weights[own][~used[own]] == 0).all()
        assert (calls.prompted[own][~used[own]] == 0).all()
        assert calls.first[own].sum() == calls.last[own].sum() == 1
        assert own.sum() == -(-len(samples.windows) // samples_per_call)


def test_weights_are_those_of_guidance():
    some = np.asarray([2, 0], np.int32)
    both, weights = [EACH, EACH + 4], CoDenoising(guidance=6.0).sample_weights(500)
    samples = make_samples(some, both, weights)
    assert [c.tolist() for c in samples] == [
        [2, 2, 0, 0],
        [2, 6, 0, 4],
        [6, -5, 6, -5],
        [1, 0, 1, 0],
    ]
    off = CoDenoising(guidance=6.0, guidance_t_min=501).sample_weights(500)
    for without in (make_samples(some, both, off), make_samples(some, [EACH], weights)):
        assert [c.tolist() for c in without] == [[2, 0], [2, 0], [1, 1], [1, 1]]
    assert samples.weights.dtype == np.float32


def test_perturbed_guidance_is_a_third_sample():
    some, three = np.asarray([2, 0], np.int32), [EACH, EACH + 4, EACH + 8]
    weights = CoDenoising(guidance=3.0, perturbed_guidance=0.5).sample_weights(500)
    samples = make_samples(some, three, weights)
    assert samples.windows.tolist() == [2, 2, 2, 0, 0, 0]
    assert samples.cond_index.tolist() == [2, 6, 10, 0, 4, 8]
    assert samples.weights.tolist() == [3.5, -2.0, -0.5] * 2
    assert samples.prompted.tolist() == [True, False, False] * 2
    alone = CoDenoising(guidance=1.0, perturbed_guidance=0.5).sample_weights(500)
    samples = make_samples(some, three, alone)
    assert samples.windows.tolist() == [2, 2, 0, 0]
    assert samples.cond_index.tolist() == [2, 10, 0, 8]
    assert samples.weights.tolist() == [1.5, -0.5, 1.5, -0.5]
    sampler = CoDenoising(guidance=3.0, perturbed_guidance=0.5, windows_per_call=1)
    each = tuple(EACH + 4 * kind for kind in range(3))
    assert make_call_schedule(LAYOUT, SCHEDULE, sampler, cond_index=each).samples_per_call == 3


@pytest.mark.parametrize(
    ("sampler", "samples"),
    [
        (CoDenoising(), 8),
        (CoDenoising(windows_per_call=9), 8),
        (CoDenoising(windows_per_call=1), 2),
        (CoDenoising(guidance=1.0, windows_per_call=1), 1),
        (SynCoS(windows_per_step=3), 3),  # of 6 and 8 samples
        (SynCoS(windows_per_step=30), 8),
        (SynCoS(windows_per_step=2), 4),  # 8 samples are two such calls
        (SynCoS(guided_refinement=False), 4),
        (RefinementOnly(windows_per_step=2), 4),
        (SynCoS(windows_per_step=2, windows_per_call=1), 2),
        (FIFO(steps=8), 2),  # the first clip's steps are of 2 samples, the queue's of 8
    ],
)
def test_clips_of_a_call(sampler, samples):
    call_schedule = make_call_schedule(LAYOUT, SCHEDULE, sampler)
    assert call_schedule.samples_per_call == call_schedule.describe().samples_per_call == samples
    assert call_schedule.max_samples == max(len(each) for each in updates(call_schedule))


def test_calls_of_long_videos_have_bounds():
    call_schedule = make_call_schedule(WindowLayout(4800, 16, 4), SCHEDULE, CoDenoising(steps=2))
    assert (
        call_schedule.max_samples == 2 * 1197
        and call_schedule.samples_per_call <= MAX_SAMPLES_PER_CALL
    )
    assert call_schedule.describe().padding < 2 * MAX_SAMPLES_PER_CALL


# -- what it costs ---------------------------------------------------------------------------------


def test_describe_knows_the_cost():
    layout = WindowLayout(52, 13, 4)  # 11 windows
    summary = make_call_schedule(
        layout, SCHEDULE, SynCoS(windows_per_step=6, windows_per_call=6)
    ).describe()
    assert summary.samples_per_call == 12
    assert summary.calls == 50 * 2 + 7 * 20
    assert summary.windows == 50 * 11 + 7 * 20 * 6
    assert (summary.samples, summary.padding) == (2 * summary.windows, 50 * 2)
    assert (summary.steps, summary.passes, summary.optimizer_steps) == (50, 50, 140)
    assert str(summary) == (
        "240 network calls of 12 samples: 50 steps, 50 passes over the video, 140 optimiser steps "
        "(1390 windows, 2780 samples, 100 empty slots)"
    )
    fifo = make_call_schedule(layout, SCHEDULE, FIFO(steps=24)).describe()
    assert (fifo.windows, fifo.optimizer_steps) == (24 + 63 * 4, 0)


@pytest.mark.parametrize(
    ("frames", "places", "empty"),
    [(24, 420, 40), (64, 1560, 60), (120, 3240, 140), (320, 8820, 40)],
)
def test_few_places_of_the_calls_of_fast_stay_empty(frames, places, empty):
    summary = make_call_schedule(
        WindowLayout(frames, 16, 4), SCHEDULE, SynCoS(strength=1.0)
    ).describe()
    assert summary.calls * summary.samples_per_call == places == summary.samples + summary.padding
    assert summary.padding == empty


def test_structure_tells_apart_what_cannot_be_played_side_by_side():
    sampler = SynCoS(steps=4, t_min=400, iterations=2, windows_per_step=2)

    def structure(seed=(0,), **changes):
        return make_call_schedule(LAYOUT, SCHEDULE, sampler.replace(**changes), seed).structure

    like = structure()
    alike = [
        {"seed": (1,)},
        {"learning_rate": 2.0, "weight_decay": 0.5},
        {"fixed_noise": False},
        {"grounded_timestep": False},
        {"guidance": 3.0},
        {"t_min": 300.0},
        {"eta": 0.5},
    ]
    for changes in alike:
        assert structure(**changes) == like, changes
    differ = [
        {"steps": 5},
        {"iterations": 3},
        {"windows_per_step": 3},
        {"t_min": 800.0},
        {"guided_refinement": False},
        {"guidance": 1.0},
        {"guidance_t_max": 600.0},
        {"batch": 1},
    ]
    for changes in differ:
        assert structure(**changes) != like, changes


def test_draw_numbers_never_meet():
    numbers = [noise.INITIAL]
    for step in (0, 1, 2, 7, noise.MAX_STEPS - 1):
        numbers.append(noise.ddim_draw(step))
        numbers += [noise.baseline_draw(step, k) for k in (0, 1, 2, 2**16 - 2)]
    assert len(set(numbers)) == len(numbers) and max(numbers) < 2**32
