"""The suite, the methods, the statistics and the paper's tables."""

import dataclasses
import json
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from experiment.intervals import (
    FAILS,
    FEW,
    HOLDS,
    NOTHING,
    OPEN,
    Estimate,
    difference,
    estimate,
    share_of_gain,
    verdict,
)
from experiment.methods import METHODS, choose, dial_methods, read_methods
from experiment.paper import COLUMNS, TABLES, compare
from experiment.plots import draw
from experiment.seeds import collect, diversity_of_seeds, entropy_of_choices
from experiment.study import choose_cases, of_lengths
from experiment.suite import FILE, KINDS, SUBSET, load_suite, make_suite, to_jsonl
from experiment.tables import summarise, to_markdown
from syncos_jax.errors import InputError
from syncos_jax.metrics import expected_from_prompt
from syncos_jax.metrics.catalogue import METRICS, metric_values
from syncos_jax.metrics.world import CLIP_FRAMES
from syncos_jax.sampling import (
    FIFO,
    Chained,
    CoDenoising,
    FlowLong,
    FreeNoise,
    RefinementOnly,
    SynCoS,
)
from syncos_jax.sampling.sampler_dict import sampler_to_dict

# -- the suite -----------------------------------------------------------------------------------


def test_the_shipped_suite_is_what_its_function_makes():
    shipped = FILE.read_text(encoding="utf-8")
    again = "python benchmarks/experiment/suite.py"
    assert shipped == to_jsonl(make_suite()), f"suite.jsonl is out of date: {again}"


def test_the_suite_has_58_scenarios_of_the_kinds_it_names():
    suite = load_suite()
    assert len(suite) == 58 == sum(KINDS.values())
    assert {kind: sum(c.kind == kind for c in suite.values()) for kind in KINDS} == KINDS
    assert len({json.dumps(case.scenario.to_dict()) for case in suite.values()}) == 58
    assert all(case.frames >= 8 * CLIP_FRAMES for case in suite.values() if case.kind == "long")
    assert {suite[name].kind for name in SUBSET} == set(KINDS) - {"long", "bare"}
    assert all(suite[name].frames == 4 * CLIP_FRAMES for name in SUBSET)


@pytest.mark.parametrize("case", make_suite(), ids=lambda case: case.id)
def test_prompts_tell_what_is_expected_and_nothing_else(case):
    scenario = case.scenario
    for event, expected in zip(scenario.events, case.expected, strict=True):
        told = expected_from_prompt(event.prompt, scenario.global_prompt)
        assert {
            name: value for name, value in told.items() if value
        } == expected.specified_attributes
        assert expected.motion is not None and expected.stop - expected.start == event.frames
    assert not case.unstructured.structured
    assert case.unstructured.prompts() == [event.prompt for event in scenario.events]
    if case.kind in ("open", "long", "bare"):
        assert all(event.colour is None for event in case.expected)
    if case.kind == "bare":
        assert all(event.background is None and event.shape for event in case.expected)
    if case.kind in ("background", "colour"):
        values = [getattr(event, case.kind) for event in case.expected]
        assert len(set(values)) == len(values) and None not in values


def test_the_subject_stays_in_the_picture():
    """A motion is undone before it comes again: at most one step away from where it began."""
    for case in make_suite():
        place = {"x": 0, "y": 0, "size": 0}
        steps = {
            "left": ("x", -1),
            "right": ("x", 1),
            "up": ("y", -1),
            "down": ("y", 1),
            "grow": ("size", 1),
            "shrink": ("size", -1),
        }
        for event in case.expected:
            axis, step = steps[event.motion]
            place[axis] += step
            assert abs(place[axis]) <= 1, case.id


def test_choosing_scenarios():
    assert len(choose_cases(None, subset=False)) == 58
    assert [case.id for case in choose_cases(None, subset=True)] == list(SUBSET)
    assert [case.id for case in choose_cases(["long-01", "size"], False)] == [
        "long-01",
        *(f"size-{n:02d}" for n in range(KINDS["size"])),
    ]
    for names, message in (
        (["opne"], "did you mean 'open'"),
        (["walking"], "kinds are motion, background"),
        (["open-03", "open"], "'open-03' stands twice"),
        ([], "no scenario is named"),
    ):
        with pytest.raises(InputError, match=message):
            choose_cases(names, False)
    with pytest.raises(InputError, match="cannot be combined"):
        choose_cases(["open"], True)


