"""Adapters that depend on the weight beside others on the same layers, under each policy of weft_plan_options.mixed.

    python make_mixed.py        writes tests/data/mixed/*, golden/mixed.safetensors and mixed.json

Where PEFT can say it, it is asked: adapters merged one after another, each by merge_and_unload() on what the one before left.
The formulas in f64 are the other truth, and the only one for `inside` and `direction`. Files and inputs are those of
make_families.py, which has to have run, and a second DoRA that is made here.
"""
import json
import os

import lora
import make_families
import torch
from common import DATA, in_f64, max_rel, store, versions, write_json
from families import change, parse
from make_families import SD1, by_peft, floats, inputs, model_of, outputs, untouched
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file

MODEL = "tiny-sd1"
DORA, SECOND, LORA, OFT, IA3 = "families/peft_dora", "mixed/peft_dora_second", "families/peft_lora", "families/peft_oft", "families/peft_ia3"
COLUMNS, GLORA = "families/lyco_dora_columns.safetensors", "families/lyco_glora.safetensors"

# policy, files with their weights; "p": PEFT's weight, inside the norm
CASES = [
    ("stack", (DORA, 1), (SECOND, 1)),
    ("stack", (SECOND, 1), (DORA, 1)),
    ("stack", (DORA, 1), (LORA, 1)),
    ("stack", (LORA, 1), (DORA, 1)),
    ("stack", (OFT, 1), (LORA, 1)),
    ("stack", (LORA, 1), (OFT, 1)),
    ("stack", (LORA, 0.5), (DORA, 0.7, "p")),
    ("stack", (IA3, 1), (DORA, 1), (OFT, 1)),
    ("stack", (LORA, 0.5), (DORA, 0.7), (IA3, 0.6), (GLORA, 0.4)),
    ("inside", (DORA, 1), (LORA, 0.8)),
    ("inside", (LORA, 0.8), (DORA, 0.6)),
    ("inside", (DORA, 0.6, "p"), (LORA, -0.5)),
    ("inside", (OFT, 0.7), (LORA, 0.8)),
    ("direction", (DORA, 0.7), (SECOND, 0.5)),
    ("direction", (DORA, 0.7), (LORA, 0.6), (SECOND, -0.3)),
    ("direction", (LORA, 0.6), (COLUMNS, 0.8)),
]


# ---------------------------------------------------------------- formulas, in f64

def additive(e):
    return not {"magnitude", "oft_R", "ia3_l", "a1"} & set(e)


def strengthened(p, conf, w, b, weight, inside):
    """(w, b) after one adapter on it: a step along the line from w to W'."""
    dw, db = change(p, w, b, conf, weight if inside else 1.0)
    return w + dw * (1.0 if inside else weight), b if db is None else b + weight * db


def norm(w, axis):
    side = [1] * w.ndim
    side[axis] = -1
    return w.transpose(0, axis).reshape(w.shape[axis], -1).norm(dim=1).reshape(side)


def direction(parts, w, b):
    doras = [x for x in parts if "magnitude" in x[0]]
    if not doras:
        return together("delta", parts, w, b)
    m = doras[0][0]["magnitude"]
    axis = 1 if doras[0][1].get("columns", m.ndim > 1 and m.shape[0] == 1 and m.shape[1] > 1) else 0
    v, g, bias = w.clone(), norm(w, axis), b
    for p, conf, weight, _ in parts:
        d, db = change({k: t for k, t in p.items() if k != "magnitude"}, w, b, conf)
        v = v + weight * d
        bias = bias if db is None else bias + weight * db
        if "magnitude" in p:
            g = g + weight * (p["magnitude"].reshape(g.shape) - norm(w, axis))
    return g * v / norm(v, axis), bias


def together(policy, parts, w, b):
    """parts: (tensors in f64, conf, weight, inside) of one layer, in order."""
    if policy == "direction":
        return direction(parts, w, b)
    if policy == "inside":
        parts = sorted(parts, key=lambda x: not additive(x[0]))
    w0, b0 = w, b
    for p, conf, weight, inside in parts:
        if policy == "delta":
            x, y = strengthened(p, conf, w0, b0, weight, inside)
            w, b = w + x - w0, b if b is None else b + y - b0
        else:
            w, b = strengthened(p, conf, w, b, weight, inside)
    return w, b


