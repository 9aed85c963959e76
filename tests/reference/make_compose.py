"""Goldens of the four methods on tiny-sd1: scores, tables, and 20-step pictures.

    python make_compose.py         writes golden/compose.json, golden/compose.safetensors
"""
import json
import math
import os

import common
import compose
import lora
import torch
from common import ADAPTERS, DATA, MODELS, in_f64, l2_rel, max_rel, noise, pipeline, rel_path, store, versions, write_json
from compose import Adapter, Cached, Composite, KLora, KLoraMany, Loratorio, Merge, Subbands, Switch
from make_nets import to_u8
from make_pictures import ours, scheduler

def mask_of(a):
    return dict(a["mask"], values=masks[a["mask"]["name"]]) if "mask" in a else None


def plan_of(case, entries, order):
    ads = [Adapter(a["name"], entries[a["name"]], a.get("weight", 1.0), a.get("text_weight"), a.get("share", 1.0), a.get("curve"), mask_of(a), a.get("role"))
           for a in case.get("adapters", [])]
    o, text = dict(case.get("options", {})), case.get("text", "method")
    if case["method"] == "base":
        return None
    if "balance" in case:                # of the UNet; the prompt's weights stay
        for a, g in zip(ads, compose.balanced(ads, **case["balance"])):
            a.weight *= g
    if case["method"] == "merge":
        p = Merge(ads)
    elif case["method"] == "switch":
        last = o.get("last", 0)
        p = Switch(ads, o.get("period", 5), o.get("official_offset", False), order=o.get("order"), shares=o.get("shares", False),
                   last=(last, o.get("last_adapter", 0)))
    elif case["method"] == "composite":
        p = Cached(ads, o.get("c1", 2), o.get("c2", 3)) if o.get("cached") else Composite(ads, "count" if o.get("divide_by_count") else "sum", o.get("nocfg_last", False))
    elif case["method"] == "loratorio":
        p = Loratorio(ads, **o)
    elif case["method"] == "subbands":
        p = Subbands(ads, **o)
    elif any(a.role for a in ads):
        p = KLoraMany(ads, order, **o)
    else:
        p = KLora(ads, order, **o)
    if text == "all":
        p.te = [(a, a.te_weight) for a in ads]
    elif text == "none":
        p.te = []
    elif text == "first":
        p.te = [(ads[0], ads[0].te_weight)]
    elif text == "each":
        p.te_each = (lambda n, b: p.active(n, case["steps"])) if case["method"] == "switch" else (lambda n, b: b)
    return p


# Masks that adapters of cases name.
masks = {}


def finite(x):
    return x if math.isfinite(x) else None