def test_scenarios_of_any_length_go_on_as_they_begin():
    suite = load_suite()
    for name in ("open-03", "motion-00", "bare-01", "long-00"):
        case = suite[name]
        longer = case.lengthened(20)
        assert (longer.id, longer.frames) == (f"{name}x20", 20 * CLIP_FRAMES)
        assert longer.scenario.global_prompt == case.scenario.global_prompt
        own, more = ([e.prompt for e in c.scenario.events] for c in (case, longer))
        assert more[: len(own)] == own and len(set(more)) > 2
    assert [c.id for c in of_lengths([suite["open-00"]], "5, 10")] == ["open-00x5", "open-00x10"]
    assert of_lengths([suite["size-00"]], None) == [suite["size-00"]]
    with pytest.raises(InputError, match="colour-01: colour has no more events"):
        of_lengths([suite["colour-01"]], "5")
    for text in ("5,x", "0", "5,"):
        with pytest.raises(InputError, match="is not a positive integer; give 5,10,20"):
            of_lengths([suite["open-00"]], text)


# -- methods -------------------------------------------------------------------------------------


def test_the_methods_are_the_papers():
    paper = SynCoS.paper()
    assert METHODS["syncos"].settings == paper and METHODS["no_structure"].settings == paper
    assert not METHODS["no_structure"].structured
    changed = {"no_t_min": "t_min", "no_grounded_timestep": "grounded_timestep"}
    changed["no_fixed_noise"] = "fixed_noise"
    for name, field in changed.items():
        own, theirs = (sampler_to_dict(METHODS[n].settings) for n in (name, "syncos"))
        assert [f for f in theirs if own[f] != theirs[f]] == [field]
        assert not own[field]  # 0 or False: switched off
    papers = {name for rows in TABLES.values() for name in rows}
    assert set(METHODS) == papers | {"flowlong", "freenoise", "chained"}
    assert METHODS["flowlong"].settings == FlowLong()
    assert METHODS["freenoise"].settings == FreeNoise()
    assert METHODS["chained"].settings == Chained()
    assert METHODS["co_denoising"].settings == CoDenoising()
    assert METHODS["refinement_only"].settings == RefinementOnly()
    assert METHODS["fifo"].settings == FIFO()


def test_common_settings_reach_those_that_have_them():
    given = {"steps": 7, "guidance": 2.0, "iterations": 3, "batch": None}
    for method in METHODS.values():
        settings = method.with_common(**given).settings
        assert (settings.steps, settings.guidance, settings.windows_per_call) == (7, 2.0, None)
        assert settings.refinement is None or settings.refinement.iterations == 3


def test_a_ratio_takes_the_place_of_a_timestep():
    """Of every method that has one, and of no other."""
    for name, method in METHODS.items():
        old = method.settings.refinement
        new = method.with_common(refine_snr=0.024).settings.refinement
        if getattr(old, "t_min", None) == 850:
            assert new == dataclasses.replace(old, t_min=None, refine_snr=0.024)
        else:
            assert new == old and name in (
                "chained",
                "co_denoising",
                "fifo",
                "flowlong",
                "freenoise",
                "no_t_min",
                "refinement_only",
            )


