"""What every public name tells its reader: arguments, shapes, errors, sources."""

import inspect
import re

import pytest

import syncos_jax
from syncos_jax import SamplerConfig

ARRAY = re.compile(r"\b(?:Array|ndarray|ArrayLike)\b")
SHAPE = re.compile(r"``(?:\w+ )?(?:\w+ )?\[[\w., *()]+\]``")


def public():
    """(name, object, text) of public names and their public methods."""
    for name in syncos_jax.__all__:
        thing = getattr(syncos_jax, name)
        if not callable(thing):
            continue
        text = inspect.getdoc(thing) or ""
        if inspect.isclass(thing) and inspect.isfunction(thing.__init__):
            text += inspect.getdoc(thing.__init__) or ""
        yield name, thing, text
        for method in vars(thing) if inspect.isclass(thing) else ():
            member = getattr(thing, method)
            inherited = any(hasattr(base, method) for base in thing.__mro__[1:])
            if method[0] != "_" and callable(member) and not inherited:
                yield f"{name}.{method}", member, (inspect.getdoc(member) or "") + "\n" + text


THINGS = {name: (thing, text) for name, thing, text in public()}


def parameters(thing):
    try:
        found = inspect.signature(thing).parameters.values()
    except ValueError:
        return []
    return [p for p in found if p.name not in {"self", "cls"} and p.kind is not p.VAR_KEYWORD]


@pytest.mark.parametrize("name", THINGS)
def test_it_has_a_docstring_of_its_own(name):
    assert len(inspect.getdoc(THINGS[name][0]) or "") > 20


@pytest.mark.parametrize("name", THINGS)
def test_every_argument_is_described(name):
    thing, text = THINGS[name]
    texts = [text]
    if inspect.isclass(thing):  # a subclass describes what it adds
        texts += [inspect.getdoc(base) or "" for base in thing.__mro__[1:-1]]
    words = set(re.findall(r"\w+", " ".join(texts)))
    assert [p.name for p in parameters(thing) if p.name not in words] == []


@pytest.mark.parametrize("name", THINGS)
def test_arrays_have_shapes(name):
    thing, text = THINGS[name]
    arrays = [p.name for p in parameters(thing) if ARRAY.search(str(p.annotation))]
    arrays = [name for name in arrays if name not in {"key", "seed"}]  # scalars
    try:
        result = inspect.signature(thing).return_annotation
    except ValueError:
        result = ""
    if arrays or (ARRAY.search(str(result)) and not inspect.isclass(thing)):
        assert SHAPE.search(text), (arrays, result)


@pytest.mark.parametrize("name", THINGS)
def test_errors_are_named(name):
    thing, text = THINGS[name]
    function = thing.__post_init__ if hasattr(thing, "__post_init__") else thing
    if inspect.isclass(function) or not inspect.isroutine(inspect.unwrap(function)):
        return
    raised = set(re.findall(r"raise (\w*Error)\b", inspect.getsource(inspect.unwrap(function))))
    said = text + "".join(inspect.getdoc(base) or "" for base in getattr(thing, "__mro__", ()))
    assert {error for error in raised - {"NotImplementedError"} if error not in said} == set()


SAMPLERS = [
    n for n, (t, _) in THINGS.items() if inspect.isclass(t) and issubclass(t, SamplerConfig)
]


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_name_their_source(name):
    assert "arXiv" in THINGS[name][1]
