"""Adapters for the tiny models in every dialect, and what diffusers or PEFT make of them.

    python make_adapters.py        writes tests/data/adapters/*, golden/adapters.json, golden/adapters_<model>.safetensors

Every factor is random, B too. Files that today's tools can write are written by them (diffusers' save_lora_weights, PEFT's
save_pretrained); the rest are the same factors under the names that other trainers use. Each output is computed by diffusers
or PEFT where they can open the file, and always compared with an independent f64 merge of the factors.
"""
import json
import os
import re
import shutil
import sys

import common
import lora
import torch
from common import ADAPTERS, MODELS, in_f64, max_rel, noise, pipeline, rel_path, store, versions, write_json
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

PROMPT = "a photo of a red cat in the style of the other"
F16, F32, BF16 = torch.float16, torch.float32, torch.bfloat16


def fill(net, seed, dtype, strength=0.25):
    """Random factors in every LoRA layer PEFT has put into `net`, rounded to what the file will hold."""
    g = torch.Generator("cpu").manual_seed(seed)
    for n, m in net.named_modules():
        if isinstance(m, LoraLayer) and "default" in m.lora_A:
            a, b = lora.factors(m.get_base_layer(), m.r["default"], g, strength / m.scaling["default"])
            m.lora_A["default"].weight.data = a.to(dtype).float()
            m.lora_B["default"].weight.data = b.to(dtype).float()


def names(net, groups, only=None):
    return [n for n, _ in lora.targets(net, groups, only)]


def save_new(name, model, parts, dtype, seed, meta=True):
    """diffusers >= 0.26: parts = {component: LoraConfig kwargs}."""
    pipe = pipeline(os.path.join(MODELS, model))
    layers, metas = {}, {}
    for i, (c, kw) in enumerate(parts.items()):
        net = getattr(pipe, c)
        cfg = LoraConfig(**kw)
        net.add_adapter(cfg, adapter_name="default")
        fill(net, seed + i, dtype)
        sd = get_peft_model_state_dict(net, adapter_name="default")
        layers[c + "_lora_layers"] = {k: v.to(dtype) for k, v in sd.items()}
        d = net.peft_config["default"].to_dict()
        if meta:
            metas[c + "_lora_adapter_metadata"] = clean(d)
    type(pipe).save_lora_weights(ADAPTERS, weight_name=name + ".safetensors", **layers, **metas)
    return os.path.join(ADAPTERS, name + ".safetensors")


def clean(d):
    d = {k: (sorted(v) if isinstance(v, set) else v) for k, v in d.items()}
    d["base_model_name_or_path"] = None
    return {k: (v.value if hasattr(v, "value") else v) for k, v in d.items()}


def save_peft(name, model, component, kw, dtype, seed):
    pipe = pipeline(os.path.join(MODELS, model))
    net = getattr(pipe, component)
    p = get_peft_model(net, LoraConfig(**kw))
    fill(p, seed, dtype)
    folder = os.path.join(ADAPTERS, name)
    shutil.rmtree(folder, ignore_errors=True)
    for q in p.parameters():
        q.data = q.data.to(dtype)
    p.save_pretrained(folder)
    readme = os.path.join(folder, "README.md")
    if os.path.exists(readme):
        os.remove(readme)
    conf = os.path.join(folder, "adapter_config.json")
    with open(conf) as f:
        d = json.load(f)
    d["base_model_name_or_path"] = None
    d["auto_mapping"] = None
    d["target_modules"] = sorted(d["target_modules"])
    with open(conf, "w") as f:
        json.dump(d, f, indent=1)
    return folder


