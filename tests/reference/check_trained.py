"""A LoRA that weft trained, in diffusers: the same picture as weft's.

    python check_trained.py WEFT      WEFT: the program

A short training on examples/data/monster, of the UNet with convolutions and feed-forward layers and of the text encoder,
is saved in diffusers' names, in kohya's, and as PEFT's folders; diffusers (PEFT for the folders) opens each, and its latents
after DDIM's 8 steps are compared with those that weft draws. Exit status 1 where one is further off than 1e-3, or where the
adapter changes nothing.
"""
import os
import subprocess
import sys
import tempfile

import torch
from common import REPO, max_rel, pipeline
from diffusers import DDIMScheduler
from safetensors.torch import load_file

MODEL = os.path.join(REPO, "examples", "model")
PROMPT = "a large red zib monster"


def draw(pipe):
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator("cpu").manual_seed(5))
    return pipe(PROMPT, latents=noise, num_inference_steps=8, guidance_scale=4.0, negative_prompt="",
                output_type="latent").images


def in_diffusers(path, dialect):
    pipe = pipeline(MODEL, torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    base = draw(pipe)
    if dialect == "peft":
        from peft import PeftModel
        pipe.unet = PeftModel.from_pretrained(pipe.unet, path + "/unet").merge_and_unload()
        pipe.text_encoder = PeftModel.from_pretrained(pipe.text_encoder, path + "/text_encoder").merge_and_unload()
    else:
        pipe.load_lora_weights(path)
    return draw(pipe), base


def run(weft, *args):
    r = subprocess.run([weft, *args], capture_output=True, text=True)
    if r.returncode != 0:
        sys.exit("%s: %s" % (" ".join(args), (r.stderr or r.stdout).strip()))


def main():
    weft, bad = os.path.abspath(sys.argv[1]), 0
    for dialect in ("diffusers", "kohya", "peft"):
        with tempfile.TemporaryDirectory() as d:
            out = d + "/zib" + ("" if dialect == "peft" else ".safetensors")
            run(weft, "train", "lora", "-m", MODEL, "-d", os.path.join(REPO, "examples", "data", "monster"), "-o", out, "--steps", "25",
                "-b", "2", "--rate", "2e-3", "--rank", "4", "--alpha", "2", "--text", "--feed", "--conv", "--dialect", dialect,
                "--threads", "1", "-q")
            adapters = ["-a", out] if dialect != "peft" else ["-a", out + "/unet", "-a", out + "/text_encoder"]
            run(weft, "generate", MODEL, *adapters, "-p", PROMPT, "-n", "", "-g", "4", "-s", "8", "--seed", "5", "--sampler", "ddim",
                "-o", d + "/p.png", "--save", d + "/s.safetensors", "--threads", "1", "-q")
            ours = load_file(d + "/s.safetensors")["latents"]
            theirs, base = in_diffusers(out, dialect)
            off, moved = max_rel(ours, theirs), max_rel(base, theirs)
            fine = off < 1e-3 and moved > 0.05
            bad += not fine
            print("%-10s off by %.1e; the adapter moves them by %.2f%s" % (dialect, off, moved, "" if fine else "  TOO FAR"))
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