def formula(policy, files, t):
    pipe = model_of(MODEL)

    def go():
        layers = {}
        for path, weight, *how in files:
            for at, e in read(path).items():
                layers.setdefault(at, []).append(({k: v.double() for k, v in e.items() if k != "conf"}, e["conf"], weight, bool(how)))
        for (c, m), parts in layers.items():
            layer = lora.layer_of(pipe, c, m)
            w, b = together(policy, parts, layer.weight.data.clone(), None if layer.bias is None else layer.bias.data.clone())
            layer.weight.data.copy_(w)
            if b is not None:
                layer.bias.data.copy_(b)
        return outputs(pipe, t, True, False)["unet"]
    return in_f64(go, pipe.unet)


def read(path):
    """The UNet's part of a file."""
    path = os.path.join(DATA, path)
    config = None
    if os.path.isdir(path):
        with open(os.path.join(path, "adapter_config.json")) as f:
            config = json.load(f)
        path = os.path.join(path, "adapter_model.safetensors")
    entries = parse(floats(load_file(path)), untouched(MODEL), "unet", config)
    return {at: e for at, e in entries.items() if at[0] == "unet"}


# ---------------------------------------------------------------- PEFT

def by_merging(files, t):
    """PEFT, one after another; None where it weighs otherwise, or does not know a file."""
    pipe = model_of(MODEL)
    for path, weight, *how in files:
        if not path.split("/")[1].startswith("peft_") or (weight != 1 and not how and path != LORA):
            return None
        p = PeftModel.from_pretrained(pipe.unet, os.path.join(DATA, path)).float().eval()
        for m in p.modules() if weight != 1 else ():
            if hasattr(m, "set_scale") and hasattr(m, "scaling"):
                m.set_scale("default", weight)
        pipe.unet = p.merge_and_unload()
    return outputs(pipe, t, True, False)["unet"]


def at_once(files, t):
    """PEFT with all files in one model, merged by merge_adapter(): how far from one after another."""
    pipe = model_of(MODEL)
    p = PeftModel.from_pretrained(pipe.unet, os.path.join(DATA, files[0][0]), adapter_name="a0")
    names = ["a0"]
    for i, (path, *_rest) in enumerate(files[1:], 1):
        names.append("a%d" % i)
        p.load_adapter(os.path.join(DATA, path), adapter_name=names[-1])
    p.float().eval()
    p.merge_adapter(names)
    pipe.unet = p.get_base_model()
    return outputs(pipe, t, True, False)["unet"]


def main():
    make_families.FILES = os.path.join(DATA, "mixed")
    os.makedirs(make_families.FILES, exist_ok=True)
    made = by_peft("peft_dora_second", MODEL, "DoRA", LoraConfig(r=2, lora_alpha=4, use_dora=True, target_modules=SD1[:9]))
    for f in os.listdir(made["file"]):
        os.chmod(os.path.join(made["file"], f), 0o644)
    t = inputs(MODEL, untouched(MODEL))
    base = outputs(untouched(MODEL), t, True, False)["unet"]
    tensors, listing = {}, []
    for i, (policy, *files) in enumerate(CASES):
        want, got, delta = formula(policy, files, t), by_merging(files, t) if policy == "stack" else None, formula("delta", files, t)
        tensors["%d/unet" % i] = want.float()
        item = {"policy": policy, "prefix": str(i),
                "files": [{"path": p, "weight": w} | ({"rule": "peft"} if how else {}) for p, w, *how in files],
                "from_base": round(max_rel(want, base), 3), "from_delta": round(max_rel(want, delta), 4)}
        if got is not None:
            tensors["%d/unet_lib" % i] = got
            item["f64_rel"] = float("%.2g" % max_rel(got, want))
        if policy == "stack" and got is not None and all(w == 1 and "oft" not in p and "ia3" not in p for p, w, *_ in files):
            item["merge_adapter_rel"] = float("%.2g" % max_rel(at_once(files, t), want))
        listing.append(item)
        print(item, flush=True)
    store("mixed.safetensors", tensors)
    write_json("mixed.json", {"versions": versions(), "model": MODEL, "cases": listing})


if __name__ == "__main__":
    main()
