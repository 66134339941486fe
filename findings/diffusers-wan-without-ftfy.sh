#!/usr/bin/env bash
# diffusers 0.42.1 without ftfy, which it does not ask for: of Wan's pipelines, the one from text
# skips a step of cleaning without a word (the full-width commas of Wan's own negative prompt stay,
# so other tokens are encoded than with ftfy); the one from a picture imports and then raises
# NameError at its first prompt.
set -euo pipefail
cd "$(mktemp -d)"; python3 -m venv v
v/bin/pip -q install diffusers==0.42.1 torch==2.13.0 transformers==5.24.0
cat > clean.py <<'P'
from diffusers.pipelines.wan import pipeline_wan, pipeline_wan_i2v


def of(pipeline):
    try:
        return pipeline.prompt_clean("色调艳丽，过曝")
    except NameError as error:
        return f"NameError: {error}"


print(of(pipeline_wan), "|", of(pipeline_wan_i2v))
P
without=$(v/bin/python clean.py 2>/dev/null)
v/bin/pip -q install ftfy==6.3.1
with=$(v/bin/python clean.py 2>/dev/null)
echo "without: $without"; echo "with:    $with"
[ "$without" = "色调艳丽，过曝 | NameError: name 'ftfy' is not defined" ]
[ "$with" = "色调艳丽,过曝 | 色调艳丽,过曝" ]
