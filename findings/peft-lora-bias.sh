#!/usr/bin/env bash
# peft 0.21.2: an adapter with lora_bias=True, saved and loaded unchanged, is reported to have a
# tensor of "invalid shape" from DeepSpeed or FSDP shards that were not gathered: the bias of
# lora_B, which has one axis as every bias. The weights are loaded, and equal what was saved.
set -euo pipefail
cd "$(mktemp -d)"; python3 -m venv v
v/bin/pip -q install peft==0.21.2 torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy
v/bin/python - <<'P'
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model


def base():
    return torch.nn.Sequential(torch.nn.Linear(8, 8))


def saved_and_loaded(**settings):
    made = get_peft_model(base(), LoraConfig(r=2, target_modules=["0"], **settings))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made.save_pretrained("adapter")
        back = PeftModel.from_pretrained(base(), "adapter")
    ours, theirs = made.state_dict(), back.state_dict()
    lora = [name for name in ours if "lora_" in name]
    assert lora and all(torch.equal(ours[name], theirs[name]) for name in lora)
    return [str(one.message) for one in said if "invalid shape" in str(one.message)]


assert saved_and_loaded() == []
(said,) = saved_and_loaded(lora_bias=True)
print(said)
assert "lora_B.bias:(8,)" in said and "DeepSpeed" in said
P
