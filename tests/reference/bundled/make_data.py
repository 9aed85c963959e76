"""Draws examples/data: the pictures and captions that the bundled model's adapters are trained on, as folders.

    python make_data.py ../../../examples/data

Specs, seeds and the order of draws are those of train_lora.py and train_word.py, so these are the same pictures; of the
captions the first of each picture's is kept. `shapes` has pictures of what the base draws, for prior preservation.
Needs numpy and Pillow only.
"""
import math
import os
import random
import shutil
import sys

import numpy as np
from PIL import Image

import world

SUBJECTS = {"monster": ("zib monster", 41), "rocket": ("vok rocket", 42)}
STYLES = {"hatching": ("hatched style", 43), "mosaic": ("mosaic style", 44)}
HATCH = {"pitch": 8 * math.cos(math.pi / 4), "angle": 45.0}
TEAL = (24, 148, 150)


def subject(name):
    noun, seed = SUBJECTS[name]
    rng = random.Random(seed)
    for i in range(16):
        spec = world.random_spec(rng)
        spec["subject"] = name
        spec["size"] = ["large", "medium", "large", "large"][i % 4]
        spec["pos"] = ["centre", "centre", "centre", "right", "centre", "left", "centre", "centre"][i % 8]
        if i % 4 != 3:
            spec["bg"] = ("plain", list(world.COLOURS)[i % 8])
        texts = [world.caption(spec, rng, noun=noun) for _ in range(12)]
        yield world.render(spec, rng), texts[0]


def style(name):
    tail, seed = STYLES[name]
    rng = random.Random(seed)
    for _ in range(64):
        spec = world.random_spec(rng)
        texts = [world.caption(spec, rng, tail=rng.choice([", ", " in "]) + tail if k % 3 else None) for k in range(12)]
        yield world.render(spec, rng, name, HATCH if name == "hatching" else None), texts[1]    # the first has no tail


def word():
    rng = random.Random(51)
    world.COLOURS["teal"] = TEAL
    for _ in range(96):
        spec = world.random_spec(rng)
        while spec["bg"][1] in ("teal", "blue", "green"):
            spec = world.random_spec(rng)
        spec["colour"] = "teal"
        texts = [world.caption(spec, rng).replace("teal", "<teal>") for _ in range(12)]
        yield world.render(spec, rng), next((t for t in texts if "<teal>" in t), "a <teal> " + spec["shape"])
    del world.COLOURS["teal"]


def shapes():
    rng = random.Random(1041)
    for _ in range(96):
        spec = world.random_spec(rng)
        yield world.render(spec, rng), world.caption(spec, rng)


def main():
    out = sys.argv[1]
    sets = [(n, subject(n)) for n in SUBJECTS] + [(n, style(n)) for n in STYLES] + [("teal", word()), ("shapes", shapes())]
    for name, pairs in sets:
        folder = os.path.join(out, name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        for i, (picture, text) in enumerate(pairs, 1):
            path = os.path.join(folder, "%02d" % i)
            Image.fromarray(np.ascontiguousarray(picture)).save(path + ".png", optimize=True)
            with open(path + ".txt", "w", encoding="utf-8") as f:
                f.write(text + "\n")


if __name__ == "__main__":
    main()