def test_methods_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "few: {name: syncos, t_min: 700, iterations: 2, windows_per_step: 4}\n"
        "bare: {name: co_denoising, structured: false}\n"
        "queue: {name: fifo, lookahead: false}\n"
    )
    few, bare, queue = read_methods(path).values()
    assert few.settings == SynCoS(t_min=700, iterations=2, windows_per_step=4)
    assert bare.settings == CoDenoising() and not bare.structured and few.structured
    assert queue.settings == FIFO(lookahead=False)
    for text, message in (
        ("few: {name: syncos, tmin: 7}", "few: unknown key 'tmin' of syncos"),
        ("few: {name: fifo, lookahed: true}", "did you mean 'lookahead'"),
        ("few: {name: syncos, structured: 1}", "structured is 1; expected true or false"),
        ("few: 3", "few: is 3; expected"),
        ("a/b: {name: syncos}", "a method's name has letters"),
        ("few: {steps: 3}", "name is missing"),
        ("{}", "names no method"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match="mine.yaml: .*" + message.replace("{", ".")):
            read_methods(path)
    with pytest.raises(InputError, match="did you mean 'syncos'"):
        choose(["synkos"], METHODS, "method")


# -- statistics ----------------------------------------------------------------------------------


def test_intervals():
    assert estimate([]) is None
    assert estimate([0.5]) == Estimate(0.5, None, None, 1)
    assert estimate([0.5] * 4) == Estimate(0.5, 0.5, 0.5, 4)
    rng = np.random.default_rng(0)
    of = estimate(rng.normal(3, 1, 200))
    assert of.low < of.mean < of.high
    # A mean of 200 of spread 1 is known to 1.96 / sqrt(200) = 0.139 on each side.
    assert of.high - of.low == pytest.approx(2 * 0.139, rel=0.15)
    assert estimate(rng.normal(3, 1, 200)).low != of.low


def test_differences_are_of_pairs():
    """Scenarios differ by 100, methods by 1: only pairs can tell."""
    first = {(s, 0): 100.0 * s + 1 for s in range(5)}
    second = {(s, 0): 100.0 * s for s in range(5)} | {(9, 0): 7.0, (8, 0): None}
    assert difference(first, second) == Estimate(1, 1, 1, 5)
    assert difference(first, {(7, 7): 1.0}) is None


def test_verdicts():
    above, below = Estimate(0.2, 0.1, 0.3, 9), Estimate(-0.2, -0.3, -0.1, 9)
    assert verdict(0.05, above) == verdict(-3, below) == HOLDS
    assert verdict(0.05, below) == verdict(-3, above) == FAILS
    assert verdict(0.05, Estimate(0.2, -0.1, 0.4, 9)) == OPEN
    assert verdict(0.05, Estimate(0.0, 0.0, 0.0, 9)) == OPEN
    assert verdict(0.05, None) == NOTHING
    assert verdict(0.05, Estimate(1.0, None, None, 1)) == FEW
    assert verdict(0.05, Estimate(0.2, 0.1, 0.3, 5)) == FEW


def records(offsets, scenarios=6, seeds=2):
    """Videos whose measures are a common value of the video and an offset of the method."""
    rng = np.random.default_rng(0)
    found = []
    for scenario in range(scenarios):
        for seed in range(seeds):
            common = rng.uniform(0.3, 0.5)
            for method, offset in offsets.items():
                value = common + offset + rng.uniform(-0.02, 0.02)
                report = {
                    "frames": 32 if scenario % 2 else 80,
                    "subject_consistency": value,
                    "background_consistency": 0.5,
                    "temporal_flicker": 1.0,
                    "dynamic_degree": True,
                    "scenes": 1,
                    "diversity_events": None,
                    "event_features": rng.normal(size=(4, 6)).tolist(),
                    "similarity": np.eye(4).tolist(),
                    "drift": [1.0, value, value],
                    "world": None,
                }
                found.append(
                    {
                        "key": {"sampler": {"name": method}, "structured": True, "scenario": {}},
                        "method": method,
                        "scenario": f"open-{scenario:02d}",
                        "kind": "open",
                        "seed": seed,
                        "clips": 700 if method == "syncos" else 350,
                        "seconds": 2.0,
                        "compiled": seed == 0,
                        "failed": None,
                        "measures": metric_values(report),
                        "report": report,
                    }
                )
    return found


def test_the_papers_order_is_held_against_ours():
    made = records({"co_denoising": 0.0, "fifo": 0.3, "syncos": 0.1})
    found = {(c.table[:7], c.column, c.first, c.second): c for c in compare(collect(made))}
    syncos = found["Table 1", "SC", "syncos", "co_denoising"]
    assert syncos.result == HOLDS and syncos.ours[0] - syncos.ours[1] == pytest.approx(
        0.1, abs=0.03
    )
    assert found["Table 1", "SC", "syncos", "fifo"].result == FAILS
    assert found["Table 1", "BC", "syncos", "fifo"].result == OPEN  # all the same
    assert found["Table 2", "SC", "syncos", "no_t_min"].result == NOTHING  # not run
    assert found["Table 1", "G", "syncos", "fifo"].result == NOTHING
    assert not any(COLUMNS[column].measure is None for _, column, _, _ in found)
    assert ("Table 2", "SC", "no_t_min", "no_fixed_noise") not in found
    assert ("Table 3", "L", "syncos", "co_denoising") not in found  # equal in the paper


def test_the_papers_figures_are_printed_as_they_are():
    """Counts of 48 scenarios (PEERS of the paper: one video for each) stand behind two columns."""
    for table in TABLES:
        if table.startswith("Table 2"):
            continue
        for row in TABLES[table].values():
            assert (row["DD"] * 48 / 100) % 1 == pytest.approx(0, abs=3e-3) or (
                row["DD"] * 48 / 100
            ) % 1 == pytest.approx(1, abs=3e-3)
            assert abs(row["#Sc"] * 48 - round(row["#Sc"] * 48)) < 0.3


def test_tables():
    made = records({"co_denoising": 0.0, "syncos": 0.1})
    made[1] |= {"failed": "it diverged", "measures": None, "report": None}
    summary = summarise(made, {"command": "syncos experiment --out x", "model": "demo"}, 48)
    json.dumps(summary, allow_nan=False)
    syncos = summary["methods"]["syncos"]
    assert (syncos["videos"], syncos["failed"], syncos["relative_cost"]) == (12, 1, 2)
    assert syncos["measures"]["subject_consistency"]["count"] == 11
    assert syncos["measures"]["coherence"] is None and syncos["median_seconds"] == 2
    assert set(syncos["measures"]) == set(METRICS)
    by_length = {f: of["identity"] for f, of in syncos["by_length"].items()}
    assert {f: of["count"] for f, of in by_length.items()} == {"32": 6, "80": 5}
    assert by_length["32"]["low"] < by_length["32"]["mean"] < by_length["32"]["high"]
    text = to_markdown(summary, ["methods.png"])
    rows = text[text.index("## Over time") :].splitlines()[4:8]
    assert [row.split(" | ")[:3] for row in rows[2:]] == [
        ["| 32", "`co_denoising`", "6"],
        ["| 32", "`syncos`", "6"],
    ]
    assert "Not complete: 24 of 48 videos" in text and "12 (1 failed)" in text
    assert "it diverged" in text and "![methods.png](methods.png)" in text
    assert f"| {HOLDS} |" in text and "syncos experiment --out x" in text
    for block in text.split("\n\n"):  # every table is one
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            assert len({line.count("|") for line in lines}) == 1


def test_pairs_of_methods_are_told_apart():
    made = records({"co_denoising": 0.0, "fifo": 0.3, "syncos": 0.1})
    made = [r for r in made if r["method"] != "fifo" or r["seed"] == 0]  # half as many videos
    pairs = [("fifo", "syncos"), ("syncos", "fifo")]
    summary = summarise(made, {"command": "c"}, len(made), pairs)
    one, other = (pair["measures"] for pair in summary["pairs"])
    apart = one["subject_consistency"]
    assert apart["count"] == 6 and apart["mean"] == pytest.approx(0.2, abs=0.03)
    assert apart["low"] <= apart["mean"] <= apart["high"]
    assert other["subject_consistency"]["mean"] == -apart["mean"]
    assert "coherence" not in one  # no video has it
    row = next(line for line in to_markdown(summary).splitlines() if "`fifo` less `syncos`" in line)
    assert f"{apart['mean']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]" in row
    assert "Pairs of methods" not in to_markdown(summarise(made, {"command": "c"}, len(made)))


def test_the_share_of_a_gain_is_that_of_pairs():
    base = {(s, 0): 10.0 * s for s in range(8)} | {(9, 0): 5.0}
    full = {key: value + 4.0 for key, value in base.items()}
    own = {(s, 0): 10.0 * s + 3.0 for s in range(8)} | {(9, 0): None}
    assert share_of_gain(base, own, full) == Estimate(0.75, 0.75, 0.75, 8)
    assert share_of_gain(base, own, base) is None  # nothing to have a share of
    unclear = {key: value + (5.0 if key[0] == 0 else -0.1) for key, value in base.items()}
    found = share_of_gain(base, own, unclear)
    assert found.mean > 0 and found.low is None and found.high is None
    few = {key: base[key] for key in [(0, 0), (1, 0)]}
    assert share_of_gain(few, own, full) is None
    noisy = {key: value + (key[0] % 2) for key, value in own.items() if value is not None}
    found = share_of_gain(base, noisy, full)
    assert found.mean == pytest.approx(0.875) and 0.75 <= found.low < 0.875 < found.high <= 1


def test_bars_end_within_their_axes(tmp_path, monkeypatch):
    """Movement is no share and may be larger than 1."""
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure))
    monkeypatch.setattr("experiment.plots.replacing", nullcontext)
    made = records({"co_denoising": 0.0, "syncos": 0.2})
    for record in made:
        record["measures"] |= {"movement": 2.5, "coherence": 0.5}
    draw(summarise(made, {"command": "c"}, len(made)), made, tmp_path)
    ends = {axes.get_title(): axes.get_xlim()[1] for axes in drawn[0].axes}
    assert ends["movement"] == pytest.approx(1.02 * 2.5)
    assert ends["coherence"] == 1.02


