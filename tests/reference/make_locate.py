"""Goldens of FreeFuse's maps and masks at one call, on tiny-sd1 and tiny-sdxl, from the formulas on top of diffusers.

    python make_locate.py          writes golden/locate.json, golden/locate.safetensors
"""
import os

import compose
import lora
import regions
import torch
from common import ADAPTERS, MODELS, noise, pipeline, rel_path, store, versions, write_json
from compose import Adapter
from torch.nn import functional as F

PROMPT, WORDS, T = "a red cat and a blue dog with a hat, red cat", ["red cat", "blue dog with a hat"], 981.0
SETTINGS = [{"share": 0.1, "temperature": 0.5}, {"share": 0.34, "temperature": 4.0}]
BLOCKS = {"tiny-sd1": [None, "mid_block.attentions.0.transformer_blocks.0"], "tiny-sdxl": [None]}


def rows_of(pipe, words):
    """Where the words' tokens stand in the prompt, BOS counted."""
    ids = lambda s: pipe.tokenizer(s, add_special_tokens=False).input_ids
    all_, w = ids(PROMPT), ids(words)
    found = {i + j for i in range(len(all_)) if all_[i:i + len(w)] == w for j in range(len(w))}
    return sorted(1 + i for i in found)


def default(unet):
    """The first transformer on the way up with attention, its fourth block or the last."""
    for i, up in enumerate(unet.up_blocks):
        if getattr(up, "attentions", None):
            return "up_blocks.%d.attentions.0.transformer_blocks.%d" % (i, min(4, len(up.attentions[0].transformer_blocks)) - 1)


class Watching(regions.Attention):
    block, notes = None, None

    def __call__(self, attn, x, encoder_hidden_states=None, **kw):
        out = super().__call__(attn, x, encoder_hidden_states, **kw)
        if attn is self.block.attn1:
            self.notes["inner"] = out[-1].double()
        if attn is self.block.attn2:
            split = lambda v: v[-1].double().unflatten(-1, (attn.heads, -1)).transpose(0, 1)
            self.state.reading = -1
            q, k = split(attn.to_q(x)), split(attn.to_k(encoder_hidden_states))
            self.state.reading = None
            self.notes["seen"] = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1).mean(0)   # (pixels, tokens)
        return out


def maps_of(notes, rows, share, temperature):
    s = [notes["seen"][:, r].mean(1) for r in rows]
    out = []
    for i in range(len(s)):
        c = len(s) * s[i] - sum(s[j] for j in range(len(s)) if j != i)
        core = c.topk(max(1, int(share * len(c)))).indices
        h = notes["inner"]
        out.append(((h[core] @ h.T).mean(0) / temperature).softmax(0))
    return torch.stack(out)


def masks_of(maps, h, w):
    """15 rounds that even the number of pixels out, as described in lib/run/share.c."""
    L, n = maps.shape
    norm = lambda v, dim: (v - v.amin(dim, keepdim=True)) / (v.amax(dim, keepdim=True) - v.amin(dim, keepdim=True) + 1e-8)
    y = torch.linspace(-1, 1, h, dtype=maps.dtype).repeat_interleave(w)
    x = 1.3 * torch.linspace(-1, 1, w, dtype=maps.dtype).repeat(h)
    scale = max((maps.max() - maps.min()).item(), 1e-4)
    bias, score, P = torch.zeros(L, 1, dtype=maps.dtype), maps.clone(), norm(maps, 1)
    kernel = torch.full((1, 1, 3, 3), 1 / 8, dtype=maps.dtype)
    kernel[0, 0, 1, 1] = 0
    for i in range(15):
        P = 0.8 * norm(score - bias, 0) + 0.2 * P
        mass = P.sum(1) + 1e-6
        far = (y - ((P * y).sum(1) / mass)[:, None]) ** 2 + (x - ((P * x).sum(1) / mass)[:, None]) ** 2
        counts = F.one_hot((score - bias).argmax(0), L).sum(0)
        bias = (bias + 0.01 * scale * 0.95 ** i * torch.sign(counts - n / L)[:, None]).clamp(-10 * scale, 10 * scale)
        votes = F.conv2d(P.reshape(L, 1, h, w), kernel, padding=1).reshape(L, n)
        score = maps - bias + 3e-5 * votes - 3e-5 * far
    return F.one_hot(score.argmax(0), L).T.double()


def main():
    tensors, models = {}, []
    for name, files, seed in (("tiny-sd1", ("content.safetensors", "style.safetensors"), 91), ("tiny-sdxl", ("sdxl_kohya_ldm.safetensors", "sdxl_new.safetensors"), 92)):
        pipe = pipeline(os.path.join(MODELS, name))
        paths = [os.path.join(ADAPTERS, f) for f in files]
        ads = [Adapter(f, lora.read(p, pipe), wt) for f, p, wt in zip(files, paths, (0.9, 0.8))]
        x, t = noise(seed, 1, 4, 12, 16), {}
        pair = tuple(compose.encode(pipe, p, [(a, a.te_weight) for a in ads]) for p in ("", PROMPT))
        for side, (c, pooled) in zip(("uncond", "cond"), pair):
            t["%s/%s" % (name, side)] = c
            if pooled is not None:
                t["%s/%s_pooled" % (name, side)] = pooled
        t[name + "/latent"] = x
        rows, cases = [rows_of(pipe, w) for w in WORDS], []
        regions.Attention = Watching
        for b, block in enumerate(BLOCKS[name]):
            at = block or default(pipe.unet)
            Watching.block, Watching.notes = pipe.unet.get_submodule(at), {}
            t[name + "/pred"] = regions.predict(pipe, ads, "merge", x, T, 0, 10, pair, (), 3.0)
            pixels = len(Watching.notes["inner"])
            h, w = next((hh, ww) for hh, ww in ((12, 16), (6, 8), (3, 4)) if hh * ww == pixels)
            for k, s in enumerate(SETTINGS):
                maps = maps_of(Watching.notes, rows, **s)
                key = "%s/%d_%d" % (name, b, k)
                t[key + "/maps"], t[key + "/masks"] = maps.reshape(-1, h, w), masks_of(maps, h, w).reshape(-1, h, w)
                print(key, at, "largest over even %.2f" % (maps.max().item() * pixels), "pixels of each", t[key + "/masks"].sum((1, 2)).tolist())
                cases.append(dict({"key": key, "block": block}, **s))
        tensors.update({k: v.float() for k, v in t.items()})
        models.append({"model": "models/" + name, "name": name, "adapters": [rel_path(p) for p in paths], "weights": [0.9, 0.8], "rows": rows, "cases": cases})
    g = torch.Generator().manual_seed(93)            # maps as even as those of a large image, so that places and neighbours count
    flat = 2e-4 * F.interpolate(torch.rand(1, 3, 4, 5, generator=g), (9, 13), mode="bilinear").double()[0] + 1e-5 * torch.rand(3, 9, 13, generator=g)
    tensors["flat/maps"] = flat.float()
    tensors["flat/masks"] = masks_of(tensors["flat/maps"].double().reshape(3, -1), 9, 13).reshape(3, 9, 13).float()
    print("flat", tensors["flat/masks"].sum((1, 2)).tolist(), "without rounds", F.one_hot(flat.argmax(0), 3).sum((0, 1)).tolist())
    store("locate.safetensors", tensors)
    write_json("locate.json", {"versions": versions(), "prompt": PROMPT, "words": WORDS, "timestep": T, "guidance": 3.0, "models": models})


if __name__ == "__main__":
    main()
