"""InputError carries data; each front end words it."""

import copy
import pickle
from pathlib import Path

import pytest

from syncos_jax.cli.console import fail, flag
from syncos_jax.errors import MISSING, Argument, InputError, Phrase, worded
from syncos_jax.sampling.failures import NonFiniteError

RESUME = Argument("resume", False)


@pytest.mark.parametrize(
    ("error", "library", "command"),
    [
        (InputError("a plain\nsentence"), "a plain sentence", "a plain sentence"),
        (
            InputError(argument="window", expected="an integer from 1 to 9", value=0),
            "window must be an integer from 1 to 9, got 0",
            "--window must be an integer from 1 to 9, got 0",
        ),
        (
            InputError("no such file", place=Path("a.yaml"), remedy="check the path"),
            "a.yaml: no such file; check the path",
            "a.yaml: no such file; check the path",
        ),
        (
            InputError(
                "unknown key", place=("a.yaml", "sampler"), value="stepz", expected="steps, eta"
            ),
            "a.yaml: sampler: unknown key, got 'stepz', expected steps, eta",
            "a.yaml: sampler: unknown key, got 'stepz', expected steps, eta",
        ),
        (
            InputError("holds another run", place="d", remedy=("pass ", RESUME, " to restart")),
            "d: holds another run; pass `resume=False` to restart",
            "d: holds another run; pass --no-resume to restart",
        ),
        (
            InputError("unknown network", argument="only", value="vea"),
            "only: unknown network, got 'vea'",
            "--only: unknown network, got 'vea'",
        ),
    ],
)
def test_one_line_in_the_words_of_each_front_end(error, library, command, capsys):
    assert str(error) == library
    fail(error)
    assert capsys.readouterr().err == f"error: {command}\n"


@pytest.mark.parametrize(
    ("argument", "option"),
    [
        (Argument("only", "unet"), "--only unet"),
        (Argument("scale"), "--scale"),
        (Argument("values", {"place": "..."}), "--set place=..."),
        (Argument("resume", True), "`resume=True`"),
        (Argument("nothing"), "`nothing`"),
    ],
)
def test_arguments_as_options(argument, option):
    assert flag(argument) == option


def test_the_place_of_an_error_grows_outwards():
    error = InputError(argument="steps", expected="an integer", value=None)
    in_file = error.in_key("sampler").within("a.yaml")
    assert in_file.place == ("a.yaml", "sampler.steps")
    assert str(in_file) == "a.yaml: sampler.steps must be an integer, got None"
    assert error.place == () and error.argument == "steps"


def test_several_errors_are_all_listed(capsys):
    first, second = InputError("bad", argument="size"), InputError("worse", place="events[1]")
    both = InputError.together([first, second]).within("a.yaml")
    assert [str(one) for one in both.all_errors] == [
        "a.yaml: size: bad",
        "a.yaml: events[1]: worse",
    ]
    assert str(both) == "a.yaml: 2 errors: (1) size: bad; (2) events[1]: worse"
    assert InputError.together([both, first]).all_errors == (*both.all_errors, first)
    assert InputError.together([first]) is first is first.first_error
    fail(both)
    assert capsys.readouterr().err == (
        "error: a.yaml: --size: bad\nerror: a.yaml: events[1]: worse\n"
    )


def test_errors_are_copied_and_pickled_with_their_data():
    error = InputError(("use ", RESUME), place="d", argument="out")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert str(twin) == str(error) and twin.value is MISSING
    own = pickle.loads(pickle.dumps(NonFiniteError("not finite", 3, [0, 1], 2)))
    assert (own.what, own.windows, own.video) == ("not finite", (0, 1), 2)


def test_a_phrase_is_text_that_front_ends_can_word():
    phrase = pickle.loads(pickle.dumps(Phrase("pass ", RESUME, " to restart")))
    assert phrase == "pass `resume=False` to restart"
    assert worded(phrase, flag) == "pass --no-resume to restart"
    assert worded("plain `resume=False`", flag) == "plain `resume=False`"