class Book:
    """Collects cases; contexts, tables and scores are stored once each."""

    def __init__(self, pipe, entries, shape, seed, prompt, negative, steps, guidance, prefix="", pixels=False):
        self.pixels = pixels
        self.pipe, self.entries, self.prefix = pipe, entries, prefix
        self.prompt, self.negative, self.steps, self.guidance = prompt, negative, steps, guidance
        self.noise, self.seed = noise(seed, *shape), seed
        self.t, self.cases, self.scores, self.ctx = {prefix + "noise": self.noise}, [], {}, {}
        self.order = compose.unet_order(pipe)
        self.ddim = lambda: scheduler(pipe.scheduler.config, "ddim")

    def context(self, te, pair):
        key = "+".join("%s:%g" % (a.name, w) for a, w in te) or "plain"
        if key not in self.ctx:
            self.ctx[key] = self.prefix + "ctx/" + key
            for side, (c, pooled) in () if self.pixels else zip(("uncond", "cond"), pair):
                self.t["%s/%s" % (self.ctx[key], side)] = c
                if pooled is not None:
                    self.t["%s/%s_pooled" % (self.ctx[key], side)] = pooled
        return self.ctx[key]

    def klora(self, case, p):
        """Scores once for each (pair, alpha, K, layers); the table for each case."""
        if isinstance(p, KLoraMany):
            self.table(case, p)
            return
        o = case["options"]
        key = "%s+%s" % tuple(a["name"] for a in case["adapters"])
        for flag, tag in (("ignore_alpha", "/noalpha"), ("attention_only", "/attn"), ("top_k", "/top%s" % o.get("top_k"))):
            key += tag if o.get(flag) else ""
        k = self.prefix + "score/" + key
        if key not in self.scores:
            self.scores[key] = {"name": k, "layers": ["unet." + m for m in p.layers]}
            f = lambda v: torch.tensor(v, dtype=torch.float64)
            self.t.update({k + "/S_c": f(p.S_c), k + "/S_s": f(p.S_s), k + "/sum_c": f(p.sum_c), k + "/sum_s": f(p.sum_s),
                           k + "/q": f(p.q), k + "/K": torch.tensor(p.K, dtype=torch.int32)})
        case["scores"] = k
        self.table(case, p)

    def table(self, case, p):
        case["gamma"] = p.gamma
        n = self.prefix + case["name"]
        self.t[n + "/rho"] = torch.tensor(p.rho, dtype=torch.float64)
        N, L = case["steps"], len(p.layers)
        self.t[n + "/choice"] = torch.tensor([[p.choice(i, N, l) for l in range(L)] for i in range(N)], dtype=torch.uint8)
        # how near the nearest cell is to a tie: a table may only be compared exactly where this is not tiny
        case["nearest_tie"] = float("%.2g" % min([abs(p.rho[l] - p.S(p.tau(i, N, l + 1))) for i in range(N) for l in range(L)
                                                  if 0 < p.rho[l] < math.inf] or [9]))

    def add(self, name, method, adapters=(), options=None, text="method", steps=None, guidance=None, run=True, keep=False, note=None, balance=None):
        case = {"name": name, "method": method, "adapters": list(adapters), "options": options or {}, "text": text,
                "steps": steps or self.steps, "guidance": self.guidance if guidance is None else guidance}
        if balance:
            case["balance"] = balance
        p = plan_of(case, self.entries, self.order)
        n = self.prefix + name
        if note:
            case["note"] = note
        if method == "klora":
            self.klora(case, p)
        if method == "switch":
            self.t[n + "/active"] = torch.tensor([p.active(i, case["steps"]) for i in range(case["steps"])], dtype=torch.int32)
        if run:
            go = lambda: compose.generate(self.pipe, p, self.ddim(), self.noise, self.prompt, self.negative,
                                          case["steps"], case["guidance"])
            x, preds, ctx = go()
            xe, pe, _ = in_f64(go, *[m for m in (self.pipe.unet, self.pipe.text_encoder, getattr(self.pipe, "text_encoder_2", None)) if m is not None])
            case["context"] = self.context(p.te if p else [], ctx)
            self.t[n + "/latents"] = x
            if keep:
                self.t[n + "/preds"] = preds
            if self.pixels:
                self.t[n + "/u8"] = to_u8(self.pipe.vae.decode(x / self.pipe.vae.config.scaling_factor).sample)[0]
            case["f64_rel"], case["f64_l2"] = float("%.2g" % max_rel(x, xe)), float("%.2g" % l2_rel(x, xe))
            case["steps_f64_rel"] = float("%.2g" % max(max_rel(a, b) for a, b in zip(preds, pe)))
            print("%-28s floor %.1e, of a step %.1e, |x| %.2f" % (name, case["f64_rel"], case["steps_f64_rel"], x.abs().max()), flush=True)
        else:
            print("%-28s table" % name, {k: v for k, v in case.items() if k in ("gamma", "nearest_tie")}, flush=True)
        self.cases.append(case)
        return case


def A(name, weight=1.0, **kw):
    return dict({"name": name, "weight": weight}, **kw)


def standard(b, content, style, third, pair2=None, small=False):
    """The cases; `small` leaves the variations out (the bundled model gets those only once)."""
    two, three = [A(content), A(style)], [A(content, 0.8), A(style, 0.8), A(third, 0.8)]
    b.add("base", "base", keep=not small)
    b.add("single", "merge", [A(content)])
    b.add("merge", "merge", [A(content, 0.8), A(style, 0.6)], keep=not small)
    b.add("switch", "switch", two, {"period": 5}, keep=not small)
    b.add("composite", "composite", two, keep=not small)
    for pattern in ("s", "s_star"):
        for gamma in ("code", "paper", "none"):
            for gran in ("call", "step"):
                if small and (gamma, gran) != ("code", "call"):
                    continue
                b.add("klora_%s_%s_%s" % (pattern, gamma, gran), "klora", two,
                      {"pattern": pattern, "gamma": gamma, "granularity": gran}, keep=(gamma, gran) == ("code", "call") and not small)
    if small:
        return
    b.add("merge_text_weights", "merge", [A(content, 0.5, text_weight=1.0), A(style, 1.0, text_weight=0.0)])
    b.add("merge_negative", "merge", [A(content, -0.5), A(style, 1.2)])
    b.add("merge_three", "merge", three)
    b.add("switch_three", "switch", three, {"period": 2})
    b.add("switch_official", "switch", three, {"period": 2, "official_offset": True})
    b.add("switch_text_all", "switch", two, {"period": 1}, text="all")
    b.add("composite_three", "composite", three)
    b.add("composite_shares", "composite", [A(content, 1.0, share=0.7), A(style, 0.8, share=0.5)])
    b.add("composite_count", "composite", [A(content, 1.0, share=0.7), A(style, 0.8, share=0.5)], {"divide_by_count": True})
    b.add("composite_noguidance", "composite", two, guidance=1.0)
    b.add("composite_nocfg_last", "composite", two, {"nocfg_last": True}, guidance=1.0)
    b.add("klora_weights", "klora", [A(content, 0.9), A(style, 0.7)], {"pattern": "s"}, note="weights apply, scores do not see them")
    b.add("klora_wrap", "klora", two, {"pattern": "s", "wrap": True})
    b.add("klora_ignore_alpha", "klora", two, {"pattern": "s", "ignore_alpha": True})
    b.add("klora_paper_beta", "klora", two, {"pattern": "s_star", "paper_beta": True})
    b.add("klora_custom", "klora", two, {"pattern": "custom", "alpha": 1.2, "beta": 0.4, "modulus": 0.0})
    b.add("klora_custom_mod", "klora", two, {"pattern": "custom", "alpha": 1.5, "beta": 0.5, "modulus": 1.5}, run=False)
    b.add("klora_text_all", "klora", two, {"pattern": "s"}, text="all")
    b.add("klora_swapped", "klora", [A(style), A(content)], {"pattern": "s"})
    b.add("klora_top_k", "klora", two, {"pattern": "s", "top_k": 7}, run=False)
    b.add("klora_same", "klora", [A(content), A(content)], {"pattern": "s"}, note="content twice: must equal it alone, without its text parts")
    for n in (1, 2, 7, 30, 50):
        for pattern in ("s", "s_star"):
            b.add("klora_%s_n%d" % (pattern, n), "klora", two, {"pattern": pattern}, steps=n, run=False)
    if pair2:
        two2 = [A(pair2[0]), A(pair2[1])]
        b.add("klora_uneven", "klora", two2, {"pattern": "s"}, note="content has every layer, style one block: a layer of one adapter is that adapter's")
        b.add("klora_uneven_turned", "klora", two2[::-1], {"pattern": "s_star"})
        b.add("klora_uneven_attn", "klora", two2, {"pattern": "s", "attention_only": True})
        b.add("merge_uneven", "merge", two2)
        b.add("composite_uneven", "composite", two2)


