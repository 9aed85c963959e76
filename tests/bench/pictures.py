"""What bf16 does to finished pictures: the bundled model drawn in both arithmetics, pixel by pixel.

    make all && python tests/bench/pictures.py [BUILD]

Eight seeds of each of six ways to draw, 20 steps, with weft generate. Printed for each way, over its pictures and in steps
of 255: the mean difference of a value, the mean over the pictures of their largest, the largest of all, and the share of
values that differ by more than 16. For scale, the last line is how far two seeds of one prompt are apart. Needs numpy and
Pillow.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "examples", "model")
A = os.path.join(MODEL, "adapters")
MONSTER, HATCHING, MOSAIC = (os.path.join(A, n + ".safetensors") for n in ("monster", "hatching", "mosaic"))
TWO = ["-p", "a large zib monster on a red background, hatched style", "-a", MONSTER + ":0.9", "-a", HATCHING + ":0.9"]
WAYS = [("base model", ["-p", "a large red star on a yellow background"]),
        ("one adapter", ["-p", "a large zib monster on a yellow background", "-a", MONSTER]),
        ("a style", ["-p", "a large red star on a yellow background, mosaic style", "-a", MOSAIC]),
        ("merge of two", TWO), ("K-LoRA of two", TWO + ["--compose", "klora"]),
        ("composite of two", TWO + ["--compose", "composite"])]
SEEDS = 8


def draw(weft, arithmetic, options):
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([weft, "generate", MODEL, "-q", "-g", "5", "--seed", "1", "--batch", str(SEEDS), "--arithmetic", arithmetic,
                        "-o", os.path.join(d, "x.png")] + (["--emulate"] if arithmetic == "bf16" else []) + options, check=True)
        return np.stack([np.asarray(Image.open(os.path.join(d, f)), dtype=np.int32) for f in sorted(os.listdir(d))])


def say(name, a, b):
    d = np.abs(a - b)
    print("%-18s %6.2f %8.0f %8d %8.2f %%" % (name, d.mean(), d.reshape(len(d), -1).max(1).mean(), d.max(), 100 * (d > 16).mean()), flush=True)


def main():
    weft = os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "examples", "weft")
    print("%-18s %6s %8s %8s %10s" % ("", "mean", "largest", "of all", "over 16"))
    for name, options in WAYS:
        f32, bf16 = draw(weft, "f32", options), draw(weft, "bf16", options)
        say(name, f32, bf16)
    say("(another seed)", f32, np.roll(f32, 1, 0))


if __name__ == "__main__":
    main()
