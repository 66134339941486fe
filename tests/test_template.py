"""Templates: variables filled in, multiplied, refused; names of what they make; plain prompts."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from syncos_jax.errors import InputError
from syncos_jax.scenario import Scenario, schema, variables
from syncos_jax.scenario.prompts import from_prompts, split_prompts
from syncos_jax.scenario.template import Template, parse_values, slug

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))

FILE = {
    "variables": {
        "product": {"description": "what is shown"},
        "place": ["meadow", "beach"],
        "pace": {"default": 1.5, "allowed": [1.5, 3]},
        "steps": 7,
    },
    "global": "{product} on a {place}",
    "negative": "no {place} with {{braces}}",
    "events": [
        {"prompt": "it turns {pace} times", "seconds": "{pace}"},
        {"prompt": "{steps}", "frames": "{steps}"},
    ],
    "sampler": {"name": "co_denoising", "steps": "{steps}"},
}


def template(**changes):
    return Template.from_dict({**FILE, **changes}, source="t.yaml")


def test_values_are_filled_in_with_their_types():
    scenario = template().fill({"product": "a ball", "place": "beach"})
    assert scenario.global_prompt == "a ball on a beach"
    assert scenario.negative == "no beach with {braces}"
    assert scenario.events[0].prompt == "it turns 1.5 times" and scenario.events[0].seconds == 1.5
    assert scenario.events[1].prompt == "7" and scenario.events[1].frames == 7
    assert scenario.settings().steps == 7


def test_values_given_as_text_become_what_the_file_allows():
    scenario = template().fill({"product": "x", "pace": "3", "steps": "2"})
    assert scenario.events[0].seconds == 3 and scenario.events[1].frames == 2


def test_text_of_a_value_is_not_filled_in_again():
    scenario = template().fill({"product": "{place} {{x}}"})
    assert scenario.global_prompt == "{place} {{x}} on a meadow"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"^t.yaml: variables.product: has no value \(what is shown\); .*`values={'pro"),
        ({"product": "x", "plac": "y"}, "^t.yaml: unknown variable 'plac'; did you mean 'place'"),
        ({"product": "x", "place": "moon"}, "variables.place must be one of meadow.*got 'moon'"),
        ({"product": "x", "steps": "many"}, r"events\[1\].frames must be an integer.*got 'many'"),
        ({"product": "x" * 3000}, "global must be .*got 'xxx"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(InputError, match=message):
        template().fill(values)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (["place"], r"variables must be a mapping.*got \['place'\]"),
        ({"a b": 1}, "variables: invalid name 'a b', expected letters"),
        ({"seed": 1}, "invalid name 'seed'"),
        ({"x": {"defualt": 1}}, "variables.x.defualt: unknown key; did you mean 'default'"),
        ({"x": {"default": [1]}}, r"variables.x.default must be text.*got \[1\]"),
        ({"x": []}, r"variables.x.allowed must be a list.*got \[\]"),
        (
            {"x": {"default": "a", "allowed": ["b"]}},
            "variables.x.default must be one of b, got 'a'",
        ),
        ({"x": {"default": float("nan")}}, "variables.x.default must be .*got nan"),
        ({f"x{i}": 1 for i in range(101)}, "variables: has 101 entries, expected at most 100"),
    ],
)
def test_bad_variables(variables, message):
    with pytest.raises(InputError, match=f"^t.yaml: .*{message}"):
        template(variables=variables)


def test_a_name_without_a_variable():
    data = {"global": "a {colour} ball", "events": [{"prompt": "x", "seconds": 1}]}
    with pytest.raises(
        InputError, match=r"^global: unknown variable \{colour\}; .*\(write \{\{colour\}\}"
    ):
        Template.from_dict(data).fill()
    # A value is a declaration, too: the file needs none.
    assert Template.from_dict(data).fill({"colour": "red"}).global_prompt == "a red ball"


def test_in_python_braces_are_only_braces():
    data = {"global": "a {colour} ball", "events": [{"prompt": "}}", "seconds": 1}]}
    assert Scenario.from_dict(data).global_prompt == "a {colour} ball"


@given(st.text("{}a b", min_size=1, max_size=12).filter(str.strip))
def test_braces_survive_a_file(tmp_path_factory, text):
    data = {"global": text, "events": [{"prompt": text, "seconds": 1}]}
    file = tmp_path_factory.getbasetemp() / "braces.yaml"
    Scenario.from_dict(data).save(file)
    assert Scenario.from_file(file) == Scenario.from_dict(data)


def test_repeated_aliases_are_counted(tmp_path, monkeypatch):
    """Aliases can expand to any number of values; the limit is lowered here."""
    monkeypatch.setattr(variables, "_MAX_VALUES", 30)
    lines = ["a: &a [x, x, x, x]", "b: &b [*a, *a, *a, *a]", "c: [*b, *b]"]
    file = tmp_path / "many.yaml"
    file.write_text("\n".join([*lines, "global: x"]))
    with pytest.raises(InputError, match="too many values"):
        Scenario.from_file(file)


# -- several -------------------------------------------------------------------------------------


def test_lists_and_seeds_multiply():
    values = parse_values(["place=beach,meadow", "product=a ball"])
    takes = template().expand(values, seeds=[4, 9])
    assert [take.name for take in takes] == [
        "beach-seed4",
        "beach-seed9",
        "meadow-seed4",
        "meadow-seed9",
    ]
    assert [take.scenario.seed for take in takes] == [4, 9, 4, 9]
    assert takes[3].scenario.global_prompt == "a ball on a meadow"
    assert takes[3].varies == {"place": "meadow", "seed": 9} and takes[3].values["pace"] == 1.5
    assert [take.index for take in takes] == [0, 1, 2, 3] and takes[0].count == 4


def test_one_is_named_after_nothing():
    (take,) = template().expand({"product": ["a"]}, seeds=[3])
    assert take.name == "" and take.scenario.seed == 3 and take.varies == {}


def test_all_allowed_and_names_that_collide():
    assert len(template().expand({"product": ["a"], "place": ["*"], "pace": ["*"]})) == 4
    names = [take.name for take in template().expand({"product": ["A!", "a", "a-2", "語"]})]
    assert names == ["a", "a-2", "a-2-2", "語"] and slug("...") == "value"


def test_too_many():
    values = {"product": [str(i) for i in range(40)], "steps": list(range(1, 41))}
    with pytest.raises(InputError, match="give 1600 videos, expected at most 1000"):
        template().expand(values)


def test_parsing_values():
    assert parse_values([r"a=x\, y , z", "b=1", "b=2", "c=p=q", r"d=\\,e"]) == {
        "a": ["x, y", "z"],
        "b": ["1", "2"],
        "c": ["p=q"],
        "d": ["\\", "e"],
    }
    for bad in ("a", "=b", "1a=b", "a b=c"):
        with pytest.raises(InputError, match="values must be NAME=VALUE, got"):
            parse_values([bad])
    for bad in ("a=", "a=,b", "a=b,,c", "a=b,"):
        with pytest.raises(InputError, match="values: empty value"):
            parse_values([bad])


# -- plain prompts -------------------------------------------------------------------------------


def test_prompts():
    assert split_prompts(r"a | b\|c") == ["a", "b|c"]
    alone = from_prompts(["a", "b"], seconds=1.5)
    assert alone.prompts() == ["a", "b"] and alone.event_frames(2) == [3, 3]
    assert from_prompts(["a"], "a cat").prompts() == ["a cat, a"]
    with pytest.raises(InputError, match="one of the prompts is empty"):
        split_prompts("a | | b")
    with pytest.raises(InputError, match="seconds must be .*got -1.0"):
        from_prompts(["a"], seconds=-1)


# -- the schema ----------------------------------------------------------------------------------


def test_the_shipped_schema_is_current():
    shipped = schema.SCHEMA_PATH.read_text(encoding="utf-8")
    assert shipped == schema.schema_text(), "run: python -m syncos_jax.scenario.schema"
    jsonschema.Draft202012Validator.check_schema(json.loads(shipped))


def problems(data):
    return [
        e.message
        for e in jsonschema.Draft202012Validator(schema.scenario_schema()).iter_errors(data)
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_fit_the_schema(path):
    assert problems(yaml.safe_load(path.read_text())) == []


def test_the_schema_knows_what_the_reader_knows():
    assert problems(FILE) == []
    full = {
        **FILE,
        "size": [64, 48],
        "overrides": [{"prompt": "x", "seconds": [0, 1]}],
        "crossfade": "{steps}",
        "fps": 8,
        "stride": 2,
        "structured": True,
        "seed": 3,
    }
    assert problems(full) == []
    for wrong in (
        {"colour": 1},
        {"events": []},
        {"events": [{"prompt": "x"}]},
        {"events": [{"prompt": "x", "seconds": 1, "frames": 2}]},
        {"sampler": {"name": "syncoz"}},
        {"sampler": {"name": "syncos", "stepps": 3}},
        {"seed": -1},
        {"crossfade": "two"},
        {"overrides": [{"prompt": "x", "frames": [1]}]},
    ):
        assert problems({**FILE, **wrong}), wrong
