"""The texts of the studio's page: the same keys in every language, all of them used."""

import json
import re
from pathlib import Path

import syncos_jax

PAGE = Path(syncos_jax.__file__).parent / "studio" / "page"
TEXTS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in (PAGE / "texts").glob("*.json")
}
CODE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PAGE.glob("app/*.js")))
HTML = (PAGE / "index.html").read_text(encoding="utf-8")


def used():
    """(keys, patterns of keys that are put together) of the page."""
    keys = set(re.findall(r'\bt\(\s*"([a-z.]+)"', CODE))
    keys |= set(re.findall(r'data-t(?:-label)?="([a-z.]+)"', HTML))
    keys |= set(re.findall(r'"(wrong\.[a-z]+)"', CODE))
    keys |= set(re.findall(r'\? "([a-z]+\.[a-z.]+)" : "[a-z]+\.[a-z.]+"', CODE))
    keys |= set(re.findall(r'\? "[a-z]+\.[a-z.]+" : "([a-z]+\.[a-z.]+)"', CODE))
    counted = set(re.findall(r'\bcount\(\s*"([a-z.]+)"', CODE))
    keys |= {f"{key}.{form}" for key in counted for form in ("one", "other")}
    made = re.findall(r"\b(t|count)\(\s*`([^`]+)`", CODE)
    made += [("t", text) for text in re.findall(r"\? `([a-z]+\.\$\{\w+\})` :", CODE)]
    patterns = [
        re.compile(
            ".+".join(map(re.escape, re.split(r"\$\{[^}]+\}", text)))
            + (r"\.(one|other)" if function == "count" else "")
        )
        for function, text in made
    ]
    return keys, patterns


def test_both_languages_say_everything():
    assert set(TEXTS) == {"en", "ja"}
    assert TEXTS["en"].keys() == TEXTS["ja"].keys()
    for name, texts in TEXTS.items():
        assert [key for key, text in texts.items() if not text.strip()] == [], name


def test_every_key_that_is_used_exists():
    keys, patterns = used()
    assert keys - TEXTS["en"].keys() == set()
    assert len(keys) > 150 and len(patterns) >= 6
    for pattern in patterns:
        assert any(pattern.fullmatch(key) for key in TEXTS["en"]), pattern.pattern


def test_every_key_is_used():
    keys, patterns = used()
    spare = [k for k in TEXTS["en"].keys() - keys if not any(p.fullmatch(k) for p in patterns)]
    assert spare == []


def test_the_same_values_are_put_in():
    for key, text in TEXTS["en"].items():
        japanese = TEXTS["ja"][key]
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", japanese)), key


def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup():
    style = "\n".join(path.read_text(encoding="utf-8") for path in PAGE.glob("style/*.css"))
    everything = CODE + HTML + style
    addresses = set(re.findall(r"https?://[^\"' ]+", everything))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "@import",
    ):
        assert word not in everything, word
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", HTML)


def test_files_are_short():
    lengths = {
        path.name: path.read_text(encoding="utf-8").count("\n") for path in PAGE.rglob("*.js")
    }
    assert max(lengths.values()) <= 400, lengths
