"""The tape says which calls are made, in which order, and what they cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncos_jax.sampling import CoDenoising, RefinementOnly, SynCoS, noise
from syncos_jax.sampling.methods import make_tape
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.tape import Begin, Resume, Update
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=11, window=4, stride=3)  # 4 windows
SCHEDULE = NoiseSchedule.from_betas()


def rounds(tape):
    """The rows of each round: ``[(rows, windows)]``, padding dropped."""
    found, start = [], 0
    for i in np.flatnonzero(tape.rows.update):
        part = tape.part(start, i + 1)
        found.append((part, part.windows[part.valid].tolist()))
        start = i + 1
    assert start == len(tape)
    return found


def test_co_denoising_in_calls_of_three():
    tape = make_tape(LAYOUT, SCHEDULE, CoDenoising(steps=2, batch=3))
    rows = tape.rows
    assert rows.windows.tolist() == [[0, 1, 2], [3, 3, 3]] * 2
    assert rows.valid.tolist() == [[True] * 3, [True, False, False]] * 2
    assert rows.slot.tolist() == [0, 3, 0, 3] and tape.slots == 6
    assert rows.t.tolist() == [501, 501, 1, 1]
    assert rows.update.tolist() == [Update.KEEP, Update.FUSE] * 2
    assert rows.resume.tolist() == [Resume.STAY, Resume.IMPLIED] * 2
    assert not rows.refine.any() and not rows.begin.any()
    assert rows.a_next.tolist()[1:] == [rows.a[2], 1, 1] and rows.keep[3] == 0


def test_syncos_step_by_step():
    tape = make_tape(LAYOUT, SCHEDULE, SynCoS(steps=2, t_min=500, iterations=3))
    rows = tape.rows
    assert rows.step.tolist() == [0, 0, 0, 0, 1]
    assert rows.refine.tolist() == [False, True, True, True, False]
    assert rows.begin.tolist() == [0, Begin.NOISE_AND_OPTIMISER, 0, 0, 0]
    assert rows.update.tolist() == [1, 2, 2, 2, 1]
    assert rows.resume.tolist() == [0, 0, 0, Resume.BASELINE, Resume.IMPLIED]
    assert (rows.t[:4] == 501).all() and len(set(rows.baseline[:4].tolist())) == 1


def test_t_min_is_exclusive():
    def refinements(t_min):
        sampler = SynCoS(steps=50, t_min=t_min, iterations=1)
        return make_tape(LAYOUT, SCHEDULE, sampler).describe().refinement_rounds

    assert refinements(850) == 7  # 981, 961, ..., 861
    assert refinements(861) == 6
    assert refinements(0) == 50


def test_ablations():
    sampler = SynCoS(steps=4, t_min=0, iterations=6, grounded_timestep=False)
    rows = make_tape(LAYOUT, SCHEDULE, sampler, (3,)).rows
    drawn = rows.t[rows.refine]
    assert len(set(drawn.tolist())) > 20
    a, b = SCHEDULE.rates(drawn.astype(int))
    np.testing.assert_allclose(rows.a[rows.refine], a, rtol=1e-6)
    np.testing.assert_allclose(rows.b[rows.refine], b, rtol=1e-6)
    assert (rows.t[~rows.refine] == [751, 501, 251, 1]).all()
    np.testing.assert_allclose(rows.a_next[rows.resume > 0][:-1], SCHEDULE.rates([501, 251, 1])[0])

    sampler = SynCoS(steps=4, t_min=0, iterations=6, fixed_noise=False)
    rows = make_tape(LAYOUT, SCHEDULE, sampler).rows
    drawn = rows.baseline[rows.begin > 0]
    assert len(drawn) == len(set(drawn.tolist())) == 24


def test_refinement_alone_never_fuses_nor_resumes_before_the_end():
    tape = make_tape(LAYOUT, SCHEDULE, RefinementOnly(steps=3, iterations=2, windows_per_step=2))
    rows = tape.rows
    assert rows.refine.all() and (rows.update == Update.OPTIMISE).all()
    assert rows.resume.tolist() == [0] * 5 + [Resume.BASELINE]
    assert (rows.a_next[-1], rows.keep[-1], rows.sigma[-1]) == (1, 0, 0)
    assert tape.slots == 2
    final = make_tape(LAYOUT, NoiseSchedule.from_betas(final_timestep=0), RefinementOnly(steps=3))
    assert final.rows.keep[-1] == 0


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_rounds_are_whole_whatever_the_batch(per_step, batch, start, grounded, seed):
    layout = WindowLayout(frames=8 + start, window=4, stride=2)
    sampler = SynCoS(
        steps=3,
        t_min=300,
        iterations=2,
        windows_per_step=per_step,
        batch=batch,
        grounded_timestep=grounded,
    )
    tape = make_tape(layout, SCHEDULE, sampler, (seed, 1))
    whole = make_tape(
        layout,
        SCHEDULE,
        SynCoS(
            steps=3,
            t_min=300,
            iterations=2,
            windows_per_step=per_step,
            grounded_timestep=grounded,
        ),
        (seed, 1),
    )
    assert [w for _, w in rounds(tape)] == [w for _, w in rounds(whole)]
    assert tape.rows.index.tolist() == list(range(len(tape)))
    for part, windows in rounds(tape):
        assert len(set(windows)) == len(windows)
        if part.refine[0]:
            assert windows == part.chosen[0].tolist()
            assert len(windows) == min(per_step, layout.count)
        else:
            assert windows == list(range(layout.count))
        assert part.windows.shape[1] + part.slot.max() <= tape.slots
        assert (part.t == part.t[0]).all()


def test_minibatches_differ_between_iterations_steps_and_seeds():
    layout = WindowLayout(frames=40, window=4, stride=2)
    sampler = SynCoS(steps=3, t_min=0, iterations=2, windows_per_step=5)

    def drawn(seed):
        rows = make_tape(layout, SCHEDULE, sampler, seed).rows
        return {tuple(chosen) for chosen in rows.chosen[rows.refine].tolist()}

    assert len(drawn((0,))) == 6 and drawn((0,)) == drawn((0,))
    assert not drawn((0,)) & drawn((1,))


def test_describe_knows_the_cost():
    layout = WindowLayout(52, 13, 4)
    summary = make_tape(layout, SCHEDULE, SynCoS(windows_per_step=6, batch=4)).describe()
    assert summary.rows == 50 * 3 + 7 * 20 * 2
    assert summary.windows == 50 * 11 + 7 * 20 * 6
    # Of a round of 11 in fours, and of 6, there are 3 and 2 left: calls on 3.
    assert (summary.few, summary.small_rows) == (3, 50 + 140)
    assert summary.padding == summary.rows * 4 - summary.small_rows - summary.windows
    assert summary.full_calls == 240 + 190 * 3 / 4
    assert (summary.steps, summary.co_denoising_rounds, summary.refinement_rounds) == (50, 50, 140)
    assert "430 calls of the network on 4 windows each, but 190 of them on 3:" in str(summary)


@pytest.mark.parametrize(
    ("sampler", "few"),
    [
        (CoDenoising(), None),  # nothing to save
        (CoDenoising(batch=10), 1),
        (CoDenoising(batch=6), None),  # 1 of 12
        (SynCoS(), None),
        (SynCoS(windows_per_step=10), None),
        (SynCoS(windows_per_step=4), 4),
        (SynCoS(steps=50, t_min=990, iterations=1, windows_per_step=4), None),  # one row of 51
        (RefinementOnly(windows_per_step=4), None),
        (RefinementOnly(windows_per_step=4, batch=3), 1),
        (SynCoS(windows_per_step=4, guidance_t_max=500), 4),
    ],
)
def test_calls_on_few_windows_where_they_save_something(sampler, few):
    tape = make_tape(WindowLayout(52, 13, 4), SCHEDULE, sampler)
    assert tape.few == few
    summary = tape.describe()
    valid = tape.rows.valid
    small = valid.sum(axis=1) <= (few or 0)
    assert summary.small_rows == small.sum()
    for row in valid[small]:
        assert not row[few:].any()
    places = np.where(small, few or 0, valid.shape[1])
    assert summary.windows + summary.padding == places.sum()
    work = places * np.where(tape.rows.guided, 1, 0.5)
    assert summary.full_calls == pytest.approx(work.sum() / valid.shape[1])


@pytest.mark.parametrize(
    ("sampler", "batch"),
    [
        (CoDenoising(), 4),
        (CoDenoising(batch=9), 4),
        (SynCoS(windows_per_step=3), 4),
        (SynCoS(windows_per_step=30), 4),
        (RefinementOnly(windows_per_step=2), 2),
        (SynCoS(windows_per_step=2, batch=3), 3),
    ],
)
def test_windows_of_a_call(sampler, batch):
    assert make_tape(LAYOUT, SCHEDULE, sampler).describe().batch == batch


def test_draw_numbers_never_meet():
    numbers = [noise.INITIAL]
    for step in (0, 1, 2, 7, noise.MAX_STEPS - 1):
        numbers.append(noise.ddim_draw(step))
        numbers += [noise.baseline_draw(step, k) for k in (0, 1, 2, 2**16 - 2)]
    assert len(set(numbers)) == len(numbers) and max(numbers) < 2**32
