"""Goldens of image prompts: pictures as CLIPImageProcessor prepares them, features, rows, and predictions by diffusers'
IP-Adapter; with adapters, regions, branches and masks by regions.py.

    python make_image_prompts.py   writes tests/data/image_prompts/*, golden/image_prompts.json and .safetensors
"""
import os

import image_prompts
import lora
import numpy as np
import torch
from common import ADAPTERS, MODELS, in_f64, max_rel, noise, pipeline, rel_path, store, versions, write_json
from compose import Adapter
from image_prompts import HOME, SIDE, pairs
from make_weights import masks
from PIL import Image as Picture
from regions import Image, Region, predict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

CALLS, POINTS, GUIDANCE = 6, [(0, 981.0), (3, 481.0)], 3.0
# Height and width: as it is, tall, wide, to be enlarged, very wide, a shorter side that divides badly.
SIZES = {"same": (32, 32), "tall": (75, 41), "wide": (40, 96), "small": (13, 17), "strip": (9, 120), "odd": (101, 67), "large": (150, 130)}
KINDS = {"tiny-sd1": ("base", "plus", "full"), "tiny-sdxl": ("base", "plus")}


def picture(seed, h, w):
    """Soft shapes, hard edges and noise, so that the filter rings and rounds."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    v = np.stack([np.sin(9 * x + c) * np.cos(7 * y - c) for c in range(3)], -1) * 90 + 128
    v[(x * 8).astype(int) % 3 == 0] = (255, 0, 20)
    return np.clip(v + rng.normal(0, 25, (h, w, 3)), 0, 255).astype(np.uint8)


def prepare(rgb):
    p = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return p(Picture.fromarray(rgb), return_tensors="pt").pixel_values


def features(net, kind, pixels):
    """What an image projection of this kind reads: of the picture, and of none."""
    if kind == "base":
        e = net(pixels).image_embeds
        return e, torch.zeros_like(e)
    last = lambda p: net(p, output_hidden_states=True).hidden_states[-2]
    return last(pixels), last(torch.zeros_like(pixels))


def by_diffusers(pipe, x, text, pooled, guidance, prompts, scales, rows):
    """One prediction at each point. prompts: [(kind, [pictures])]; rows(kind, picture) -> (features, of none)."""
    pipe.set_ip_adapter_scale(scales)
    embeds, halves = [], [0, 1] if guidance > 1 else [1]
    for kind, pictures in prompts:
        of = [rows(kind, p) for p in pictures]
        embeds.append(torch.cat([torch.stack([o[0] if half else o[1] for o in of], 1) for half in halves]).to(pipe.unet.dtype))
    out = []
    for _, t in POINTS:
        add = {"image_embeds": embeds}
        if pooled is not None:
            h, w = (v * pipe.vae_scale_factor for v in x.shape[2:])
            add.update(text_embeds=torch.cat([pooled[i] for i in halves]).to(pipe.unet.dtype),
                       time_ids=torch.tensor([[h, w, 0, 0, h, w]] * len(halves), dtype=pipe.unet.dtype))
        e = pipe.unet(torch.cat([x] * len(halves)).to(pipe.unet.dtype), t, torch.cat([text[i] for i in halves]).to(pipe.unet.dtype), added_cond_kwargs=add).sample
        out.append(e if len(halves) == 1 else e[:1] + guidance * (e[1:] - e[:1]))
    return torch.cat(out)


P = lambda kind, *pictures, **kw: dict({"kind": kind, "pictures": list(pictures)}, **kw)

# What diffusers can say. scale: a number, or set_ip_adapter_scale()'s dict, whose text for weft stands beside it.
PLAIN = {
    "tiny-sd1": [
        {"name": "base", "prompts": [P("base", "tall", scale=1.0)]},
        {"name": "base_unguided", "guidance": 1.0, "prompts": [P("base", "wide", scale=0.6)]},
        {"name": "plus", "prompts": [P("plus", "tall", scale=0.8)]},
        {"name": "full", "prompts": [P("full", "odd", scale=0.5)]},
        {"name": "pictures", "prompts": [P("base", "tall", "odd", scale=0.9)]},
        {"name": "two", "prompts": [P("base", "wide", scale=0.7), P("plus", "odd", "tall", scale=-0.4)]},
        {"name": "levels", "prompts": [P("plus", "wide", scale={"down": {"block_0": [0.0, 0.5]}, "mid": 0.7, "up": 1.5},
                                         blocks="NONE,down_blocks.0.attentions.1*=0.5,MID=0.7,up_blocks*=1.5")]},
    ],
    "tiny-sdxl": [
        {"name": "base", "prompts": [P("base", "tall", scale=0.9)]},
        {"name": "plus_unguided", "guidance": 1.0, "prompts": [P("plus", "odd", scale=1.0)]},
        {"name": "style", "prompts": [P("base", "wide", scale={"up": {"block_0": [0.0, 1.0, 0.0]}}, blocks="NONE,up_blocks.0.attentions.1*=1")]},
        {"name": "style_layout", "prompts": [P("plus", "wide", scale={"down": {"block_2": [0.0, 1.0]}, "up": {"block_0": [0.0, 1.0, 0.0]}},
                                               blocks="NONE,up_blocks.0.attentions.1*=1,down_blocks.2.attentions.1*=1")]},
        {"name": "apart", "prompts": [P("base", "wide", scale={"down": {"block_2": [0.0, 1.0]}}, blocks="NONE,down_blocks.2.attentions.1*=1"),
                                      P("base", "tall", scale={"up": {"block_0": [0.0, 1.0, 0.0]}}, blocks="NONE,up_blocks.0.attentions.1*=1")]},
    ],
}
A = lambda name, weight=1.0, **kw: dict({"name": name, "weight": weight}, **kw)
# What only regions.py can say.
BESIDE = [
    {"name": "mask", "adapters": [], "prompts": [P("base", "tall", scale=1.0, mask="disc"), P("plus", "odd", scale=0.8, mask="left")]},
    {"name": "adapters", "adapters": [A("content", 0.9), A("style", 0.7)], "prompts": [P("base", "tall", scale=0.7)]},
    {"name": "composite", "method": "composite", "adapters": [A("content", 0.9), A("style", 0.6)], "prompts": [P("plus", "tall", scale=0.7)]},
    {"name": "blend", "method": "blend", "adapters": [A("content", 0.9, mask="left"), A("style", 0.6, mask="disc")], "prompts": [P("base", "odd", scale=0.7)]},
    {"name": "regions", "adapters": [A("content", 0.9, mask="left")], "regions": [{"adapter": 0}, {"mask": "disc"}],
     "prompts": [P("base", "odd", scale=0.7, mask="disc", blocks="NONE,mid_block*=1,up_blocks.1*=0.5", factors={"mid_block": 1.0, "up_blocks.1": 0.5})]},
]


class Scene:
    def __init__(self, name, nets, seed):
        self.name, self.prefix, self.nets = name, name + "/", nets
        self.pipe = pipeline(os.path.join(MODELS, name))
        cross = self.pipe.unet.config.cross_attention_dim
        self.x = noise(seed, 1, 4, 8, 10)
        self.text = [noise(seed + 1 + i, 1, 77, cross) for i in range(2)]
        self.regions = [noise(seed + 5 + i, 1, 77, cross) for i in range(2)]
        xl = self.pipe.unet.config.addition_embed_type == "text_time"
        self.pooled = [noise(seed + 3 + i, 1, self.pipe.text_encoder_2.config.projection_dim) for i in range(2)] if xl else None
        self.dicts, self.files = {}, {}
        for i, kind in enumerate(KINDS[name]):
            self.dicts[kind] = image_prompts.adapter(self.pipe.unet, kind, seed + 20 + i)
            self.files[kind] = os.path.join(HOME, "%s_%s.safetensors" % (kind, name[5:]))
            image_prompts.store_adapter(self.files[kind], self.dicts[kind])
        self.masks = masks()

    def read(self, kind, name):
        return features(self.nets, kind, PIXELS[name])

    def plain(self, case):
        kinds = [p["kind"] for p in case["prompts"]]
        image_prompts.load(self.pipe, [self.dicts[k] for k in kinds])
        run = lambda: by_diffusers(self.pipe, self.x, self.text, self.pooled, case.get("guidance", GUIDANCE), [(p["kind"], p["pictures"]) for p in case["prompts"]],
                                   [p["scale"] for p in case["prompts"]], self.read)
        got = run()
        exact = in_f64(run, self.pipe.unet)
        run()
        self.pipe.unload_ip_adapter()
        return got, exact

    def rows(self, kind):
        """{picture: (rows, of none)}"""
        proj = image_prompts.load(self.pipe, [self.dicts[kind]])[0].float()
        out = {}
        for name in PIXELS:
            f, none = self.read(kind, name)
            out[name] = (proj(f), proj(none))
        self.pipe.unload_ip_adapter()
        return out

    def beside(self, case, rows, weigh=True):
        ads = [Adapter(a["name"], self.entries[a["name"]], a["weight"], mask={"values": self.masks[a["mask"]], "text": 1.0} if "mask" in a else None)
               for a in case.get("adapters", ())]
        images = [Image(pairs(self.pipe.unet, self.dicts[p["kind"]]), torch.cat([rows[p["kind"]][n][1] for n in p["pictures"]], 1),
                        torch.cat([rows[p["kind"]][n][0] for n in p["pictures"]], 1), p["scale"], p.get("factors"), self.masks.get(p.get("mask")))
                  for p in case["prompts"]]
        regions = [Region(self.regions[i], None, self.masks.get(r.get("mask")), r.get("adapter")) for i, r in enumerate(case.get("regions", ()))]
        pair = tuple((self.text[i], None if self.pooled is None else self.pooled[i]) for i in range(2))
        method = ("blend", 0) if case.get("method") == "blend" else case.get("method", "merge")
        text = [pair] * (1 + sum("mask" in a for a in case.get("adapters", ()))) if method[0] == "blend" else pair
        return torch.cat([predict(self.pipe, ads, method, self.x, t, n, CALLS, text, regions, case.get("guidance", GUIDANCE), images) for n, t in POINTS])


def scene(name, nets, seed, t):
    s, done = Scene(name, nets, seed), []
    t[s.prefix + "latent"] = s.x
    for half in range(2):
        t[s.prefix + "text%d" % half] = s.text[half]
        if s.pooled is not None:
            t[s.prefix + "pooled%d" % half] = s.pooled[half]
    rows = {kind: s.rows(kind) for kind in KINDS[name]}
    for kind, of in rows.items():
        for p in ("tall", "odd", "wide"):
            t["%srows/%s/%s" % (s.prefix, kind, p)] = of[p][0]
        t["%srows/%s/none" % (s.prefix, kind)] = of["tall"][1]
    for case in PLAIN[name]:
        got, exact = s.plain(case)
        again = "" if any(isinstance(p["scale"], dict) for p in case["prompts"]) else " restated %.1e" % max_rel(s.beside(case, rows), got)
        print("%-28s floor %.1e%s" % (s.prefix + case["name"], max_rel(got, exact), again), flush=True)
        t[s.prefix + case["name"]] = got
        done.append(dict(case, prompts=[{k: 1.0 if k == "scale" and isinstance(v, dict) else v for k, v in p.items()} for p in case["prompts"]]))
    if name == "tiny-sd1":
        paths = {n: os.path.join(ADAPTERS, n + ".safetensors") for n in ("content", "style")}
        s.entries = {n: lora.read(p, s.pipe) for n, p in paths.items()}
        for i in range(2):
            t[s.prefix + "region%d" % i] = s.regions[i]
        for case in BESIDE:
            got = s.beside(case, rows)
            exact = in_f64(lambda: s.beside(case, rows), s.pipe.unet)
            print("%-28s floor %.1e" % (s.prefix + case["name"], max_rel(got, exact)), flush=True)
            t[s.prefix + case["name"]] = got
            done.append(case)
    return {"model": "models/" + name, "prefix": s.prefix, "files": {k: rel_path(p) for k, p in s.files.items()}, "cases": done}, s


def main():
    global PIXELS
    t = {"mask/" + n: m for n, m in masks().items() if n in ("left", "disc")}
    pictures = {n: picture(i, *size) for i, (n, size) in enumerate(SIZES.items())}
    PIXELS = {n: prepare(p) for n, p in pictures.items()}
    for n in SIZES:
        t["picture/" + n] = torch.from_numpy(pictures[n])
        t["pixels/" + n] = PIXELS[n][0]
    encoder = os.path.join(HOME, "encoder")
    nets = image_prompts.encoder(encoder, 71, hidden_act="gelu")
    # Every number of the configuration is another, and the image is no whole number of patches.
    quick = image_prompts.encoder(os.path.join(HOME, "encoder_quick"), 72, hidden_act="quick_gelu", hidden_size=16, intermediate_size=40, projection_dim=12,
                                  num_hidden_layers=2, num_attention_heads=2, image_size=40, patch_size=16, layer_norm_eps=1e-3)
    for of, net in ("gelu", nets), ("quick", quick):
        pixels = t[of + "/pixels"] = noise(73, 1, 3, net.config.image_size, net.config.image_size)
        got = net(pixels, output_hidden_states=True)
        t[of + "/hidden"], t[of + "/pooled"] = got.hidden_states[-2][0], got.image_embeds[0]
        net.double()
        exact = net(pixels.double(), output_hidden_states=True)
        print("%-28s floor %.1e %.1e" % (of, max_rel(t[of + "/hidden"], exact.hidden_states[-2][0]), max_rel(t[of + "/pooled"], exact.image_embeds[0])))
        net.float()
    sd1, one = scene("tiny-sd1", nets, 91, t)
    xl, _ = scene("tiny-sdxl", nets, 191, t)
    image_prompts.store_adapter(os.path.join(HOME, "base_sd1.bin"), one.dicts["base"], nested=True)
    store("image_prompts.safetensors", t)
    write_json("image_prompts.json", {"versions": versions(), "calls": CALLS, "points": [list(p) for p in POINTS], "guidance": GUIDANCE,
                                      "encoder": rel_path(encoder), "config": {k: v for k, v in quick.config.to_dict().items() if not k.startswith("_")}, "sizes": {n: list(v) for n, v in SIZES.items()}, "models": [sd1, xl]})


if __name__ == "__main__":
    main()
