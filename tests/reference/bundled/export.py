"""Writes the trained model as an SD1.x folder in f16, and the adapters beside it.

    python export.py WORKDIR OUT [SNAPSHOT]

SNAPSHOT is WORKDIR/snap unless given; the VAE is WORKDIR/vae.
"""
import json
import os
import shutil
import sys

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTokenizer

import train_base


def main():
    work, out = sys.argv[1:3]
    snap = sys.argv[3] if len(sys.argv) > 3 else os.path.join(work, "snap")
    pipe = StableDiffusionPipeline.from_pretrained(snap, torch_dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(os.path.join(work, "vae"))
    tok = CLIPTokenizer.from_pretrained(os.path.join(work, "tokenizer"))
    pipe = train_base.pipeline(work, pipe.text_encoder, pipe.unet, tok, vae).to(torch.float16)
    for part in ("unet", "vae", "text_encoder", "scheduler", "tokenizer"):
        shutil.rmtree(os.path.join(out, part), ignore_errors=True)
    pipe.save_pretrained(out, safe_serialization=True)
    # the tokenizer as SD1.x ships it: vocab.json and merges.txt
    shutil.rmtree(os.path.join(out, "tokenizer"))
    shutil.copytree(os.path.join(work, "tokenizer"), os.path.join(out, "tokenizer"))
    # the text encoder's names as SD1.x has them, under text_model.
    path = os.path.join(out, "text_encoder", "model.safetensors")
    with safe_open(path, "pt") as f:
        sd = {k: f.get_tensor(k) for k in f.keys()}
    if not any(k.startswith("text_model.") for k in sd):
        save_file({"text_model." + k: v for k, v in sd.items()}, path, metadata={"format": "pt"})
    for part in ("unet", "vae", "text_encoder"):
        p = os.path.join(out, part, "config.json")
        c = json.load(open(p))
        c.pop("_name_or_path", None)
        json.dump(c, open(p, "w"), indent=2, sort_keys=True)
        open(p, "a").write("\n")
    p = os.path.join(out, "model_index.json")
    c = json.load(open(p))
    for k in ("_name_or_path", "image_encoder"):
        if k == "_name_or_path" or c.get(k) == [None, None]:
            c.pop(k, None)
    json.dump(c, open(p, "w"), indent=2)
    open(p, "a").write("\n")
    ad = os.path.join(work, "adapters")
    if os.path.isdir(ad) and os.path.abspath(out) != os.path.abspath(os.path.join(work, "model")):
        shutil.copytree(ad, os.path.join(out, "adapters"), dirs_exist_ok=True)
    for d, _, fs in os.walk(out):
        for f in fs:
            os.chmod(os.path.join(d, f), 0o644)
    total = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(out) for f in fs)
    print("bytes", total)


if __name__ == "__main__":
    main()
