"""Draw from pictures and masks with weft's command-line tool and with diffusers' pipelines, from the same seed, and print how far apart they are.

    python check_img2img.py WEFT

Needs diffusers and Pillow. The tool draws its random numbers in diffusers' order; this shows it, for UNets that read a mask and such
that do not, with solvers that draw noise of their own. Exit status 1 when latents are further apart than 1e-4.
"""
import itertools
import os
import subprocess
import sys
import tempfile

import numpy
import torch
from diffusers import (DDIMScheduler, DDPMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler, StableDiffusionImg2ImgPipeline,
                       StableDiffusionInpaintPipeline)
from PIL import Image
from safetensors.torch import load_file

from common import DATA, max_rel

torch.set_num_threads(1)
SOLVERS = {"euler_a": EulerAncestralDiscreteScheduler, "ddim": DDIMScheduler, "ddpm": DDPMScheduler, "heun": HeunDiscreteScheduler}
CASES = [("tiny-sd1", 32, 32, False), ("tiny-sd1", 24, 40, False), ("tiny-sd1", 24, 40, True), ("tiny-inpaint", 32, 32, True)]


def theirs(model, solver, strength, image, mask):
    kind = StableDiffusionImg2ImgPipeline if mask is None else StableDiffusionInpaintPipeline
    pipe = kind.from_pretrained(os.path.join(DATA, "models", model), safety_checker=None).to(torch.float32)
    pipe.scheduler = SOLVERS[solver].from_config(dict(pipe.scheduler.config, clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    more = {} if mask is None else {"mask_image": mask, "height": image.height, "width": image.width}
    return pipe(prompt="a cat", negative_prompt="a dog", image=image, strength=strength, num_inference_steps=6, guidance_scale=3.0,
                generator=torch.Generator().manual_seed(5), output_type="latent", **more).images


def ours(weft, folder, model, solver, strength, mask):
    out = os.path.join(folder, "out")
    command = [weft, "generate", os.path.join(DATA, "models", model), "-p", "a cat", "-n", "a dog", "-i", os.path.join(folder, "image.png"),
               "--strength", str(strength), "-s", "6", "-g", "3", "--seed", "5", "--sampler", solver, "-o", out + ".png", "--save",
               out + ".safetensors", "-q"]
    subprocess.run(command + (["--mask", os.path.join(folder, "mask.png")] if mask is not None else []), check=True)
    return load_file(out + ".safetensors")["latents"]


def main():
    weft, bad, random = os.path.abspath(sys.argv[1]), 0, numpy.random.RandomState(0)
    for (model, height, width, masked), strength, solver in itertools.product(CASES, [1.0, 0.7], SOLVERS):
        with tempfile.TemporaryDirectory() as folder:
            image = Image.fromarray(random.randint(0, 255, (height, width, 3), dtype=numpy.uint8))
            image.save(os.path.join(folder, "image.png"))
            mask = None
            if masked:
                shape = numpy.zeros((height, width), numpy.uint8)
                shape[5:height // 2, 6:width - 7] = 255
                mask = Image.fromarray(shape)
                mask.save(os.path.join(folder, "mask.png"))
            far = max_rel(ours(weft, folder, model, solver, strength, mask), theirs(model, solver, strength, image, mask))
            bad += far > 1e-4
            print("%-12s %dx%d %-8s strength %.1f %-8s %.1e%s" % (model, width, height, "mask" if masked else "img2img", strength, solver, far,
                                                                  "  TOO FAR" if far > 1e-4 else ""), flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
