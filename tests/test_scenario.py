"""Scenario files: what they mean, and that every bad one ends in one clear line."""

import copy
import json
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from syncos_jax.errors import InputError
from syncos_jax.scenario import Event, Scenario

VALID = {
    "global": "a red ball on a green meadow",
    "negative": "",
    "events": [
        {"prompt": "the ball rolls to the left", "seconds": 2},
        {"prompt": "the ball grows", "frames": 5},
    ],
    "sampler": {"name": "syncos", "steps": 50, "learning_rate": 0.5},
    "seed": 3,
}


def write(tmp_path, content, name="story.yaml"):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8")
    return path


def changed(path, value):
    """VALID with the value at ``path`` replaced, or removed where ``value`` is ``...``."""
    data = copy.deepcopy(VALID)
    *above, last = path
    place = data
    for key in above:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.mark.parametrize("name", ["story.yaml", "story.yml", "story.json"])
def test_reads_files(tmp_path, name):
    text = json.dumps(VALID) if name.endswith("json") else yaml.safe_dump(VALID)
    scenario = Scenario.from_file(write(tmp_path, text, name))
    assert scenario == Scenario.from_dict(VALID)
    assert scenario.global_prompt == VALID["global"] and scenario.seed == 3
    assert scenario.event_frames(8) == [16, 5] and scenario.total_frames(8) == 21
    assert scenario.prompts() == [
        "a red ball on a green meadow, the ball rolls to the left",
        "a red ball on a green meadow, the ball grows",
    ]
    assert scenario.settings(guidance=3.0).guidance == 3.0


def test_own_frame_rate_and_local_prompts():
    data = {"events": [{"prompt": "rain", "seconds": 1.5}], "structured": False, "fps": 10}
    scenario = Scenario.from_dict(data)
    assert scenario.prompts() == ["rain"]
    assert scenario.event_frames(8) == [15]
    assert scenario.settings() is None


def test_can_be_built_in_python():
    scenario = Scenario(global_prompt="a cat", events=[Event(prompt="sleeps", frames=8)])
    assert scenario.event_frames(30) == [8]
    with pytest.raises(ValueError):
        scenario.seed = 4


def test_numbers_like_1e_3_are_numbers(tmp_path):
    text = yaml.safe_dump(VALID).replace("learning_rate: 0.5", "learning_rate: 2e-2")
    scenario = Scenario.from_file(write(tmp_path, text))
    assert scenario.settings().refinement.learning_rate == 0.02


def test_another_sampler():
    scenario = Scenario.from_dict(VALID)
    assert scenario.with_sampler(steps=7).sampler == {**VALID["sampler"], "steps": 7}
    other = scenario.with_sampler("co_denoising", guidance=2.0)
    assert other.sampler == {"name": "co_denoising", "steps": 50, "guidance": 2.0}
    kept = scenario.with_sampler(solver="unipc", guidance_t_min=300.0)
    assert kept.with_sampler("flowlong").settings().solver == "unipc"
    assert kept.with_sampler("flowlong").settings().guidance_t_min == 300.0
    assert "solver" not in kept.with_sampler("fifo").sampler
    with pytest.raises(InputError, match="unknown name 'cosyn'"):
        scenario.with_sampler("cosyn")


