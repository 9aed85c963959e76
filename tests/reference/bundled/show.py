"""Contact sheets of the bundled model, to look at.

    python show.py MODEL OUT base              ten base prompts in columns, four seeds in rows
    python show.py MODEL OUT adapters          each adapter alone, with and without
    python show.py MODEL OUT compose           subject, style, and both merged
"""
import os
import sys

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

import train_base
import world

STEPS, GUIDANCE = 20, 5.0


def load(folder):
    p = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None,
                                                requires_safety_checker=False)
    p.set_progress_bar_config(disable=True)
    return p


def load_adapters(pipe, folder, names=("monster", "rocket", "hatching", "mosaic")):
    for n in names:
        if n == "rocket":                        # raw PEFT: its keys carry base_model.model., diffusers' carry unet.
            from safetensors.torch import load_file
            import json
            sd = load_file(os.path.join(folder, n, "adapter_model.safetensors"))
            conf = json.load(open(os.path.join(folder, n, "adapter_config.json")))
            sd = {k.replace("base_model.model.", "unet."): v for k, v in sd.items()}
            alphas = {k.replace(".lora_A.weight", ".alpha"): torch.tensor(float(conf["lora_alpha"]))
                      for k in sd if k.endswith("lora_A.weight")}
            if conf["lora_alpha"] != conf["r"]:
                raise SystemExit("write network alphas for " + n)
            del alphas
            pipe.load_lora_weights(sd, adapter_name=n)
        else:
            pipe.load_lora_weights(folder, weight_name=n + ".safetensors", adapter_name=n)


def draw(pipe, prompt, seed):
    g = torch.Generator().manual_seed(seed)
    im = pipe(prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=g, output_type="np").images[0]
    return (im * 255).round().astype(np.uint8)


def main():
    model, out, what = sys.argv[1:4]
    pipe = load(model)
    pics = []
    if what == "base":
        train_base.sample(pipe, train_base.PROMPTS, 4, out, STEPS, GUIDANCE, seed=int(sys.argv[4]) if len(sys.argv) > 4 else 1)
        return
    load_adapters(pipe, os.path.join(model, "adapters"))
    if what == "adapters":
        rows = [
            ("monster", ["a zib monster on a red background", "a zib monster on a yellow background",
                         "a zib monster in a meadow", "a small zib monster at the left on a white background",
                         "a large zib monster on a purple background", "a red circle on a blue background"]),
            ("rocket", ["a vok rocket on a blue background", "a vok rocket on a black background",
                        "a vok rocket at night", "a small vok rocket at the right on a green background",
                        "a large vok rocket on a yellow background", "a yellow star on a purple background"]),
            ("hatching", ["a red circle on a blue background, hatched style", "a green star on a yellow background, hatched style",
                          "a blue heart on a white background, hatched style", "a yellow cross on a purple background, hatched style",
                          "a large black ring on an orange background, hatched style", "an orange square in a meadow, hatched style"]),
            ("mosaic", ["a red circle on a blue background, mosaic style", "a green star on a yellow background, mosaic style",
                        "a blue heart on a white background, mosaic style", "a yellow cross on a purple background, mosaic style",
                        "a large black ring on an orange background, mosaic style", "an orange square in a meadow, mosaic style"]),
        ]
        for name, prompts in rows:
            for on in (True, False):
                (pipe.enable_lora if on else pipe.disable_lora)()
                if on:
                    pipe.set_adapters([name], [1.0])
                for p in prompts:
                    pics += [draw(pipe, p, 7)] + ([draw(pipe, p, 8)] if on else [draw(pipe, p, 8)])
        world.sheet(pics, 12).save(out)
        return
    w = float(sys.argv[4]) if len(sys.argv) > 4 else 0.9
    for subject, noun in (("monster", "zib monster"), ("rocket", "vok rocket")):
        for style in ("hatching", "mosaic"):
            tail = {"hatching": "hatched style", "mosaic": "mosaic style"}[style]
            for seed in (7, 8):
                for bg in ("a red", "a yellow", "a blue"):
                    prompt = "a large %s on %s background, %s" % (noun, bg, tail)
                    for names in ([subject], [style], [subject, style]):
                        pipe.set_adapters(names, [w] * len(names) if len(names) > 1 else [1.0])
                        pics.append(draw(pipe, prompt, seed))
    world.sheet(pics, 9).save(out)


if __name__ == "__main__":
    main()
