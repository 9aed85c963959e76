"""Goldens of blend and of region prompts: predictions at calls 0 and 3 of 6, on tiny-sd1 and tiny-sdxl.

    python make_regions.py         writes golden/regions.json, golden/regions.safetensors
"""
import os

import compose
import lora
import torch
from common import ADAPTERS, MODELS, in_f64, max_rel, noise, pipeline, rel_path, store, versions, write_json
from compose import Adapter
from make_weights import masks
from regions import Region, predict

CALLS, POINTS, GUIDANCE = 6, [(0, 981.0), (3, 481.0)], 3.0
PROMPTS = {"whole": "a photo of two animals on the mat", "cat": "a red cat", "dog": "a blue dog with a hat", "negative": "", "blurry": "blurry cat"}
A = lambda name, weight=1.0, **kw: dict({"name": name, "weight": weight}, **kw)
R = lambda text, **kw: dict({"text": text}, **kw)


def cases(x, y, z):
    left, disc = A(x, 0.9, mask="left"), A(y, 0.8, mask="disc")
    yield {"name": "blend", "method": "blend", "adapters": [left, disc]}
    yield {"name": "blend_start", "method": "blend", "start": 2, "adapters": [left, A(z, 0.7), A(y, mask="right")]}
    yield {"name": "blend_texts", "method": "blend", "adapters": [left, disc], "branches": ["whole", "cat", "dog"]}
    yield {"name": "alone", "adapters": [], "regions": [R("cat", mask="disc")]}
    yield {"name": "alone_unguided", "adapters": [], "guidance": 1.0, "regions": [R("cat", mask="left"), R("dog", mask="odd")]}
    yield {"name": "adapters", "adapters": [left, disc], "regions": [R("cat", adapter=0), R("dog", adapter=1, negative="blurry")]}
    yield {"name": "beside", "adapters": [A(z, 0.7), dict(left, text=0.5)], "regions": [R("dog", mask="disc"), R("cat", adapter=1)]}
    yield {"name": "composite", "method": "composite", "adapters": [left, A(y, 0.6)], "regions": [R("cat", adapter=0), R("dog", mask="odd")]}
    yield {"name": "blend_regions", "method": "blend", "adapters": [left, disc], "regions": [R("cat", adapter=0), R("dog", adapter=1)]}
    yield {"name": "isolated", "adapters": [left, A(y, 0.8, mask="right")],
           "regions": [R("cat", adapter=0, isolated=True), R("dog", adapter=1, isolated=True), R("whole", mask="odd")]}


class Case:
    def __init__(self, pipe, entries, case):
        self.pipe, self.case, self.all = pipe, case, masks()
        self.ads = [Adapter(a["name"], entries[a["name"]], a["weight"], mask=dict({"values": self.all[a["mask"]]}, text=a.get("text", 1.0)) if "mask" in a else None)
                    for a in case["adapters"]]

    def encoded(self, prompt, adapter=None):
        """By the adapter alone, or by all."""
        return compose.encode(self.pipe, PROMPTS[prompt], [(a, a.te_weight) for i, a in enumerate(self.ads) if adapter in (None, i)])

    def run(self, x):
        c = self.case
        pair = lambda p: (self.encoded("negative"), self.encoded(p))
        self.text = [pair(b) for b in c["branches"]] if "branches" in c else pair("whole")
        self.regions = []
        for r in c.get("regions", ()):
            of = lambda p: self.encoded(p, r.get("adapter"))[0]
            self.regions.append(Region(of(r["text"]), of(r["negative"]) if "negative" in r else None, self.all.get(r.get("mask")), r.get("adapter"),
                                       r.get("isolated", False)))
        method = ("blend", c.get("start", 0)) if c.get("method") == "blend" else c.get("method", "merge")
        return torch.cat([predict(self.pipe, self.ads, method, x, t, n, CALLS, self.text, self.regions, c.get("guidance", GUIDANCE)) for n, t in POINTS])


def keep(t, prefix, v):
    """The name of a context, stored once; None stays None."""
    if v is None:
        return None
    same = [n for n, o in t.items() if n.startswith(prefix + "ctx") and o.shape == v.shape and torch.equal(o, v)]
    n = same[0] if same else "%sctx%d" % (prefix, len(t))
    t[n] = v
    return n


def model(name, adapters, seed, only=None):
    folder = os.path.join(MODELS, name)
    pipe, prefix, x = pipeline(folder), name + "/", noise(seed, 1, 4, 12, 16)
    paths = {n: os.path.join(ADAPTERS, p) for n, p in adapters.items()}
    entries = {n: lora.read(p, pipe) for n, p in paths.items()}
    t, done = {prefix + "latent": x}, []
    for case in cases(*adapters):
        if only and case["name"] not in only:
            continue
        c = Case(pipe, entries, case)
        got = c.run(x)
        exact = in_f64(lambda: c.run(x), *[m for m in (pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if m is not None])
        print("%-28s floor %.1e" % (prefix + case["name"], max_rel(got, exact)), flush=True)
        c.run(x)
        at = prefix + case["name"] + "/"
        t[at + "preds"] = got
        pairs = c.text if "branches" in case else [c.text]
        case["contexts"] = [[keep(t, prefix, v) for side in p for v in side] for p in pairs]
        for r, of in zip(case.get("regions", ()), c.regions):
            r["contexts"] = [keep(t, prefix, of.text)] + ([] if of.negative is None else [keep(t, prefix, of.negative)])
        done.append(case)
    return t, {"model": "models/" + name, "prefix": prefix, "adapters": {n: rel_path(p) for n, p in paths.items()}, "cases": done}


def main():
    t1, sd1 = model("tiny-sd1", {"content": "content.safetensors", "style": "style.safetensors", "third": "third"}, 81)
    t2, xl = model("tiny-sdxl", {"sdxl_kohya_ldm": "sdxl_kohya_ldm.safetensors", "sdxl_new": "sdxl_new.safetensors", "sdxl_kohya": "sdxl_kohya.safetensors"}, 82,
                   ("isolated",))
    tensors = {"mask/" + n: m for n, m in masks().items()}
    tensors.update(t1)
    tensors.update(t2)
    store("regions.safetensors", tensors)
    write_json("regions.json", {"versions": versions(), "calls": CALLS, "points": [list(p) for p in POINTS], "guidance": GUIDANCE, "prompts": PROMPTS,
                                "models": [sd1, xl]})


if __name__ == "__main__":
    main()
