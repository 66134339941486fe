"""The tape says which calls are made, in which order, and what they cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncos_jax.sampling import FIFO, CoDenoising, RefinementOnly, SynCoS, noise
from syncos_jax.sampling.methods import make_tape
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.tape import (
    CALL_OVERHEAD,
    MOST_CLIPS,
    Clips,
    choose_clips_per_call,
    clips_of,
    pack,
)
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=11, window=4, stride=3)  # 4 windows
SCHEDULE = NoiseSchedule.from_betas()
EACH = np.arange(4, dtype=np.int32)
UNGUIDED = {"texts": [EACH]}


def rounds(tape):
    """The clips of each round, ``[(window, text, weight), ...]``, without the unused places."""
    found = [[] for _ in tape.rounds.step]
    for row in range(len(tape)):
        columns = (tape.rows.windows, tape.rows.texts, tape.rows.weights)
        used = tape.used[row]
        clips = zip(*(column[row][used].tolist() for column in columns), strict=True)
        found[tape.rows.round[row]] += clips
    return found


def windows(tape):
    """The windows of each round."""
    return [sorted({window for window, _, _ in clips}) for clips in rounds(tape)]


def test_co_denoising_in_calls_of_three():
    tape = make_tape(LAYOUT, SCHEDULE, CoDenoising(steps=3, batch=3), **UNGUIDED)
    rows = tape.rows
    assert rows.windows.tolist() == rows.texts.tolist() == [[0, 1], [2, 3]] * 3  # no place empty
    assert tape.used.all() and (rows.weights == 1).all()
    tape = make_tape(LAYOUT, SCHEDULE, CoDenoising(steps=3, batch=3), shares=3, **UNGUIDED)
    rows = tape.rows
    assert rows.windows.tolist() == rows.texts.tolist() == [[0, 1, 2], [3, 3, 3]] * 3
    assert tape.used.tolist() == [[True] * 3, [True, False, False]] * 3
    assert rows.weights.tolist() == [[1, 1, 1], [1, 0, 0]] * 3
    assert rows.round.tolist() == [0, 0, 1, 1, 2, 2]
    assert rows.first.tolist() == [True, False] * 3
    assert rows.last.tolist() == [False, True] * 3
    table = tape.rounds
    assert table.t.tolist() == [667, 334, 1] and table.step.tolist() == [0, 1, 2]
    assert not table.refine.any() and not table.draw.any() and table.resume.all()
    assert table.a_next.tolist() == [*table.a[1:], 1] and table.keep.tolist() == [*table.b[1:], 0]


def test_a_guided_window_is_two_clips():
    tape = make_tape(LAYOUT, SCHEDULE, CoDenoising(steps=1, guidance=3.0, batch=1))
    assert tape.rows.windows.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert tape.rows.texts.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert (tape.rows.weights == [3, -2]).all()
    shared = make_tape(LAYOUT, SCHEDULE, CoDenoising(steps=1), texts=[EACH // 2, 0 * EACH + 2])
    assert shared.rows.texts.tolist() == [[0, 2, 0, 2, 1, 2, 1, 2]]  # a table of three prompts
    assert (shared.rows.weights.reshape(4, 2) == [7.5, -6.5]).all()


@pytest.mark.parametrize(
    ("sampler", "clips"),
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
def test_only_what_is_guided_has_negative_clips(sampler, clips):
    tape = make_tape(LAYOUT, SCHEDULE, sampler)
    assert [len(each) for each in rounds(tape)] == clips
    texts = [EACH] if sampler.lookahead is None else [np.arange(11, dtype=np.int32)]
    unguided = make_tape(LAYOUT, SCHEDULE, sampler, texts=texts)
    assert windows(unguided) == windows(tape)
    assert [len(each) for each in rounds(unguided)] == [len(each) for each in windows(tape)]


def test_syncos_step_by_step():
    tape = make_tape(LAYOUT, SCHEDULE, SynCoS(steps=2, t_min=500, iterations=3))
    table = tape.rounds
    assert table.step.tolist() == [0, 0, 0, 0, 1]
    assert table.refine.tolist() == [False, True, True, True, False]
    assert table.draw.tolist() == table.restart.tolist() == [False, True, False, False, False]
    assert table.resume.tolist() == [False, False, False, True, True]
    assert (table.t[:4] == 501).all() and len(set(table.baseline[:4].tolist())) == 1
    assert tape.rows.first.all() and tape.rows.last.all()


def refinements(**end):
    sampler = SynCoS(steps=50, iterations=1, **end)
    return make_tape(LAYOUT, SCHEDULE, sampler).describe().refinement_rounds


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
    table = make_tape(LAYOUT, SCHEDULE, sampler, (3,)).rounds
    drawn = table.t[table.refine]
    assert len(set(drawn.tolist())) > 20
    a, b = SCHEDULE.rates(drawn.astype(int))
    np.testing.assert_allclose(table.a[table.refine], a, rtol=1e-6)
    np.testing.assert_allclose(table.b[table.refine], b, rtol=1e-6)
    assert (table.t[~table.refine] == [751, 501, 251, 1]).all()
    np.testing.assert_allclose(table.a_next[table.resume][:-1], SCHEDULE.rates([501, 251, 1])[0])

    sampler = SynCoS(steps=4, t_min=0, iterations=6, fixed_noise=False)
    table = make_tape(LAYOUT, SCHEDULE, sampler).rounds
    drawn = table.baseline[table.draw]
    assert len(drawn) == len(set(drawn.tolist())) == 24
    assert table.restart.sum() == 4


def test_refinement_alone_never_fuses_nor_resumes_before_the_end():
    tape = make_tape(LAYOUT, SCHEDULE, RefinementOnly(steps=3, iterations=2, windows_per_step=2))
    table = tape.rounds
    assert table.refine.all() and table.resume.tolist() == [False] * 5 + [True]
    assert (table.a_next[-1], table.keep[-1], table.sigma[-1]) == (1, 0, 0)
    assert tape.clips_per_call == 4 and tape.used.all()
    final = make_tape(LAYOUT, NoiseSchedule.from_betas(final_timestep=0), RefinementOnly(steps=3))
    assert final.rounds.keep[-1] == 0


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
    tape = make_tape(
        layout, SCHEDULE, sampler.replace(batch=batch), (seed, 1), shares=batch % 3 + 1
    )
    whole = make_tape(layout, SCHEDULE, sampler, (seed, 1))
    assert rounds(tape) == rounds(whole)
    for ours, theirs in zip(tape.rounds, whole.rounds, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert tape.rows.index.tolist() == list(range(len(tape)))
    assert (np.diff(tape.rows.round) >= 0).all()
    for number, there in enumerate(windows(tape)):
        rows = np.flatnonzero(tape.rows.round == number)
        assert tape.rows.first[rows].tolist() == [True] + [False] * (len(rows) - 1)
        assert tape.rows.last[rows].tolist() == [False] * (len(rows) - 1) + [True]
        assert tape.used[rows[:-1]].all() and tape.used[rows[-1], 0]
        chosen = tape.rounds.chosen[number].tolist()
        if tape.rounds.refine[number]:
            assert there == chosen and len(there) == min(per_step, layout.count)
        else:
            assert there == list(range(layout.count))
    assert (tape.rows.weights[~tape.used] == 0).all()


def test_minibatches_differ_between_iterations_steps_and_seeds():
    layout = WindowLayout(frames=40, window=4, stride=2)
    sampler = SynCoS(steps=3, t_min=0, iterations=2, windows_per_step=5)

    def drawn(seed):
        table = make_tape(layout, SCHEDULE, sampler, seed).rounds
        return {tuple(chosen) for chosen in table.chosen[table.refine].tolist()}

    assert len(drawn((0,))) == 6 and drawn((0,)) == drawn((0,))
    assert not drawn((0,)) & drawn((1,))


# -- the clips of a call ---------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(1, 50),
    st.integers(1, 5),
)
def test_no_other_number_of_clips_costs_less(counts, most, shares):
    def cost(clips):  # of a device: its share of each call, and the call itself
        return sum(-(-count // clips) * (clips / shares + CALL_OVERHEAD) for count in counts)

    chosen = choose_clips_per_call(counts, most, shares)
    # Whole shares; no more than the longest round needs, nor than are allowed.
    allowed = [n for n in range(shares, max(counts) + shares, shares) if n < most + shares]
    assert chosen in allowed
    assert cost(chosen) == min(map(cost, allowed))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 12), st.data())
@hypothesis_settings(max_examples=50)
def test_what_is_packed_can_be_unpacked(counts, clips_per_call, data):
    number = st.integers(0, 99)
    given_rounds = [
        Clips(*(np.asarray(data.draw(st.lists(number, min_size=n, max_size=n))) for _ in range(3)))
        for n in counts
    ]
    rows, used = pack(given_rounds, clips_per_call)
    assert rows.windows.shape == used.shape == (len(rows.index), clips_per_call)
    for i, clips in enumerate(given_rounds):
        own = rows.round == i
        for name in Clips._fields:
            np.testing.assert_array_equal(getattr(rows, name)[own][used[own]], getattr(clips, name))
        # What fills the last call is a clip that it has anyhow, of weight 0.
        assert set(rows.windows[own].ravel()) == set(clips.windows)
        assert (rows.weights[own][~used[own]] == 0).all()
        assert rows.first[own].sum() == rows.last[own].sum() == 1
        assert own.sum() == -(-len(clips.windows) // clips_per_call)


def test_weights_are_those_of_guidance():
    some = np.asarray([2, 0], np.int32)
    clips = clips_of(some, [EACH, EACH + 4], 6.0)
    assert [c.tolist() for c in clips] == [[2, 2, 0, 0], [2, 6, 0, 4], [6, -5, 6, -5]]
    for without in (clips_of(some, [EACH, EACH + 4], None), clips_of(some, [EACH], 6.0)):
        assert [c.tolist() for c in without] == [[2, 0], [2, 0], [1, 1]]
    assert clips.weights.dtype == np.float32


@pytest.mark.parametrize(
    ("sampler", "clips"),
    [
        (CoDenoising(), 8),
        (CoDenoising(batch=9), 8),
        (CoDenoising(batch=1), 2),
        (CoDenoising(guidance=1.0, batch=1), 1),
        (SynCoS(windows_per_step=3), 3),  # of 6 and 8 clips
        (SynCoS(windows_per_step=30), 8),
        (SynCoS(windows_per_step=2), 4),  # 8 clips are two such calls
        (SynCoS(guided_refinement=False), 4),
        (RefinementOnly(windows_per_step=2), 4),
        (SynCoS(windows_per_step=2, batch=1), 2),
        (FIFO(steps=8), 2),  # the first clip's steps are of 2 clips, the queue's of 8
    ],
)
def test_clips_of_a_call(sampler, clips):
    tape = make_tape(LAYOUT, SCHEDULE, sampler)
    assert tape.clips_per_call == tape.describe().clips_per_call == clips
    assert tape.longest == max(len(each) for each in rounds(tape))


def test_calls_of_long_videos_have_bounds():
    tape = make_tape(WindowLayout(4800, 16, 4), SCHEDULE, CoDenoising(steps=2))
    assert tape.longest == 2 * 1197 and tape.clips_per_call <= MOST_CLIPS
    assert tape.describe().empty < 2 * MOST_CLIPS


# -- what it costs ---------------------------------------------------------------------------------


def test_describe_knows_the_cost():
    layout = WindowLayout(52, 13, 4)  # 11 windows
    summary = make_tape(layout, SCHEDULE, SynCoS(windows_per_step=6, batch=6)).describe()
    assert summary.clips_per_call == 12
    assert summary.rows == 50 * 2 + 7 * 20
    assert summary.windows == 50 * 11 + 7 * 20 * 6
    assert (summary.clips, summary.empty) == (2 * summary.windows, 50 * 2)
    assert (summary.steps, summary.co_denoising_rounds, summary.refinement_rounds) == (50, 50, 140)
    assert str(summary) == (
        "240 calls of the network on 12 clips each: 50 steps, 50 passes over the video, 140 "
        "optimiser steps (1390 windows predicted by 2780 clips, 100 places unused)"
    )
    fifo = make_tape(layout, SCHEDULE, FIFO(steps=24)).describe()
    assert (fifo.windows, fifo.refinement_rounds) == (24 + 63 * 4, 0)


@pytest.mark.parametrize(
    ("frames", "places", "empty"),
    [(24, 420, 40), (64, 1560, 60), (120, 3240, 140), (320, 8820, 40)],
)
def test_few_places_of_the_calls_of_fast_stay_empty(frames, places, empty):
    summary = make_tape(WindowLayout(frames, 16, 4), SCHEDULE, SynCoS.fast()).describe()
    assert summary.rows * summary.clips_per_call == places == summary.clips + summary.empty
    assert summary.empty == empty


def test_structure_tells_apart_what_cannot_be_played_side_by_side():
    sampler = SynCoS(steps=4, t_min=400, iterations=2, windows_per_step=2)

    def structure(seed=(0,), **changes):
        return make_tape(LAYOUT, SCHEDULE, sampler.replace(**changes), seed).structure

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
