"""Mutations of every kind of file that is read: accepted, or one line; soon, and never a trace."""

import json
import random
import shutil
import time
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from syncos_jax.errors import InputError
from syncos_jax.files.documents import MAX_BYTES
from syncos_jax.models import saved
from syncos_jax.runs.items import read_items
from syncos_jax.runs.metadata import read_metadata
from syncos_jax.scenario import variables
from syncos_jax.scenario.prompt_files import read_prompt_file
from syncos_jax.scenario.template import Template
from syncos_jax.studio.review.approvals import read_reviews
from syncos_jax.weights_convert.diffusers_folder import read_config
from syncos_jax.weights_convert.weight_files import open_file

SECONDS = 20.0
STORY = """\
variables: {place: [beach, meadow], pace: 1.5}
global: "a ball on a {place}"
events:
  - {prompt: it rolls, seconds: "{pace}", negative: dark}
  - prompt: it grows
    frames: 12
overrides: [{prompt: it shines, seconds: [0.5, 1]}]
sampler: {name: syncos, steps: 5, guidance: 2.5}
size: [64, 48]
seed: 3
"""
TOKENS = [
    "NaN",
    "-1",
    "1000000000",
    "1e999",
    "null",
    "true",
    '"',
    "'",
    "{",
    "}",
    "[",
    "]",
    ":",
    "#",
]
TOKENS += [
    "#",
    "*a",
    "&a ",
    "!!python/object:os.system",
    "\x00",
    "\u2028",
    "\ufeff",
    "\t",
    "<<: ",
    "%",
]
TOKENS += ["0x10", "007", "1:30", "\n- ", "\r", "99999999999999999999", "[" * 2000, "{a: " * 500]


def mutated_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.choice((1, 3, 50))]
        elif kind == 2:
            data[at:at] = rng.choice(TOKENS).encode()
        elif kind == 3:
            other = rng.randrange(len(data) + 1)
            data[at:at] = data[other : other + rng.choice((1, 10, 100))]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


VALUES = [None, True, -1, 0, 10**9, 10**30, 1e308, float("nan"), "", "x", [], {}, [[]], {"a": {}}]


def mutated_value(value, rng):
    """A document with one of its values replaced, removed, or doubled under another key."""
    value = json.loads(json.dumps(value))
    node, path = value, []
    while isinstance(node, dict | list) and node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys)
        path.append((node, key))
        node = node[key]
        if rng.random() < 0.3:
            break
    if not path:
        return rng.choice(VALUES)
    holder, key = path[-1]
    kind = rng.randrange(3)
    if kind == 0 and isinstance(holder, dict):
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}_"] = holder[key]
    else:
        holder[key] = rng.choice(VALUES)
    return value


def tried(read, path):
    begin = time.perf_counter()
    try:
        read(path)
        said = None
    except InputError as error:
        said = str(error)
        assert "\n" not in said and 0 < len(said) < 20_000, said
    assert time.perf_counter() - begin < SECONDS
    return said


