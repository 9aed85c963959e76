"""Goldens of StyleAligned: predictions of a call on batches of three, on tiny-sd1 and tiny-sdxl; and of texts that change on the way.

    python make_aligned.py         writes golden/aligned.json, golden/aligned.safetensors
"""
import math
import os

import compose
import lora
import torch
from aligned import predict
from common import ADAPTERS, MODELS, in_f64, max_rel, noise, pipeline, rel_path, store, versions, write_json
from compose import Adapter
from make_weights import masks
from regions import Region

CALL, TIMESTEP, GUIDANCE = 1, 741.0, 3.0
PROMPTS = ["a red cat in the style of ink", "a blue dog in the style of ink", "a hat in the style of ink"]
NEGATIVE, REGIONS = "", ["a green mat", "a yellow dog"]


def cases(x, y):
    one, two = {"name": x, "weight": 0.9}, {"name": y, "weight": 0.7}
    C = lambda name, options, adapters=(), **kw: dict({"name": name, "options": options, "adapters": list(adapters)}, **kw)
    yield C("published", {})
    yield C("unguided", {}, guidance=1.0)
    yield C("scores", {"shared_score_scale": 1.3, "shared_score_shift": math.log(2)})
    yield C("shift", {"shared_score_shift": -0.5, "adain_queries": False}, [one])
    yield C("values", {"adain_values": True, "adain_keys": False})
    yield C("no_attention", {"share_attention": False})
    yield C("no_group_norm", {"share_group_norm": False}, [one, two])
    yield C("full", {"full_attention_share": True}, [one])
    yield C("full_alone", {"full_attention_share": True, "share_group_norm": False})
    yield C("level_low", {"only_self_level": 0.3})
    yield C("level_high", {"only_self_level": 0.7})
    yield C("level_one", {"only_self_level": 1.0})
    yield C("composite", {}, [one, two], method="composite")
    yield C("regions", {"shared_score_scale": 0.8}, [dict(one, mask="left"), two],
            regions=[{"text": 0, "adapter": 0, "isolated": True}, {"text": 1, "mask": "right", "isolated": True}])


class Case:
    def __init__(self, pipe, entries, case):
        self.pipe, self.case, self.all = pipe, case, masks()
        self.ads = [Adapter(a["name"], entries[a["name"]], a["weight"], mask={"values": self.all[a["mask"]]} if "mask" in a else None)
                    for a in case["adapters"]]

    def run(self, x):
        c, encode = self.case, lambda p: compose.encode(self.pipe, p, [])
        join = lambda all: (torch.cat([v[0] for v in all]), None if all[0][1] is None else torch.cat([v[1] for v in all]))
        self.text = [join([encode(NEGATIVE)] * len(PROMPTS)), join([encode(p) for p in PROMPTS])]
        self.regions = [Region(encode(REGIONS[r["text"]])[0], None, self.all.get(r.get("mask")), r.get("adapter"), r["isolated"]) for r in c.get("regions", ())]
        return predict(self.pipe, self.ads, c.get("method", "merge"), x, TIMESTEP, self.text, c["options"], self.regions, c.get("guidance", GUIDANCE))


def model(name, adapters, seed, only=None):
    folder = os.path.join(MODELS, name)
    pipe, prefix, x = pipeline(folder), name + "/", noise(seed, 3, 4, 12, 16)
    paths = {n: os.path.join(ADAPTERS, p) for n, p in adapters.items()}
    entries = {n: lora.read(p, pipe) for n, p in paths.items()}
    t, done = {prefix + "latent": x}, []
    for case in cases(*adapters):
        if only and case["name"] not in only:
            continue
        c = Case(pipe, entries, case)
        got = c.run(x)
        exact = in_f64(lambda: c.run(x), *[m for m in (pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if m is not None])
        case["f64_rel"] = max_rel(got, exact)
        print("%-28s floor %.1e" % (prefix + case["name"], case["f64_rel"]), flush=True)
        if case["name"] == "published":     # a norm of single tokens sees nothing of tokens beside it
            case["options"] = {"share_layer_norm": False}
            assert max_rel(c.run(x), got) < 1e-6
            case["options"] = {}
        c.run(x)
        t[prefix + case["name"] + "/pred"] = got
        t.update({prefix + "negative": c.text[0][0][:1], prefix + "text": c.text[1][0]})
        t.update({prefix + "region%d" % i: r.text for i, r in enumerate(c.regions)})
        if c.text[0][1] is not None:
            t.update({prefix + "negative_pooled": c.text[0][1][:1], prefix + "pooled": c.text[1][1]})
        done.append(case)
    return t, {"model": "models/" + name, "prefix": prefix, "adapters": {n: rel_path(p) for n, p in paths.items()}, "cases": done}


LATER = {"calls": 6, "guidance": GUIDANCE, "text": [[0, "a hat"], [3, "a red cat"]], "negative": [[0, ""], [4, "a blue dog"]]}


def delayed():
    """diffusers' own loop on tiny-sd1 with embeddings that are exchanged between two steps; latents and prediction of each."""
    from diffusers import DDIMScheduler
    pipe, x, c = pipeline(os.path.join(MODELS, "tiny-sd1")), noise(93, 1, 4, 12, 16), LATER
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(c["calls"])
    at = lambda half, n: [compose.encode(pipe, p, [])[0] for start, p in c[half] if start <= n][-1]
    xs, preds = [], []
    for n, t in enumerate(scheduler.timesteps):
        e = pipe.unet(torch.cat([x, x]), t, torch.cat([at("negative", n), at("text", n)])).sample
        xs.append(x)
        preds.append(e[:1] + c["guidance"] * (e[1:] - e[:1]))
        x = scheduler.step(preds[-1], t, x).prev_sample
    t = {"delayed/latents": torch.cat(xs), "delayed/preds": torch.cat(preds)}
    for half in ("text", "negative"):
        t.update({"delayed/%s%d" % (half, i): at(half, start) for i, (start, _) in enumerate(c[half])})
    return t, dict(c, timesteps=[float(v) for v in scheduler.timesteps])


def main():
    t1, sd1 = model("tiny-sd1", {"content": "content.safetensors", "style": "style.safetensors"}, 91)
    t2, xl = model("tiny-sdxl", {"sdxl_kohya_ldm": "sdxl_kohya_ldm.safetensors", "sdxl_new": "sdxl_new.safetensors"}, 92,
                   ("published", "scores", "full", "level_low", "composite"))
    tensors = {"mask/" + n: m for n, m in masks().items() if n in ("left", "right")}
    tensors.update(t1)
    tensors.update(t2)
    later, entry = delayed()
    tensors.update(later)
    store("aligned.safetensors", tensors)
    write_json("aligned.json", {"versions": versions(), "call": CALL, "timestep": TIMESTEP, "guidance": GUIDANCE, "prompts": PROMPTS, "negative": NEGATIVE,
                                "regions": REGIONS, "models": [sd1, xl], "delayed": entry})


if __name__ == "__main__":
    main()