def test_the_dial_in_tables_and_plots(tmp_path):
    offsets = {"co_denoising": 0.0, "dial_0.5": 0.15, "dial_1": 0.2, "syncos": 0.2}
    offsets["dial_slow"] = 0.1  # somebody's own method, on no dial
    made = records(offsets)
    for record in made:  # without the records' own scatter, so that shares are exact
        record["measures"] |= {"coherence": 0.4 + offsets[record["method"]] + record["seed"] / 10}
    summary = summarise(made, {"command": "c"}, len(made))
    gains = summary["gains"]["coherence"]
    assert gains["dial_0.5"]["gain"]["mean"] == pytest.approx(0.15)
    assert gains["dial_0.5"]["share"]["mean"] == pytest.approx(0.75)
    assert "co_denoising" not in gains
    text = to_markdown(summary)
    assert "| `dial_0.5` | +0.150 [+0.150, +0.150] | 0.750 [0.750, 0.750] |" in text
    assert "dial.png" in draw(summary, made, tmp_path)
    assert Image.open(tmp_path / "dial.png").size > (600, 300)
    methods = dial_methods([0.5, 1.0])
    assert methods["dial_0.5"].settings == SynCoS(strength=0.5) and list(methods) == [
        "dial_0.5",
        "dial_1",
    ]


