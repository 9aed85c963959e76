"""Draw every case of pictures.json, compose.json and bundled.json with weft's command-line tool, and print how far it is from the golden.

    python check_cli.py WEFT [WORD ...]       WEFT: the program; WORD: only cases whose name has one of the words

The C tests check the same numbers one by one; this is the whole way round, through the front door, for a person. Exit status 1 when a case fails
or its latents are further off than 1e-3.
"""
import os
import subprocess
import sys
import tempfile

import common
import torch
from common import DATA, l2_rel, load, max_rel, read_json
from safetensors.torch import load_file


def flags_picture(c):
    f = ["-p", c["prompt"], "--seed", str(c["seed"]), "-s", str(c["steps"]), "-g", str(c["guidance"]), "--sampler", c["kind"],
         "--size", "%dx%d" % (c["width"], c["height"]), "--guidance-rescale", str(c["guidance_rescale"])]
    f += ["-n", c["negative"]] if c["negative"] is not None and c["guidance"] > 1 else []
    f += ["--karras"] if c["karras"] else []
    f += ["--eta", str(c["eta"])] if c["eta"] else []
    return f


def flags_compose(m, c, px):
    f = ["-n", m["negative"]] if c["guidance"] > 1 else []
    f += ["-p", m["prompt"], "--seed", str(m["seed"]), "-s", str(c["steps"]), "-g", str(c["guidance"]), "--sampler", "ddim",
         "--size", "%dx%d" % (m["shape"][3] * px, m["shape"][2] * px), "--text-plan", c["text"]]
    for a in c["adapters"]:
        f += ["-a", "%s:%g" % (os.path.join(DATA, m["adapters"][a["name"]]), a["weight"])]
        f += ["--share", str(a["share"])] if "share" in a else []
        f += ["--text-weight", str(a["text_weight"])] if "text_weight" in a else []
    if c["method"] != "base":
        f += ["--compose", c["method"]]
    for k, v in c["options"].items():
        k = {"nocfg_last": "last-without-guidance"}.get(k, k).replace("_", "-")
        f += ["--" + k] + ([] if v is True else [str(v)])
    return f


def cases():
    p = read_json("pictures.json")
    t = load("pictures.safetensors")
    for m in p["models"]:
        for c in m["cases"]:
            if c["scheduler"].get("rescale_betas_zero_snr") or (c["negative"] is None and "sdxl" in c["name"]):
                continue                            # the tool has no option for these two; the library has
            yield os.path.join(DATA, m["model"]), c["name"], flags_picture(c), t, c["name"], c
    books = [(read_json("compose.json")["models"], load("compose.safetensors"), 2)]
    if os.path.exists(os.path.join(common.GOLDEN, "bundled.json")):
        b = read_json("bundled.json")
        t = load(b["pictures"]["file"])
        for c in b["pictures"]["cases"]:
            yield os.path.join(DATA, b["model"]), "bundled/" + c["name"], flags_picture(c), t, c["name"], c
        if "compose" in b:
            books.append((b["compose"]["models"], load(b["compose"]["file"]), b["pixels"] // b["latent"]))
    for models, t, px in books:
        for m in models:
            for c in m["cases"]:
                n = m["prefix"] + c["name"]
                if n + "/latents" in t:
                    yield os.path.join(DATA, m["model"]), n, flags_compose(m, c, px), t, n, c


def main():
    weft, words = os.path.abspath(sys.argv[1]), sys.argv[2:]
    bad = 0
    for model, name, flags, t, key, c in cases():
        if words and not any(w in name for w in words):
            continue
        with tempfile.TemporaryDirectory() as d:
            cmd = [weft, "generate", model, "-o", d + "/p.png", "--save", d + "/s.safetensors", "-q"] + flags
            r = subprocess.run(cmd, capture_output=True, text=True)
            if r.returncode != 0:
                bad += 1
                print("%-32s FAILED %s" % (name, (r.stderr or r.stdout).strip().split("\n")[-1]))
                continue
            s = load_file(d + "/s.safetensors")
            x = t[key + "/latents"]
            line = "%-32s latents max %.1e l2 %.1e  (floor %s)" % (name, max_rel(s["latents"], x), l2_rel(s["latents"], x), c.get("f64_rel"))
            if max_rel(s["latents"], x) > 1e-3:
                bad += 1
                line += "  TOO FAR"
            if key + "/preds" in t:
                line += "  worst step %.1e" % max(max_rel(s["prediction_%03d" % i], p) for i, p in enumerate(t[key + "/preds"]))
            if key + "/u8" in t:
                import numpy
                from PIL import Image
                a = torch.from_numpy(numpy.array(Image.open(d + "/p.png").convert("RGB")).astype("int16"))
                off = (a - t[key + "/u8"].short()).abs()
                line += "  pixels off by more than 1: %.2f%%" % (100.0 * (off > 1).float().mean())
            print(line, flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