BAD_VALUES = [
    (("events",), [], "events: has 0 entries, expected 1 to"),
    (("events",), "x", "events must be a list.*got 'x'"),
    (("events",), ..., "events: is missing, expected a list"),
    (("events", 1), "grow", r"events\[1\] must be .*got 'grow'"),
    (("events", 0, "seconds"), -1, r"events\[0\]\.seconds must be a number of sec.*got -1"),
    (("events", 0, "seconds"), 0, r"events\[0\]\.seconds must be .*got 0"),
    (("events", 0, "seconds"), float("nan"), r"events\[0\]\.seconds must be .*got nan"),
    (("events", 0, "seconds"), float("inf"), r"events\[0\]\.seconds must be .*got inf"),
    (("events", 0, "seconds"), 1e9, r"events\[0\]\.seconds must be .*got 1000000000.0"),
    (("events", 0, "seconds"), "2", r"events\[0\]\.seconds must be .*got '2'"),
    (("events", 0, "seconds"), True, r"events\[0\]\.seconds must be .*got True"),
    (("events", 0, "seconds"), ..., r"events\[0\]: has no length; add seconds or frames"),
    (("events", 0, "frames"), 3, r"events\[0\]: has both seconds and frames; remove one"),
    (("events", 1, "frames"), 2.5, r"events\[1\]\.frames must be an integer.*got 2.5"),
    (("events", 1, "frames"), 10**9, r"events\[1\]\.frames must be .*got 1000000000"),
    (("events", 1, "prompt"), ..., r"events\[1\]\.prompt: is missing, expected text"),
    (("events", 1, "prompt"), " ", r"events\[1\]\.prompt must be text.*got ' '"),
    (("events", 1, "prompt"), 12, r"events\[1\]\.prompt must be .*got 12; put text in quo"),
    (("events", 1, "promt"), "x", r"events\[1\]\.promt: unknown key; did you mean 'prompt'\?"),
    (("evnts",), [], "evnts: unknown key; did you mean 'events'"),
    (("colour",), "red", "colour: unknown key; known are global, negative, events"),
    ((7,), "red", r"\[7\]: unknown key"),
    (("global",), ..., "global: is missing, expected text .* set structured: false"),
    (("global",), "x" * 9999, "global must be text.*got 'xxx.*xxx'"),
    (("global",), ["a"], r"global must be text.*got \['a'\]"),
    (("sampler",), "syncos", "sampler must be a mapping such as.*got 'syncos'"),
    (("sampler", "name"), ..., "sampler: has no name, expected a mapping such as"),
    (("sampler", "name"), "syncoz", "unknown name 'syncoz'.*did you mean 'syncos'"),
    (("sampler", "stepps"), 3, "sampler: unknown key 'stepps'.*did you mean 'steps'"),
    (("sampler", "steps"), 0, "sampler.steps must be an integer, 1 to"),
    (("sampler", "steps"), [1], r"sampler.steps must be a number or a word, got \[1\]"),
    (("sampler", "guidance"), float("inf"), "sampler.guidance must be a finite number, got inf"),
    (("seed",), -1, "seed must be an integer from 0 to.*got -1"),
    (("seed",), 2**40, "seed must be .*got 1099511627776"),
    (("fps",), 0, "fps must be .*got 0"),
    (("stride",), 0, "stride must be .*got 0"),
    (("structured",), "yes please", "structured must be true or false.*got 'yes please'"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD_VALUES)
def test_bad_values_are_named(tmp_path, path, value, message):
    file = write(tmp_path, yaml.safe_dump(changed(path, value)))
    with pytest.raises(InputError, match=f"^{re.escape(str(file))}: .*{message}"):
        Scenario.from_file(file)


BAD_FILES = [
    (b"", "contains nothing, expected a mapping"),
    (b"- a\n- b\n", "contains a list, expected a mapping"),
    (b"just words", "contains a str, expected a mapping"),
    (b"global: [", ":1: not readable as YAML"),
    (b"global: a\nglobal: b\n", ":2: .*duplicate key 'global'"),
    (b"events: [{prompt: a, prompt: b}]", ":1: .*duplicate key 'prompt'"),
    (b"global: caf\xe9", ":1: not UTF-8 text; save it as UTF-8"),
    (b"global: \x00", "not readable as YAML"),
    (b"global: 2001-99-99", "events: is missing"),
    (b"? [a, b]\n: c", "not readable as YAML: found unhashable key"),
    (b"global: " + b"[" * 201, "nested too deeply"),
    (b"global: " + b"a" * 1_000_000, "larger than 1 MB"),
    (b"global: !!python/object/apply:os.system ['false']", "could not determine a constructor"),
    (b"a: &a [*a]\nglobal: *a", "unknown key"),
    (b"global: 0x" + b"f" * 9000, "global must be text.*got '0xfff.*"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_bad_files(tmp_path, content, message):
    file = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        Scenario.from_file(file)
    assert str(caught.value).startswith(str(file)) and len(str(caught.value)) < 700


def test_bad_json(tmp_path):
    with pytest.raises(InputError, match=":2: not readable as JSON"):
        Scenario.from_file(write(tmp_path, "{\n,", "story.json"))
    with pytest.raises(InputError, match="duplicate key 'seed'"):
        Scenario.from_file(write(tmp_path, '{"seed": 1, "seed": 2}', "story.json"))
    digits = '{"global": ' + "9" * 5000 + "}"
    with pytest.raises(InputError, match="cannot be read"):
        Scenario.from_file(write(tmp_path, digits, "story.json"))


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="none.yaml: no such file"):
        Scenario.from_file(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a folder"):
        Scenario.from_file(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        Scenario.from_file("a\0b")


def test_events_too_short_or_too_long():
    with pytest.raises(
        InputError, match=r"events\[0\]\.seconds: is 0.08 frames at 8 fps, and none"
    ):
        Scenario.from_dict(changed(("events", 0, "seconds"), 0.01)).event_frames(8)
    many = {"global": "a", "events": [{"prompt": "b", "frames": 900_000}] * 2}
    with pytest.raises(InputError, match="1800000 frames, more than 1000000"):
        Scenario.from_dict(many).event_frames(8)


def test_save_replaces_or_leaves_alone(tmp_path):
    scenario = Scenario.from_dict(VALID)
    for name in ("a.yaml", "a.json"):
        scenario.save(tmp_path / name)
        assert Scenario.from_file(tmp_path / name) == scenario
    with pytest.raises(InputError, match="does not exist"):
        scenario.save(tmp_path / "no" / "a.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.yaml"]


# -- anything else ---------------------------------------------------------------------------------

words = st.text(max_size=30)
numbers = st.one_of(st.integers(), st.floats(), st.integers(0, 100), st.floats(0.1, 9))
leaves = st.one_of(st.none(), st.booleans(), numbers, words)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | numbers, inner)
)
places = st.sampled_from(
    [(key,) for key in ("global", "negative", "events", "sampler", "seed", "fps", "stride")]
    + [("events", 0), ("events", 1)]
    + [("events", 0, key) for key in ("prompt", "seconds", "frames", "length")]
    + [("sampler", key) for key in ("name", "steps", "learning_rate", "batch", "lr")]
)


def accepted_or_input_error(read):
    try:
        scenario = read()
        scenario.event_frames(8)
    except InputError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 1000


@settings(max_examples=300)
@given(place=places, value=anything)
def test_any_value_is_accepted_or_refused(place, value):
    accepted_or_input_error(lambda: Scenario.from_dict(changed(place, value)))


@settings(max_examples=300)
@given(data=st.data())
def test_any_damage_to_a_file_is_accepted_or_refused(tmp_path_factory, data):
    as_json = data.draw(st.booleans())
    text = json.dumps(VALID, indent=1) if as_json else yaml.safe_dump(VALID)
    raw = text.encode()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        end = min(len(raw), start + data.draw(st.integers(0, 12)))
        pieces = st.sampled_from(
            b"|: |\n|- |{}|[|]|&a |*a|!!int |? |\t|#|%|'|\"|~|<<: |1e9|---".split(b"|")
        )
        raw = raw[:start] + data.draw(pieces | st.binary(max_size=6)) + raw[end:]
    folder = tmp_path_factory.getbasetemp()
    file = write(folder, raw, "damaged.json" if as_json else "damaged.yaml")
    accepted_or_input_error(lambda: Scenario.from_file(file))


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).map(
    lambda text: text.strip() or "x"
)


@settings(max_examples=200)
@given(
    stays=texts,
    events=st.lists(
        st.tuples(
            texts | st.sampled_from(["1e5", "yes", "null", "1:30"]),
            st.integers(1, 99) | st.floats(0.1, 99),
        ),
        min_size=1,
        max_size=4,
    ),
    suffix=st.sampled_from(["yaml", "json"]),
)
def test_what_is_saved_is_read_back(tmp_path_factory, stays, events, suffix):
    rows = [
        {"prompt": prompt, "frames" if isinstance(length, int) else "seconds": length}
        for prompt, length in events
    ]
    scenario = Scenario.from_dict({"global": stays, "events": rows, "sampler": VALID["sampler"]})
    file = tmp_path_factory.getbasetemp() / f"saved.{suffix}"
    scenario.save(file)
    assert Scenario.from_file(file) == scenario
