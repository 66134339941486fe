"""Batches from a table: one video per row, with pictures, clips and sounds beside it."""

from pathlib import Path

import pytest
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.runs.items import read_items
from syncos_jax.runs.on_ray import shape_of

TABLE = """name,global,prompt,seconds,seed,image,end_image,extend,join,redo,audio,loop_audio,fit
ball,a red ball,it rolls | it {grows},1.5,3,start.png,end.png,,,,music.mp3,yes,contain
,a red ball,it rolls,,,,,clip.mp4,no,,,,
again,,"it rolls, slowly | it grows",,,,,,,"a:b.mp4:1,2",,,

"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "pictures.csv"
    path.write_text(TABLE, encoding="utf-8-sig")
    return path


def test_rows(table, tmp_path):
    ball, second, again = read_items(table)
    assert (ball.name, ball.source) == ("ball", f"{table}:2")
    assert ball.take.scenario.to_dict() == {
        "global": "a red ball",
        "events": [{"prompt": p, "seconds": 1.5} for p in ("it rolls", "it {grows}")],
        "seed": 3,
        "image": str(tmp_path / "start.png"),  # beside the table
        "end_image": str(tmp_path / "end.png"),
        "audio": str(tmp_path / "music.mp3"),
        "loop_audio": True,
        "fit": "contain",
    }
    story = second.take.scenario
    assert second.name == "0002" and story.events[0].seconds == 2
    assert (story.extend, story.join) == (str(tmp_path / "clip.mp4"), False)
    story = again.take.scenario
    assert not story.structured and story.events[0].prompt == "it rolls, slowly"
    assert story.redo.video == str(tmp_path / "a:b.mp4") and story.redo.events == (1, 2)
    assert len({shape_of(item) for item in (ball, second, again)}) == 3
    assert len(read_items(table, seeds=[0, 1])) == 6


def test_other_delimiters(tmp_path):
    (tmp_path / "a.csv").write_text("prompt;seconds\nit rolls, fast;1,5\n")
    (tmp_path / "b.tsv").write_text("prompt\tframes\nit rolls\t8\n")
    assert read_items(tmp_path / "a.csv")[0].take.scenario.events[0].seconds == 1.5
    assert read_items(tmp_path / "b.tsv")[0].take.scenario.events[0].frames == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt,imgae\nx,y\n", ":1: unknown column 'imgae'; did you mean 'image'?"),
        ("global,image\nx,y\n", ":1: the first line names no column 'prompt'"),
        ("prompt,prompt\nx,y\n", ":1: two columns 'prompt'"),
        ("prompt,seed\nx,1,2\n", ":2: 3 cells, but the first line has 2"),
        ("prompt\n", "has no scenario"),
        ("", "names no column 'prompt'"),
    ],
)
def test_what_is_no_table(tmp_path, text, expected):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read_items(tmp_path / "t.csv")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_cell_fails_its_row_alone(tmp_path):
    rows = "x,ten,\nx,,b.mp4\n,1,\nx,1,\nx,1,b.mp4:2\n"
    (tmp_path / "t.csv").write_text("prompt,seconds,redo\n" + rows)
    texts = [str(item.error) for item in read_items(tmp_path / "t.csv")]
    place = tmp_path / "t.csv"
    assert texts == [
        f"{place}:2: seconds must be a number, got 'ten'",
        f"{place}:3: redo must be VIDEO:EVENTS such as ball.mp4:2,3, got 'b.mp4'",
        f"{place}:4: prompt: the row has no prompt; write 'first | second'",
        "None",
        "None",
    ]


def test_paths_for_another_process(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ball, _, again = (item.absolute() for item in read_items("pictures.csv"))
    assert ball.take.scenario.image == str(tmp_path / "start.png")
    assert again.take.scenario.redo.video == str(tmp_path / "a:b.mp4")
    Image.new("RGB", (16, 16)).save(tmp_path / "start.png")
    assert Path(ball.take.scenario.image).exists()
