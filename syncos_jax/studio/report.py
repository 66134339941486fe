"""Metrics, warnings and stills of a video's takes, for the page."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from syncos_jax.studio.review.page import Gallery
from syncos_jax.studio.review.views import Shown, measures, sheet

_KEPT = 20


class Reports:
    """Measures takes on request; keeps the results of the last videos.

    Args:
        root: folder that holds a folder per video.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._galleries: dict[str, Gallery] = {}
        self._lock = threading.Lock()

    def report(self, id: str) -> dict[str, Any]:
        """Report of a video's completed takes.

        Raises:
            InputError: there is no completed take.
        """
        with self._lock:
            gallery = self._galleries.pop(id, None) or Gallery(self._root / id)
            self._galleries[id] = gallery
            if len(self._galleries) > _KEPT:
                self._galleries.pop(next(iter(self._galleries)))
            shown = sorted(gallery.shown()[0], key=_number)
        by_number = {_number(item): item for item in shown}
        numbers = [{"take": number} for number in by_number]
        return {
            "takes": [
                {
                    **number,
                    "warnings": [
                        {
                            "kind": warning.kind,
                            "text": warning.text,
                            "time": None
                            if warning.frame is None
                            else warning.frame / item.take.fps,
                        }
                        for warning in item.measured.warnings
                    ],
                }
                for number, item in zip(numbers, shown, strict=True)
            ],
            "metrics": [
                {"label": row["label"], "help": row["help"], "values": row["cells"]}
                for row in measures(shown)
            ],
            "events": [
                {
                    "prompt": row["prompt"],
                    "takes": [
                        {
                            **cell["take"],
                            "reading": cell["reading"],
                            "stills": [
                                {
                                    "time": _time(still["frame"], by_number[cell["take"]["take"]]),
                                    "src": still["src"],
                                }
                                for still in cell["stills"]
                            ],
                        }
                        for cell in row["cells"]
                    ],
                }
                for row in sheet(shown, numbers)
            ],
        }

    def drop(self, id: str) -> None:
        """Forget a deleted video."""
        with self._lock:
            self._galleries.pop(id, None)


def _time(frame: int | None, item: Shown) -> float | None:
    return None if frame is None else frame / item.take.fps


def _number(item: Shown) -> int:
    found = re.search(r"\d+", item.take.path.stem)
    return int(found[0]) if found else 0