def test_how_different_seeds_are():
    made = records({"syncos": 0.0}, scenarios=2, seeds=2)
    for record in made:  # the first scenario's seeds are alike, the second's at right angles
        place = record["seed"] if record["scenario"] == "open-01" else 0
        record["report"]["event_features"] = np.eye(2)[[place]].tolist()
    assert diversity_of_seeds(made) == {"syncos": {"open-00": 0, "open-01": 1}}


@pytest.mark.parametrize(
    ("colours", "share"),
    [
        (["red", "red", "red", "red"], 0.0),
        (["red", "blue", "red", "blue"], 0.5),  # 1 bit of 2
        (["red", "blue", "pink", "yellow"], 1.0),
        (["red", None, None, "blue"], 1.0),  # those that show none do not count
        (["red", None, None, None], None),
    ],
)
def test_how_evenly_seeds_choose(colours, share):
    made = records({"syncos": 0.0}, scenarios=1, seeds=len(colours))
    for record, colour in zip(made, colours, strict=True):
        record["report"]["world"] = {
            "open_same": {"colour": True},
            "events": [{"seen": {"colour": colour}}, {"seen": {"colour": "purple"}}],
        }
    found = entropy_of_choices(made)
    assert found == ({} if share is None else {"syncos": {"open-00": pytest.approx(share)}})
    assert "choices" in to_markdown(summarise(made, {"command": "c"}, len(made)))