def build():
    """[(name, model, dialect, dtype, note)], after writing the files."""
    out = []
    P = {m: pipeline(os.path.join(MODELS, m)) for m in ("tiny-sd1", "tiny-sd2", "tiny-sdxl")}
    sd1, sd2, xl = P["tiny-sd1"], P["tiny-sd2"], P["tiny-sdxl"]
    file = lambda n: os.path.join(ADAPTERS, n + ".safetensors")

    def add(name, model, dialect, dtype, note, folder=False):
        out.append({"name": name, "model": model, "dialect": dialect, "dtype": {F16: "f16", F32: "f32", BF16: "bf16"}[dtype],
                    "note": note, "file": os.path.join(ADAPTERS, name) if folder else file(name)})

    def both(net_pipe, rank, alpha, seed, dtype, groups, tgroups=("attn", "mlp"), only=None, tonly=None):
        e = lora.make(net_pipe.unet, "unet", groups, rank, alpha, seed, only, dtype)
        if tgroups:
            e.update(lora.make(net_pipe.text_encoder, "text_encoder", tgroups, rank, alpha, seed + 1, tonly, dtype))
            if getattr(net_pipe, "text_encoder_2", None) is not None:
                e.update(lora.make(net_pipe.text_encoder_2, "text_encoder_2", tgroups, rank, alpha, seed + 2, tonly, dtype))
        return e
    attn = ("attn",)

    # the three that compose.py composes: same attention layers, three dialects, three ranks
    save_new("content", "tiny-sd1", {
        "unet": dict(r=4, lora_alpha=8, target_modules=names(sd1.unet, attn)),
        "text_encoder": dict(r=4, lora_alpha=4, target_modules=names(sd1.text_encoder, attn))}, F32, 1000)
    add("content", "tiny-sd1", "diffusers", F32, "alpha 8 of rank 4 in lora_adapter_metadata; text encoder alpha 4")
    lora.write_kohya(file("style"), both(sd1, 3, 2.0, 1010, F16, attn, attn), meta={
        "ss_network_module": "networks.lora", "ss_network_dim": "3", "ss_network_alpha": "2.0", "ss_base_model_version": "sd_v1-5",
        "ss_tag_frequency": json.dumps({"img": {"in szn style": 10, "a cat": 4}}), "modelspec.title": "style"})
    add("style", "tiny-sd1", "kohya", F16, "rank 3, alpha 2, with kohya metadata")
    save_peft("third", "tiny-sd1", "unet", dict(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]), F32, 1020)
    add("third", "tiny-sd1", "peft", F32, "UNet alone, target_modules by suffix", True)

    # diffusers, new
    save_new("sd1_new", "tiny-sd1", {"unet": dict(r=4, lora_alpha=2, target_modules=names(sd1.unet, ("attn", "ff", "proj")))}, F16, 1100)
    add("sd1_new", "tiny-sd1", "diffusers", F16, "alpha 2 of rank 4 in the metadata; attention, ff, proj_in 4-D")
    save_new("sd1_new_nometa", "tiny-sd1", {"unet": dict(r=3, lora_alpha=3, target_modules=names(sd1.unet, attn)),
                                            "text_encoder": dict(r=2, lora_alpha=2, target_modules=names(sd1.text_encoder, ("attn", "mlp")))},
             F32, 1110, meta=False)
    add("sd1_new_nometa", "tiny-sd1", "diffusers", F32, "no metadata: alpha is the rank; text encoder with mlp")
    save_new("sd1_new_conv", "tiny-sd1", {"unet": dict(r=3, lora_alpha=6, target_modules=names(sd1.unet, ("attn", "ff", "proj", "conv", "extra")))}, F32, 1120)
    add("sd1_new_conv", "tiny-sd1", "diffusers", F32, "every linear and convolution: 3x3, stride 2, 1x1 shortcut, time_emb_proj, time_embedding, conv_in, conv_out")
    save_new("sd1_partial", "tiny-sd1", {"unet": dict(r=2, lora_alpha=2, target_modules=names(sd1.unet, ("attn", "ff", "conv"), r"up_blocks\.2"))}, F32, 1130)
    add("sd1_partial", "tiny-sd1", "diffusers", F32, "up_blocks.2 alone: attention, ff and convolutions")

    # raw PEFT
    rank_pattern = {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": 6, "attn2.to_k": 2, ".*mid_block.*to_v": 5}
    alpha_pattern = {"attn2.to_k": 6, "ff.net.2": 1, ".*mid_block.*to_out.0": 7}
    save_peft("sd1_peft", "tiny-sd1", "unet", dict(r=4, lora_alpha=3, rank_pattern=rank_pattern, alpha_pattern=alpha_pattern,
              target_modules=["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]), F32, 1200)
    add("sd1_peft", "tiny-sd1", "peft", F32, "rank_pattern and alpha_pattern: full name, suffix, regular expression", True)
    save_peft("sd1_peft_rslora", "tiny-sd1", "unet", dict(r=4, lora_alpha=2, use_rslora=True,
              target_modules=["to_q", "to_v", "conv1", "conv_shortcut", "downsamplers.0.conv"]), F16, 1210)
    add("sd1_peft_rslora", "tiny-sd1", "peft", F16, "use_rslora: alpha / sqrt(r); with convolutions", True)
    save_peft("sd1_peft_te", "tiny-sd1", "text_encoder", dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "fc1"]), F32, 1220)
    add("sd1_peft_te", "tiny-sd1", "peft", F32, "a text encoder's folder: the component follows from the module names", True)

    # kohya
    lora.write_kohya(file("sd1_kohya"), both(sd1, 4, 1.0, 1300, F16, ("attn", "ff", "proj")))
    add("sd1_kohya", "tiny-sd1", "kohya", F16, "the trainer's default set with lora_te_, alpha 1 of rank 4, proj 4-D")
    lora.write_kohya(file("sd1_kohya_noalpha"), both(sd1, 2, None, 1310, F32, ("attn", "proj"), ()), square=True)
    add("sd1_kohya_noalpha", "tiny-sd1", "kohya", F32, "no alpha; proj_in and proj_out stored 2-D on 4-D weights")
    conv_rank = lambda n: 2 if lora.group(n, None) == "conv" else 4
    conv_alpha = lambda n: 1.0 if lora.group(n, None) == "conv" else 4.0
    lora.write_kohya(file("sd1_kohya_conv"), both(sd1, conv_rank, conv_alpha, 1320, F32, ("attn", "ff", "proj", "conv"), ()))
    add("sd1_kohya_conv", "tiny-sd1", "kohya", F32, "with convolutions (LoCon): rank 2 alpha 1 there, rank 4 alpha 4 elsewhere")
    varied = lambda n: 1 + len(n) % 5
    lora.write_kohya(file("sd1_kohya_varied"), both(sd1, varied, lambda n: 0.5 + len(n) % 3, 1330, F16, ("attn", "ff"), ("attn",), tonly="q_proj|v_proj"))
    add("sd1_kohya_varied", "tiny-sd1", "kohya", F16, "another rank and alpha in each module; text encoder q and v alone")

    # diffusers, old
    lora.write_old(file("sd1_old_dotted"), both(sd1, 4, None, 1400, F16, attn), "dotted")
    add("sd1_old_dotted", "tiny-sd1", "diffusers-old", F16, "unet.X.to_q.lora.down.weight; text: q_proj.lora_linear_layer.down.weight")
    lora.write_old(file("sd1_old_processor"), both(sd1, 4, None, 1410, F32, attn, ()), "processor")
    add("sd1_old_processor", "tiny-sd1", "diffusers-old", F32, "no prefix: attn1.processor.to_q_lora.down.weight, to_out_lora")
    lora.write_old(file("sd1_old_unetunet"), both(sd1, 4, None, 1420, F32, attn, ()), "doubled")
    add("sd1_old_unetunet", "tiny-sd1", "diffusers-old", F32, "unet.unet. doubled")
    lora.write_old(file("sd1_old_te"), both(sd1, 3, None, 1430, F32, attn), "te_processor")
    add("sd1_old_te", "tiny-sd1", "diffusers-old", F32, "unet.X.processor.to_q_lora; text: self_attn.to_q_lora.down.weight, mlp.fc1.lora_linear_layer")
    lora.write_old(file("sd1_old_alpha"), both(sd1, 4, 2.0, 1440, F32, attn), "alpha")
    add("sd1_old_alpha", "tiny-sd1", "diffusers-old", F32, "dotted, with <module>.alpha")

    # the same two nets under the names that transformers 4 gave text modules, and PEFT with the adapter's name in the keys
    e = both(sd1, 3, None, 1450, F16, attn, ("attn", "mlp"))
    save_file({"%s.%s.lora_%s.weight" % (c, m, s): v[s] for (c, m), v in e.items() for s in "AB"}, file("sd1_new_classic"))
    add("sd1_new_classic", "tiny-sd1", "diffusers", F16, "text_encoder.text_model.encoder.X.lora_A.weight, as transformers 4 names them; no metadata")
    e = both(sd1, 2, None, 1460, F32, attn, ())
    save_file({"base_model.model.%s.lora_%s.default.weight" % (m, s): v[s] for (c, m), v in e.items() for s in "AB"}, file("sd1_peft_bare"),
              metadata={"lora_alpha": "2"})
    add("sd1_peft_bare", "tiny-sd1", "peft", F32, "one file without a configuration, `.default` after lora_A: alpha in plain metadata")

    # tiny-sd2
    lora.write_kohya(file("sd2_kohya"), both(sd2, 2, 4.0, 1500, F16, ("attn", "ff", "proj")))
    add("sd2_kohya", "tiny-sd2", "kohya", F16, "linear projections, lora_te_")

    # tiny-sdxl
    up = ["CrossAttn" in t for t in xl.unet.config.up_block_types]
    sgm = lambda m: lora.sgm_name(m, xl.unet.config.layers_per_block, up)
    lora.write_kohya(file("sdxl_kohya_ldm"), both(xl, 3, 2.0, 1600, F16, ("attn", "ff", "proj", "conv")), sdxl=True, sgm=sgm)
    add("sdxl_kohya_ldm", "tiny-sdxl", "kohya", F16, "LDM block names, lora_te1_ and lora_te2_, with convolutions")
    lora.write_kohya(file("sdxl_kohya"), both(xl, 2, None, 1610, F32, attn, attn), sdxl=True)
    add("sdxl_kohya", "tiny-sdxl", "kohya", F32, "diffusers block names, lora_te1_ and lora_te2_, no alpha")
    save_new("sdxl_new", "tiny-sdxl", {c: dict(r=3, lora_alpha=a, target_modules=names(getattr(xl, c), attn))
                                       for c, a in (("unet", 6), ("text_encoder", 3), ("text_encoder_2", 1))}, BF16, 1620)
    add("sdxl_new", "tiny-sdxl", "diffusers", BF16, "alphas 6, 3 and 1 for the three nets in the metadata")
    return out


def inputs(model, pipe):
    d = {"tiny-sd1": 24, "tiny-sd2": 20, "tiny-sdxl": 40}[model]
    t = {"in/sample": noise(11, 2, 4, 12, 8), "in/timestep": torch.tensor([801.0, 261.0]), "in/context": noise(12, 2, 77, d)}
    ids = lambda tok: torch.tensor([tok(PROMPT, padding="max_length", max_length=77, truncation=True)["input_ids"]])
    t["in/ids"] = ids(pipe.tokenizer).int()
    if model == "tiny-sdxl":
        t["in/ids_2"] = ids(pipe.tokenizer_2).int()
        t["in/text_embeds"] = noise(13, 2, 20)
        t["in/time_ids"] = torch.tensor([[32., 24., 0., 0., 32., 24.], [64., 48., 8., 4., 32., 32.]])
    return t


def outputs(pipe, t, text):
    dt = pipe.unet.dtype
    xl = "in/time_ids" in t
    add = {"text_embeds": t["in/text_embeds"].to(dt), "time_ids": t["in/time_ids"].to(dt)} if xl else None
    o = {"unet": pipe.unet(t["in/sample"].to(dt), t["in/timestep"].to(dt), t["in/context"].to(dt), added_cond_kwargs=add).sample}
    if text:
        r = pipe.text_encoder(t["in/ids"].long(), output_hidden_states=True)
        o["te"] = r.hidden_states[-2] if xl else r.last_hidden_state
        if xl:
            r = pipe.text_encoder_2(t["in/ids_2"].long(), output_hidden_states=True)
            o["te2"], o["te2_embeds"] = r.hidden_states[-2], r.text_embeds
    return o


def by_tools(a, pipe, t, text, weights):
    """The outputs as diffusers or PEFT compute them from the file; raises where they cannot open it."""
    res = {}
    if a["dialect"] == "peft":
        if not os.path.isdir(a["file"]):
            raise ValueError("PEFT opens folders with a configuration")
        net = pipe.text_encoder if text else pipe.unet
        p = PeftModel.from_pretrained(net, a["file"])
        p.float().eval()
        for w in weights:
            for m in p.modules():
                if isinstance(m, LoraLayer) and "default" in m.lora_A:
                    m.set_scale("default", w)
            res[w] = outputs(pipe, t, text)
        p.unload()
        return res, "peft"
    if a["name"] in ("sd1_old_processor", "sd1_old_unetunet"):
        # today's diffusers wants exactly one `unet.`; the names inside are its own
        sd = {"unet." + re.sub("^(unet\\.)*", "", k): v for k, v in load_file(a["file"]).items()}
        pipe.load_lora_weights(sd, adapter_name="x")
    else:
        pipe.load_lora_weights(a["file"], adapter_name="x")
    for w in weights:
        pipe.set_adapters(["x"], [w])
        res[w] = outputs(pipe, t, text)
    return res, "diffusers"


def nets_of(pipe):
    return [m for m in (pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if m is not None]


def judge(a, folder, T, weights=(1.0, 0.7), prefix=""):
    """One adapter file on the model in `folder`: adds its outputs to T (which holds in/* and base/*), returns its entry of the index."""
    pipe = pipeline(folder)
    t = {k: v for k, v in T.items() if k.startswith("in/")}
    entries = lora.read(a["file"], pipe)
    comps = {c: sum(1 for k in entries if k[0] == c) for c in ("unet", "text_encoder", "text_encoder_2")}
    text = comps["text_encoder"] + comps["text_encoder_2"] > 0

    def exact(w):
        with lora.merged(pipe, (entries, w)):
            return outputs(pipe, t, text)
    want = in_f64(lambda: {w: exact(w) for w in weights}, *nets_of(pipe))
    try:
        got, who = by_tools(a, pipe, t, text, weights)
        err = max(max_rel(got[w][k], want[w][k]) for w in weights for k in want[w])
        why = "" if err < 2e-5 else "differs by %.1e: %s" % (err, {k: "%.0e" % max_rel(got[1.0][k], want[1.0][k]) for k in want[1.0]})
    except Exception as e:
        why = "%s: %s" % (type(e).__name__, " ".join(str(e).split())[:200])
    if why:
        got, who = {w: from_factors(folder, entries, w, t, text) for w in weights}, "factors"
    effect = [max_rel(got[1.0][k], T["base/" + k]) for k in got[1.0]]
    cases = []
    for w in weights:
        p = "%s%s/w%g" % (prefix, a["name"], w)
        for k, v in got[w].items():
            T["%s/%s" % (p, k)] = v
        cases.append({"weight": w, "prefix": p, "f64_rel": float("%.2g" % max(max_rel(got[w][k], want[w][k]) for k in want[w]))})
    path = os.path.join(a["file"], "adapter_model.safetensors") if os.path.isdir(a["file"]) else a["file"]
    item = {"name": a["name"], "path": rel_path(a["file"]), "model": a["model"], "dialect": a["dialect"], "dtype": a["dtype"],
            "checked_by": who, "keys": len(load_file(path)), "modules": len(entries), **comps,
            "ranks": sorted({e["A"].shape[0] for e in entries.values()}), "note": a["note"], "cases": cases}
    if why:
        item["tools"] = why
    print("%-20s %-10s %3d modules, %6d bytes, f64_rel %s, effect %.2f..%.2f %s"
          % (a["name"], who, len(entries), os.path.getsize(path), [c["f64_rel"] for c in cases], min(effect), max(effect), why), flush=True)
    return item


def from_factors(folder, entries, w, t, text):
    """The f64 merge, rounded to f32, run in f32: for files that the tools cannot open."""
    pipe = pipeline(folder)
    for n in nets_of(pipe):
        n.double()
    with lora.merged(pipe, (entries, w)):
        for n in nets_of(pipe):
            n.float()
        out = outputs(pipe, t, text)
        for n in nets_of(pipe):
            n.double()
    return out


def main():
    os.makedirs(ADAPTERS, exist_ok=True)
    listing, files = [], {}
    for a in build():
        folder = os.path.join(MODELS, a["model"])
        if a["model"] not in files:
            pipe = pipeline(folder)
            T = files[a["model"]] = inputs(a["model"], pipe)
            T.update({"base/" + k: v for k, v in outputs(pipe, dict(T), True).items()})
        path = os.path.join(a["file"], "adapter_model.safetensors") if os.path.isdir(a["file"]) else a["file"]
        os.chmod(path, 0o644)
        listing.append(judge(a, folder, files[a["model"]]))
    for model, t in files.items():
        store("adapters_%s.safetensors" % model, t)
    write_json("adapters.json", {"versions": versions(), "prompt": PROMPT, "adapters": listing})


if __name__ == "__main__":
    main()
