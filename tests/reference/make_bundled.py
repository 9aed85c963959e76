"""The bundled model, held to the same account as the tiny ones: every net, every sampler, every adapter, every method.

    python make_bundled.py [MODEL]         default examples/model; writes golden/bundled.json and golden/bundled_*.safetensors
"""
import hashlib
import os
import sys

import common
import lora
import make_adapters
import make_compose
import make_nets
import make_pictures
import torch
from common import REPO, max_rel, noise, pipeline, rel_path, store, versions, write_json
from make_compose import A
from safetensors import safe_open
from safetensors.torch import load_file

MODEL = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(REPO, "examples", "model")
STAR = "a large red star on a yellow background"
# what to compose: name, content, style, third, prompt
PAIRS = [("monster_hatching", "monster", "hatching", "mosaic", "a large zib monster on a red background, hatched style"),
         ("rocket_mosaic", "rocket", "mosaic", "hatching", "a large vok rocket on a blue background, mosaic style")]
PROMPTS = [STAR, "", "a red star and a blue circle and a green square and a yellow triangle on a white background " * 6, PAIRS[0][4]]
SEED, STEPS, GUIDANCE = 7, 20, 5.0


def find_adapters():
    folder, out = os.path.join(MODEL, "adapters"), []
    for f in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        p = os.path.join(folder, f)
        file = os.path.join(p, "adapter_model.safetensors") if os.path.isdir(p) else p
        if not file.endswith(".safetensors") or not os.path.exists(file):
            continue
        keys = list(load_file(file))
        dialect = "peft" if os.path.isdir(p) else "kohya" if keys[0].startswith("lora_") else \
            "diffusers" if any("lora_A" in k for k in keys) else "diffusers-old"
        dtype = {torch.float16: "f16", torch.float32: "f32", torch.bfloat16: "bf16"}[load_file(file)[keys[0]].dtype]
        out.append({"name": f.removesuffix(".safetensors"), "model": rel_path(MODEL), "dialect": dialect, "dtype": dtype, "note": "", "file": p})
    return out


def fingerprints():
    """sha256 of every weight file, so that goldens of an older model are recognised as such."""
    out = {}
    for d, _, fs in sorted(os.walk(MODEL)):
        for f in sorted(fs):
            if f.endswith(".safetensors"):
                with open(os.path.join(d, f), "rb") as h:
                    out[os.path.relpath(os.path.join(d, f), MODEL)] = hashlib.sha256(h.read()).hexdigest()
    return out


def main():
    pipe = pipeline(MODEL)
    base = pipe.scheduler.config
    side = pipe.unet.config.sample_size
    px = side * pipe.vae_scale_factor
    d = pipe.unet.config.cross_attention_dim
    out = {"versions": versions(), "model": rel_path(MODEL), "latent": side, "pixels": px, "sha256": fingerprints()}

    t, cases = {}, []
    make_nets.text(pipe, "", PROMPTS, t, cases, hidden=False)
    ctx = t["te/last"]
    make_nets.unet_case(pipe, "one", (1, 4, side, side), [801.0], ctx[:1], t, cases, 501)
    make_nets.unet_case(pipe, "two", (2, 4, side, side), [941.0, 21.0], ctx[[1, 3]], t, cases, 502)
    make_nets.unet_case(pipe, "odd", (1, 4, side + 5, side + 3), [441.0], ctx[2:3], t, cases, 503)
    make_nets.vae_cases(pipe, t, cases, (("decode", 1, side, side), ("decode_odd", 1, side // 2 + 1, side - 1)), 504)
    out["nets"] = {"file": "bundled_nets.safetensors", "prompts": PROMPTS, "cases": cases}
    store("bundled_nets.safetensors", t)
    print({"%s %s" % (c["net"], c["name"]): c["f64_rel"] for c in cases}, flush=True)
    out["tokenizer"] = make_nets.tokenizer_entry(rel_path(os.path.join(MODEL, "tokenizer")), pipe.tokenizer)

    t, cases = {}, []
    for name, kind, karras in make_pictures.SAMPLERS:
        for g in (GUIDANCE, 7.5) if name in ("ddim", "dpmpp_2m_karras") else (GUIDANCE,):
            n = name if g == GUIDANCE else name + "_g7.5"
            cases.append(make_pictures.draw(pipe, base, n, kind, t, STAR, "", SEED, STEPS, g, px, px, karras=karras,
                                            keep_steps=n == "ddim"))
    out["pictures"] = {"file": "bundled_pictures.safetensors", "cases": cases}
    store("bundled_pictures.safetensors", t)

    adapters = find_adapters()
    paths = {a["name"]: a["file"] for a in adapters}
    if adapters:
        prompt = PAIRS[0][4]
        ids = torch.tensor([pipe.tokenizer(prompt, padding="max_length", max_length=77, truncation=True)["input_ids"]])
        t = {"in/sample": noise(505, 2, 4, side, side), "in/timestep": torch.tensor([801.0, 261.0]), "in/context": ctx[[3, 1]], "in/ids": ids.int()}
        pipe = pipeline(MODEL)
        t.update({"base/" + k: v for k, v in make_adapters.outputs(pipe, dict(t), True).items()})
        out["adapters"] = {"file": "bundled_adapters.safetensors", "prompt": prompt, "adapters": [make_adapters.judge(a, MODEL, t) for a in adapters]}
        store("bundled_adapters.safetensors", t)

    t, models = {}, []
    for name, content, style, third, prompt in PAIRS:
        if not {content, style, third} <= set(paths):
            print("no adapters for", name)
            continue
        b = make_compose.Book(pipeline(MODEL), {n: lora.read(paths[n], pipe) for n in (content, style, third)}, (1, 4, side, side), SEED, prompt, "",
                              STEPS, GUIDANCE, name + "/", pixels=True)
        make_compose.standard(b, content, style, third, small=True)
        b.add("single_style", "merge", [A(style)])
        b.add("switch_three", "switch", [A(n, 0.9) for n in (content, style, third)], {"period": 2})
        b.add("composite_shares", "composite", [A(content, 1.0, share=0.7), A(style, 0.8, share=0.5)])
        t.update(b.t)
        models.append(make_compose.entry(b, rel_path(MODEL), {n: rel_path(paths[n]) for n in (content, style, third)}))
    if models:
        out["compose"] = {"file": "bundled_compose.safetensors", "models": models}
        store("bundled_compose.safetensors", t)
    write_json("bundled.json", out)


if __name__ == "__main__":
    main()
