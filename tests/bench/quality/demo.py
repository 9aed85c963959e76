"""Are the adapters of `make train-demo` as good as the bundled ones, which PEFT made?

    python tests/bench/quality/demo.py BUILD OUT [NAME...]

Draws with both, the same prompts and seeds, by BUILD/examples/weft, and lets the judge (judge.py) say how likely the subject,
or the style, is what was asked for. A difference is one where it is larger than twice the standard error that the seeds
explain; else it is called none. OUT holds NAME.safetensors."""
import os
import subprocess
import sys
import tempfile

import numpy as np

import judge as judges

SEEDS = 8
GROUNDS = ["blue", "white", "red", "yellow"]
NAMES = {"monster": ("subject", "a large zib monster on a %s background"),
         "rocket": ("subject", "a large vok rocket on a %s background"),
         "hatching": ("style", "a large green circle on a %s background, hatched style"),
         "mosaic": ("style", "a large green circle on a %s background, mosaic style")}


def draw(weft, adapter, prompt, folder):
    from PIL import Image
    path = os.path.join(folder, "it.png")
    subprocess.run([weft, "generate", "examples/model", "-q", "--no-parameters", "-p", prompt, "-a", adapter, "--batch", str(SEEDS),
                    "--seed", "100", "-g", "5", "-o", path], check=True)
    return np.stack([np.asarray(Image.open(path.replace(".png", "-%d.png" % (i + 1))).convert("RGB")) for i in range(SEEDS)])


def main():
    build, out, names = sys.argv[1], sys.argv[2], sys.argv[3:] or list(NAMES)
    weft, judge, worse = os.path.join(build, "examples", "weft"), judges.Judge(), 0
    print("%-9s %8s %10s   difference" % ("", "bundled", "made here"))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name not in NAMES:
                continue
            head, prompt = NAMES[name]
            which = (judges.SUBJECTS if head == "subject" else judges.STYLES).index(name)
            bundled = "examples/model/adapters/" + (name if name == "rocket" else name + ".safetensors")
            scores = [np.stack([judge(draw(weft, a, prompt % g, folder))[head][:, which] for g in GROUNDS])
                      for a in (bundled, os.path.join(out, name + ".safetensors"))]
            d = (scores[1] - scores[0]).mean(0)                 # of each seed, over the prompts
            spread = max(2 * d.std(ddof=1) / SEEDS ** 0.5, 0.01)   # what the table would round away is no difference
            said = "none" if abs(d.mean()) <= spread else "%+.2f" % d.mean()
            worse += d.mean() < -spread
            print("%-9s %8.2f %10.2f   %s (spread %.2f)" % (name, scores[0].mean(), scores[1].mean(), said, spread))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