def documents(tmp_path):
    """(name, content, how it is read): one of every kind."""
    record = {key: {} for key in ("scenario", "sampler", "latents", "versions", "device", "video")}
    record |= {"format": "syncos_jax video", "version": 1, "files": {}, "seed": 3}
    record["model"] = {"id": "demo", "weights_sha256": "0" * 64}
    record["latents"] = {"sha256": "0" * 64}
    model = Path(str(files("syncos_jax"))) / "demo" / "model"
    shutil.copytree(model, tmp_path / "folder", ignore=shutil.ignore_patterns("*.safetensors"))
    config = read_config(model)
    (tmp_path / "saved").mkdir()
    saved.write_config(tmp_path / "saved", config, ["unet"])
    saved.seal(tmp_path / "saved")
    (tmp_path / "state.json").write_text("{}")
    state = {"conv_in.weight": torch.ones(2, 3), "conv_in.bias": torch.zeros(2)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    torch.save(state, tmp_path / "b.ckpt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "story.yaml").write_text(STORY)
    line = json.dumps({"name": "a", "global": "b", "events": [{"prompt": "c", "seconds": 2}]})
    (tmp_path / "items.jsonl").write_text(line + "\n" + line.replace('"a"', '"d"') + "\n")
    (tmp_path / "prompts.csv").write_text('prompt,seconds\n"a, b",1\nc,2.5\n')
    (tmp_path / "prompts.json").write_text('["a", {"prompt": "b", "seconds": 2}]')
    (tmp_path / "record.json").write_text(json.dumps(record))
    (tmp_path / "review.json").write_text('{"format": "syncos_jax review", "version": 1}')
    folder, kept = tmp_path / "folder", tmp_path / "saved"
    yield "story.yaml", lambda path: Template.from_file(path).expand()
    yield "items.jsonl", read_items
    yield "prompts.csv", read_prompt_file
    yield "prompts.json", read_prompt_file
    yield "record.json", read_metadata
    yield "review.json", lambda path: read_reviews(path.parent)
    for name in ("unet/config.json", "vae/config.json", "text_encoder/config.json"):
        yield f"folder/{name}", lambda _path: read_config(folder)
    yield "folder/scheduler/scheduler_config.json", lambda _path: read_config(folder)
    yield "folder/syncos.json", lambda _path: read_config(folder)
    yield "saved/config.json", lambda _path: saved.read_config(kept)
    yield "saved/files.json", lambda _path: saved.damaged(kept)
    for name in ("a.ckpt", "b.ckpt", "a.safetensors"):
        yield name, open_file


def fuzz(tmp_path, count, seed):
    rng = random.Random(seed)
    kinds = [(tmp_path / name, read) for name, read in documents(tmp_path)]
    wholes = {path: path.read_bytes() for path, _ in kinds}
    refused = 0
    for index in range(count):
        path, read = kinds[index % len(kinds)]
        whole = wholes[path]
        if path.suffix == ".json" and rng.random() < 0.6:
            changed = json.dumps(mutated_value(json.loads(whole), rng)).encode()
        else:
            changed = mutated_bytes(whole, rng)
        path.write_bytes(changed)
        refused += tried(read, path) is not None
        path.write_bytes(whole)
    return refused


def test_a_few_mutations_of_every_kind(tmp_path):
    assert fuzz(tmp_path, 200, seed=0) > 40


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_mutations_of_every_kind(tmp_path, seed):
    assert fuzz(tmp_path, 500, seed) > 100


@pytest.mark.parametrize("key", ["family", "networks", "format", "version"])
@pytest.mark.parametrize("value", [{}, [{}], [[]], {"a": []}, [1], None, 1.5])
def test_a_value_of_another_kind_in_a_saved_config(tmp_path, key, value):
    """Of kinds that no dictionary can look up, too."""
    read = dict(documents(tmp_path))["saved/config.json"]
    path = tmp_path / "saved" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert tried(read, path) is not None


REPEATED = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\n"
EXTREME = {
    "aliases": REPEATED + "global: [*b, *b]\n",
    "aliases as events": REPEATED + "global: g\nevents: [*b, *b]\n",
    "large": "global: " + "a" * (MAX_BYTES + 1),
    "deep": "events: " + "[" * 201,
    "deep mappings": "events: " + "{a: " * 201,
    "many frames": "global: a\nevents: [{prompt: a, frames: 1000001}]",
    "not a number": "global: a\nevents: [{prompt: a, seconds: .nan}]",
    "infinite": "global: a\nevents: [{prompt: a, seconds: .inf}]",
    "many digits": "global: a\nseed: " + "9" * 4_301 + "\nevents: [{prompt: a, seconds: 1}]",
    "many events": "global: a\nevents: [" + "{prompt: a, seconds: 1}, " * 10_001 + "]",
}


@pytest.mark.parametrize("name", EXTREME)
def test_values_past_a_limit_are_refused_in_one_line(tmp_path, monkeypatch, name):
    """Each just past its limit. Aliases can expand to any number of values, so these are counted;
    the limit is lowered here."""
    monkeypatch.setattr(variables, "_MAX_VALUES", 30)
    path = tmp_path / "a.yaml"
    path.write_text(EXTREME[name])
    said = tried(lambda file: Template.from_file(file).expand(), path)
    assert said is not None and len(said) < 1000
