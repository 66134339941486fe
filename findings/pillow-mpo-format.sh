#!/usr/bin/env bash
# Pillow calls a burst of JPEGs "MPO" (`.format`, `Image.registered_extensions()`, `Image.MIME`), but
# `Image.open(file, formats=["MPO"])` raises KeyError('MPO'): neither the picture nor
# UnidentifiedImageError. The plugin of JPEG opens it, so the name to allow is "JPEG".
# Pillow 12.3.0 and 13.0.0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==12.3.0
"$folder/venv/bin/python" - <<'P'
import io
from PIL import Image

file = io.BytesIO()
more = [Image.new("RGB", (8, 8), "red")]
Image.new("RGB", (8, 8)).save(file, "MPO", save_all=True, append_images=more)
assert Image.open(file).format == "MPO"
assert Image.open(file, formats=["JPEG"]).format == "MPO"
try:
    Image.open(file, formats=["MPO"])
except KeyError as error:
    print("KeyError:", error)
else:
    raise SystemExit("opens by its own name now")
P
