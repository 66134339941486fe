"""Prompts as people write them: too long, in tables, with YAML's signs in them."""

import pytest
from checkpoints import syncos

from syncos_jax import Scenario
from syncos_jax.errors import InputError
from syncos_jax.pipeline.load import load_tokenizer
from syncos_jax.scenario.comments import comments_behind_text
from syncos_jax.scenario.prompt_files import read_prompt_file
from syncos_jax.scenario.template import Template

LONG = ", ".join(["a highly detailed cinematic photograph of a red ball on a green meadow"] * 5)


def story(*locals_, shared=LONG):
    events = [{"prompt": prompt, "seconds": 1.0} for prompt in locals_]
    return Scenario.from_dict({"global": shared, "events": events})


def test_a_long_global_prompt_gives_way_to_the_events(caplog):
    tokenizer = load_tokenizer("demo")
    first, second = tokenizer(story("the ball rolls", "the ball grows").prompts())
    assert (first != second).any() and "prompt cut to" in caplog.text
    alone = tokenizer(["the ball rolls"])[0]
    words = [token for token in alone if token not in (alone[0], tokenizer.end)]
    kept = [token for token in first if token != tokenizer.end][-len(words) :]
    assert kept == words


def test_short_prompts_are_as_before():
    tokenizer = load_tokenizer("demo")
    joined = story("the ball rolls", shared="a red ball").prompts()
    assert (tokenizer(joined) == tokenizer(["a red ball, the ball rolls"])).all()


def test_two_events_that_become_the_same_are_an_error():
    tokenizer = load_tokenizer("demo")
    texts = [f"{LONG} {word}" for word in ("left", "right")]
    with pytest.raises(InputError, match="within these two prompts are the same"):
        tokenizer(story(*texts).prompts())


