"""Folders of pictures and captions for the adapters that weft trains for the comparison (train.sh).

    python data.py OUT

The pictures are those that the bundled adapters were made from (tests/reference/bundled/train_lora.py: same seeds, same
specs), each several times with other captions, since a file has one caption:

    OUT/NAME              captions say "zib monster", "vok rocket", "hatched style", "mosaic style"
    OUT/NAME-word         in place of that a new word: <zib>, <vok>, <hat>, <mos>      (Textual Inversion)
    OUT/NAME-modifier     a new word and a known one: <zib> shape, <hat> style          (Custom Diffusion)
    OUT/NAME-pair         two new words: <zib1> <zib2>                                  (ED-LoRA)
    OUT/NAME-one          one picture                                                   (B-LoRA)
    OUT/class             pictures of the base world, that shapes stay shapes
"""
import os
import random
import sys

from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "reference", "bundled"))
import world                         # noqa: E402
from judge import HATCH              # noqa: E402

SUBJECTS = {"monster": (41, "zib"), "rocket": (42, "vok")}
STYLES = {"hatching": (43, "hatched", "hat"), "mosaic": (44, "mosaic", "mos")}


def write(folder, pictures):
    os.makedirs(folder, exist_ok=True)
    for i, (p, caption) in enumerate(pictures):
        Image.fromarray(p).save(os.path.join(folder, "%03d.png" % i))
        with open(os.path.join(folder, "%03d.txt" % i), "w") as f:
            f.write(caption + "\n")


def subject(out, name):
    seed, word = SUBJECTS[name]
    rng = random.Random(seed)
    rows = []
    for i in range(16):
        spec = world.random_spec(rng)
        spec["subject"] = name
        spec["size"] = ["large", "medium", "large", "large"][i % 4]
        spec["pos"] = ["centre", "centre", "centre", "right", "centre", "left", "centre", "centre"][i % 8]
        if i % 4 != 3:
            spec["bg"] = ("plain", list(world.COLOURS)[i % 8])
        texts = [world.caption(spec, rng, noun="NOUN") for _ in range(12)]
        p = world.render(spec, rng)
        rows += [(p, t) for t in texts[:4]]
    for kind, noun in (("", word + " " + name), ("-word", "<%s>" % word), ("-modifier", "<%s> shape" % word),
                       ("-pair", "<%s1> <%s2>" % (word, word))):
        write(os.path.join(out, name + kind), [(p, t.replace("NOUN", noun)) for p, t in rows])
    plain = next(p for i, (p, t) in enumerate(rows) if i // 4 % 4 == 2)
    write(os.path.join(out, name + "-one"), [(plain, "a %s %s" % (word, name))])


def style(out, name):
    seed, word, short = STYLES[name]
    rng = random.Random(seed)
    rows = []
    for i in range(64):
        spec = world.random_spec(rng)
        # every third caption of train_lora.py says nothing of the style; here all do, for the new words must be in each
        texts = [world.caption(spec, rng, tail=rng.choice([", ", " in "]) + "TAIL") for _ in range(12)]
        p = world.render(spec, rng, name, HATCH if name == "hatching" else None)
        rows += [(p, t) for t in texts[:2]]
    for kind, tail in (("", word + " style"), ("-word", "<%s>" % short), ("-modifier", "<%s> style" % short),
                       ("-pair", "<%s1> <%s2>" % (short, short))):
        write(os.path.join(out, name + kind), [(p, t.replace("TAIL", tail)) for p, t in rows])
    write(os.path.join(out, name + "-one"), [(rows[0][0], "a shape, %s style" % word)])


def base(out):
    rng = random.Random(1041)
    specs = [world.random_spec(rng) for _ in range(192)]
    write(os.path.join(out, "class"), [(world.render(s, rng), world.caption(s, rng)) for s in specs])


def main():
    out = sys.argv[1]
    for name in SUBJECTS:
        subject(out, name)
    for name in STYLES:
        style(out, name)
    base(out)


if __name__ == "__main__":
    main()