def check_against_diffusers(pipe_folder, b, paths):
    """The bypass must be what diffusers does with the same two adapters at the same weights."""
    pipe = pipeline(pipe_folder)
    pipe.scheduler = b.ddim()
    for n, p in paths.items():
        pipe.load_lora_weights(p, adapter_name=n)
    pipe.set_adapters(list(paths), [0.8, 0.6])
    h, w = b.noise.shape[2] * pipe.vae_scale_factor, b.noise.shape[3] * pipe.vae_scale_factor
    out = pipe(b.prompt, negative_prompt=b.negative, num_inference_steps=b.steps, guidance_scale=b.guidance, height=h, width=w,
               latents=b.noise.clone(), output_type="latent").images
    print("merge against diffusers' own pipeline: max %.1e, l2 %.1e" % (max_rel(b.t[b.prefix + "merge/latents"], out), l2_rel(b.t[b.prefix + "merge/latents"], out)))


def book(folder, paths, shape, seed, prompt, negative, steps, guidance, prefix=""):
    pipe = pipeline(folder)
    return Book(pipe, {n: lora.read(p, pipe) for n, p in paths.items()}, shape, seed, prompt, negative, steps, guidance, prefix)


def entry(b, folder, paths):
    """One model's part of compose.json."""
    return {"model": folder, "prefix": b.prefix, "adapters": {n: p for n, p in paths.items()}, "prompt": b.prompt, "negative": b.negative,
            "seed": b.seed, "shape": list(b.noise.shape), "sampler": ours(b.ddim(), 0.0),
            "order": ["unet." + m for m in b.order], "scores": list(b.scores.values()), "cases": b.cases}


def main():
    models, tensors = [], {}
    folder = os.path.join(MODELS, "tiny-sd1")
    paths = {n: os.path.join(ADAPTERS, n + ("" if n == "third" else ".safetensors")) for n in
             ("content", "style", "third", "sd1_kohya_conv", "sd1_partial")}
    b = book(folder, paths, (1, 4, 12, 16), 77, "a photo of a red cat on the mat", "", 20, 3.0)
    standard(b, "content", "style", "third", ("sd1_kohya_conv", "sd1_partial"))
    check_against_diffusers(folder, b, {n: paths[n] for n in ("content", "style")})
    with_none = plan_of({"method": "merge", "adapters": [A("content")], "text": "none"}, b.entries, b.order)
    x, _, _ = compose.generate(b.pipe, with_none, b.ddim(), b.noise, b.prompt, b.negative, 20, b.guidance)
    print("klora of content with itself is content: %.1e" % max_rel(b.t["klora_same/latents"], x))
    tensors.update(b.t)
    models.append(entry(b, "models/tiny-sd1", {n: rel_path(p) for n, p in paths.items()}))

    folder = os.path.join(MODELS, "tiny-sdxl")
    paths = {n: os.path.join(ADAPTERS, n + ".safetensors") for n in ("sdxl_kohya_ldm", "sdxl_new", "sdxl_kohya")}
    b = book(folder, paths, (1, 4, 12, 16), 78, "a blue square to the left of a circle", "blurry", 20, 3.0, "sdxl/")
    standard(b, "sdxl_kohya_ldm", "sdxl_new", "sdxl_kohya", small=True)
    check_against_diffusers(folder, b, {n: paths[n] for n in ("sdxl_kohya_ldm", "sdxl_new")})
    tensors.update(b.t)
    models.append(entry(b, "models/tiny-sdxl", {n: rel_path(p) for n, p in paths.items()}))
    store("compose.safetensors", tensors)
    write_json("compose.json", {"versions": versions(), "models": models})


if __name__ == "__main__":
    main()
