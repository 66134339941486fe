"""Makes docs/review.png: three takes of the demo model on the review page, one of them approved.

``python docs/make_review_picture.py 25`` makes them with 25 denoising steps.
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import chromium  # noqa: E402
from PIL import Image  # noqa: E402

COMMANDS = """
scenario new template.yaml --template
generate template.yaml --set pace=1 --set place='a sandy beach' --takes 3 --out takes/take.mp4
review approve takes/take-seed1.mp4 --by 'Ada Example' --comment 'keep this one'
review takes
"""


def main(steps: str = "25") -> None:
    with tempfile.TemporaryDirectory() as name, chromium.running() as browser:
        folder = Path(name)
        (folder / "takes").mkdir()
        for line in COMMANDS.strip().splitlines():
            extra = ["--steps", steps] if line.startswith("generate") else []
            command = [sys.executable, "-c", "from syncos_jax.cli import main; main()"]
            subprocess.run([*command, *shlex.split(line), *extra], cwd=folder, check=True)
        page = browser.new_page(viewport={"width": 1280, "height": 1160})
        page.goto((folder / "takes" / "review.html").as_uri())
        page.wait_for_function(
            "[...document.querySelectorAll('video')].every((v) => v.readyState >= 2)"
        )
        page.screenshot(path=folder / "page.png")
        with Image.open(folder / "page.png") as image:
            small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            small.save(ROOT / "docs" / "review.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