def events(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    return list(read_prompt_file(tmp_path / name).events)


BALL = {"prompt": "a red ball, rolling", "seconds": 1.0}
GROWS = {"prompt": 'it "grows"', "seconds": 2.5}
TABLES = {
    "a.csv": 'prompt,seconds\n"a red ball, rolling",1\n"it ""grows""",2.5\n',
    "excel.csv": '\ufeffPrompt;Seconds\r\na red ball, rolling;1\r\n"it ""grows""";2,5\r\n',
    "a.tsv": 'prompt\tseconds\na red ball, rolling\t1\n"it ""grows"""\t2.5\n',
    "a.jsonl": '{"prompt": "a red ball, rolling", "seconds": 1}\n'
    '{"prompt": "it \\"grows\\"", "seconds": 2.5}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name):
    assert events(tmp_path, name, TABLES[name]) == [BALL, GROWS]


def test_other_prompt_files(tmp_path):
    assert events(tmp_path, "a.csv", "one\ntwo\n") == [{"prompt": "one"}, {"prompt": "two"}]
    assert events(tmp_path, "a.json", '["one"]') == [{"prompt": "one"}]
    lines = events(tmp_path, "a.txt", "# note\r\na red ball\n#2 it grows\n\na\u2028b\n")
    assert [event["prompt"] for event in lines] == ["a red ball", "#2 it grows", "a b"]
    for name, text, message in [
        ("a.csv", "a,b\nc,d\n", "has no column 'prompt'"),
        ("a.csv", "prompt,seconds\na,b,c\n", "row 2 has 3 cells"),
        ("a.csv", "prompt,seconds\na,soon\n", "seconds must be a number, got 'soon'"),
        ("a.yaml", "events: []", "pass it as SCENARIO"),
        ("a.xlsx", "", "save it as .csv"),
        ("a.txt", "a\x00b", "not plain text"),
        ("a.txt", '["a",\n"b"]', "looks like JSON"),
        ("a.json", '{"events": []}', "pass it as SCENARIO"),
    ]:
        with pytest.raises(InputError, match=message):
            events(tmp_path, name, text)


def test_text_behind_a_hash_is_mentioned_and_prompts_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(
        "global: a jersey with the #7 and a stripe\nevents:\n"
        "  - {prompt: it waves, seconds: 1}   # the first\nseed: 3 #here\n"
    )
    result = syncos("scenario", "check", "a.yaml")
    assert result.exit_code == 0 and "  global: a jersey with the\n  0: it waves" in result.stdout
    assert result.stderr.count("note: ") == 1
    assert "a.yaml:1: '#7 and a stripe' is a comment" in result.stderr
    result = syncos("plan", "a.yaml", "--sampler", "co_denoising", "--steps", "2")
    assert "'#7 and a stripe'" in result.stderr


YAML = {
    "prompt: a sign: stop": "in quotes",
    "prompt: 'it's late'": "in quotes",
    "prompt: *star": "in quotes",
    "prompt: @home": "in quotes",
    'prompt: "a\\d"': "double a backslash",
    "prompt: 3": "put text in quotes",
    "prompt: true": "put text in quotes",
    "prompt: #7": "must be text",
}


@pytest.mark.parametrize("line", YAML)
def test_errors_of_yaml_say_what_to_type(tmp_path, line):
    path = tmp_path / "a.yaml"
    path.write_text(f"global: a\nevents:\n  - {line}\n    seconds: 1\n")
    with pytest.raises(InputError, match=YAML[line]):
        Scenario.from_file(path)


@pytest.mark.parametrize("text", ["no", "on", "2024-01-01", "12:30", "007", "it waves: no"])
def test_words_that_yaml_changes_stay_words(tmp_path, text):
    path = tmp_path / "a.yaml"
    quoted = f"'{text}'" if ": " in text else text
    path.write_text(f"global: a\nevents:\n  - prompt: {quoted}\n    seconds: 1\n")
    assert Scenario.from_file(path).events[0].prompt == text


@pytest.mark.parametrize("number", ["1.10", "1e3", "0.50", "1_000", "3"])
def test_numbers_stand_in_prompts_as_they_were_written(tmp_path, number):
    path = tmp_path / "a.yaml"
    path.write_text(
        f"variables: {{n: {number}, pace: 1}}\nglobal: 'a {{n}}'\n"
        "events: [{prompt: b, seconds: '{pace}'}]\n"
    )
    assert Template.from_file(path).fill().global_prompt == f"a {number}"


def test_leading_zeros_are_no_octal_numbers(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("variables: {pace: 1}\nglobal: a\nevents: [{prompt: b, seconds: '{pace}'}]\n")
    assert Template.from_file(path).fill({"pace": "010"}).events[0].seconds == 10
    path.write_text("global: a\nevents: [{prompt: b, seconds: 010}]\n")
    with pytest.raises(InputError, match="seconds must be .*got '010'"):
        Scenario.from_file(path)


def test_a_window_in_a_scenario(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("global: a\nwindow: 24\nevents: [{prompt: b, seconds: 3}]\n")
    assert Scenario.from_file(path).window == 24


OTHER_TABLES = {
    "tabs.csv": 'prompt\tseconds\na red ball, rolling\t1\nit "grows"\t2.5\n',
    "bars.csv": 'prompt|seconds\na red ball, rolling|1\n"it ""grows"""|2.5\n',
    "sep.csv": 'sep=;\r\nprompt;seconds\r\na red ball, rolling;1\r\n"it ""grows""";2,5\r\n',
    "mac.csv": 'prompt,seconds\r"a red ball, rolling",1\r"it ""grows""",2.5\r',
    "names.csv": ' Text Prompt ,DURATION\n"a red ball, rolling",1\n"it ""grows""",2.5\n',
    "names.jsonl": '{"text_prompt": "a red ball, rolling", "duration": 1}\n\n'
    '{"caption": "it \\"grows\\"", "seconds": 2.5, "negative_prompt": null}\n',
}


@pytest.mark.parametrize("name", OTHER_TABLES)
def test_tables_of_other_programs(tmp_path, name):
    text = OTHER_TABLES[name].replace('it "grows"', '"it ""grows"""') if "tabs" in name else None
    assert events(tmp_path, name, text or OTHER_TABLES[name]) == [BALL, GROWS]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.tsv", "a.txt"])
def test_encodings_of_other_programs(tmp_path, name, encoding):
    text = "prompt\r\nein roter Ball, größer 🎈 e\u0301\r\n"
    text = text if name == "a.tsv" else text.partition("\r\n")[2]
    (tmp_path / name).write_bytes(text.encode(encoding))
    found = read_prompt_file(tmp_path / name).events
    assert list(found) == [{"prompt": "ein roter Ball, größer 🎈 e\u0301"}]
    (tmp_path / name).write_bytes(text.encode("cp1252", "replace"))
    with pytest.raises(InputError, match="not UTF-8 text; save it as UTF-8"):
        read_prompt_file(tmp_path / name)


def test_nothing_of_a_table_is_lost_in_silence(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,,camera\na ball,left,\n\nit grows,,wide\n")
    notes = read_prompt_file(path).notes
    assert notes == (f"{path}: ignored columns: camera, number 2",)
    (tmp_path / "a.txt").write_text('"a ball"\n"it grows"\n')
    assert "are part of the prompts" in read_prompt_file(tmp_path / "a.txt").notes[0]
    for name, text, message in [
        ("a.csv", "prompt,caption\na,b\n", "two columns for prompt"),
        ("a.csv", "prompt,seconds\n\n\n,3\n", "row 4: has no prompt"),
        ("a.txt", "a ball\t1\nit grows\t2\n", "looks like a table; rename it to .tsv"),
        ("a.json", '[{"prompt": "a", "prompt": "b"}]', "duplicate key 'prompt'"),
        ("a.jsonl", '{"prompt": "a", "text": "b"}', "two keys with the same meaning"),
        ("a.jsonl", '{"prompt": 3}', "has no prompt"),
        ("a.txt", "", "contains no prompt"),
    ]:
        with pytest.raises(InputError, match=message):
            events(tmp_path, name, text)


HASHES = {
    "list": ("variables:\n  place:\n    - beach #1\n    - lake\n", "'#1'"),
    "two lines": ("global: a jersey\n  with the #7\n", "'#7'"),
    "second of two keys": ("events:\n  - {seconds: 1, prompt: a ball #9}\n", "'#9}'"),
    "block": ("global: |\n  key: text #7\n", None),
    "quoted": ('global: "a #7" #8\n', None),
    "number": ("seed: 3 #here\n", None),
    "remark": ("global: a ball  # red\n", None),
    "remark close": ("global: a ball # red\n", "'# red'"),
    "nothing": ("global: #7\n", None),
}


@pytest.mark.parametrize("name", HASHES)
def test_where_yaml_ends_a_text_at_a_hash(tmp_path, name):
    text, said = HASHES[name]
    (tmp_path / "a.yaml").write_text(text)
    notes = comments_behind_text(tmp_path / "a.yaml")
    assert len(notes) == (said is not None), notes
    assert said is None or said in notes[0]


def test_a_batch_says_it_too(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        text = "global: a jersey with the #7\nevents: [{prompt: it waves, seconds: 1}]\n"
        (tmp_path / "in" / f"{name}.yaml").write_text(text)
    result = syncos("batch", tmp_path / "in", "--out", tmp_path / "out", "--devices-per-video", "2")
    assert result.exit_code == 2
    assert result.stderr.count("'#7' is a comment to YAML") == 2
