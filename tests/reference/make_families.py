"""Adapters of every family in every dialect, and what they make of the tiny models.

    python make_families.py        writes tests/data/families/*, golden/families.json, golden/families_<model>.safetensors

Where PEFT, LyCORIS or diffusers has the family, it makes and writes the file, and its own forward in f32 is the first reference.
The second is always the formulas of families.py in f64, applied to what stands in the file. Both are stored; families.json holds
how far they are apart. The other files are written here, under the names that their tools use. Every tensor is random, none is zero.
"""
import json
import logging
import os
import re
import shutil
import warnings

import compose
import families
import lora
import peft
import torch
from common import DATA, MODELS, in_f64, max_rel, noise, pipeline, rel_path, store, versions, write_json
from families import applied, change, parse
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
from lycoris import wrapper  # noqa: E402

FILES = os.path.join(DATA, "families")
PROMPT = "a photo of a red cat in the style of the other"
ROWS = 16                      # of the text encoders' output that are stored: the attention is causal, the rest only repeats
F16, F32, BF16 = torch.float16, torch.float32, torch.bfloat16
WEIGHTS = (1.0, 0.6)

# the modules that a family is tried on: each kind of layer once
A0 = "down_blocks.0.attentions.0.transformer_blocks.0."
A1 = "down_blocks.1.attentions.0.transformer_blocks.0."
SD1 = [A0 + "attn1.to_q", A1 + "attn2.to_k", A1 + "attn2.to_v", A1 + "attn1.to_out.0",
       "up_blocks.2.attentions.0.transformer_blocks.0.ff.net.0.proj", "up_blocks.2.attentions.0.transformer_blocks.0.ff.net.2",
       "down_blocks.1.attentions.1.proj_in", "up_blocks.1.attentions.2.proj_out", "up_blocks.2.resnets.1.conv1",
       "down_blocks.0.downsamplers.0.conv", "down_blocks.1.resnets.0.conv_shortcut", "down_blocks.1.resnets.0.time_emb_proj"]
SD1_LINEAR = [m for m in SD1 if not re.search("conv|proj_in|proj_out", m)]
SD1_NORMS = ["down_blocks.0.resnets.0.norm1", "up_blocks.2.resnets.1.norm2", "down_blocks.1.attentions.0.norm", A1 + "norm1", A1 + "norm3",
             "conv_norm_out"]
TE = ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.self_attn.out_proj", "text_model.encoder.layers.1.mlp.fc1"]
TE_NORMS = ["text_model.encoder.layers.0.layer_norm1", "text_model.final_layer_norm"]
B1 = "up_blocks.0.attentions.1.transformer_blocks.1."
XL = ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", B1 + "attn2.to_k", B1 + "attn2.to_out.0", B1 + "ff.net.0.proj",
      "mid_block.attentions.0.transformer_blocks.1.ff.net.2", "down_blocks.2.attentions.0.proj_in", "up_blocks.1.attentions.2.proj_out",
      "up_blocks.2.resnets.2.conv1", "down_blocks.1.downsamplers.0.conv", "up_blocks.1.resnets.0.conv_shortcut",
      "mid_block.resnets.1.time_emb_proj"]
XL_NORMS = ["down_blocks.0.resnets.0.norm1", "up_blocks.0.attentions.1.norm", B1 + "norm2", "conv_norm_out"]
SD2 = [A1 + "attn1.to_q", A1 + "attn2.to_v", A1 + "ff.net.2", "up_blocks.1.attentions.0.proj_in", "down_blocks.0.downsamplers.0.conv",
       "up_blocks.2.resnets.0.conv_shortcut"]


def unet(names):
    return [("unet", n) for n in names]


def text(names, which="text_encoder"):
    return [(which, n) for n in names]


# ---------------------------------------------------------------- values

LINEAR = ("up", "hada_w1_a", "lokr_w1", "lokr_w1_a", "u", "vera_b", "spectrum", "shira_weight", "c3a_kernel", "delora_lambda",
          "randlora_lambda")     # scaling one of these scales the delta


def lively(e, w, b, g, dtype, strength=0.3):
    """Fill a module's tensors in place: the delta has `strength` times the weight's norm, whatever the family."""
    def put(t, v):
        t.copy_(v.reshape(t.shape).to(dtype).to(t.dtype))

    def rand(t, scale, mean=0.0):
        put(t, mean + scale * torch.randn(t.shape, generator=g))
    rms = w.pow(2).mean().sqrt().item()
    p = {k: v for k, v in e.items() if k not in ("conf", "alpha", "on_input", "shira_indices", "vera_A", "vera_B", "vb_bank")}
    for k, t in p.items():
        if k in ("oft_blocks", "oft_R", "boft_R"):
            rand(t, 0.15 if k != "boft_R" else 0.3)
        elif k in ("rescale", "boft_s", "ia3_l"):
            rand(t, 0.2, 1.0)
        elif k == "replace" and "on_input" in e:
            rand(t, 0.2)
        elif k == "replace":
            put(t, w.reshape(t.shape) + strength * rms * torch.randn(t.shape, generator=g))
        elif k == "replace_b":
            put(t, b + 0.1 * torch.randn(t.shape, generator=g))
        elif k == "diff":
            rand(t, strength * rms if t.ndim > 1 else 0.2)
        elif k in ("diff_b", "up_bias"):
            rand(t, 0.1)
        elif k == "E":
            put(t, 0.5 + torch.rand(t.shape, generator=g))
        elif k in ("magnitude", "randlora_A", "randlora_B"):
            pass
        elif "initial" in e["conf"] and k in ("down", "up"):     # training moves them a little from where they began
            put(t, t + strength * t.pow(2).mean().sqrt() * torch.randn(t.shape, generator=g))
        elif k == "miss_block":
            rand(t, strength * rms if t.ndim == 2 else 0.2 / t.shape[-1] ** 0.5)
        elif k == "delora_w_norm":
            put(t, t * (1 + 0.2 * torch.randn(t.shape, generator=g)))
        elif k in ("gralora_B", "gralora_up"):
            rand(t, strength * rms / e["conf"]["alpha"] * t.shape[1] ** 0.5)
        elif k in ("a1", "a2", "b1", "b2", "bm"):
            rand(t, 0.5 / max(t.shape) ** 0.5)
        else:
            rand(t, 1.0)
    double = lambda: {k: v.double() for k, v in e.items() if k not in ("conf", "magnitude", "up_bias", "replace_b")}
    part = next((k for k in LINEAR if k in p), None) if "initial" not in e["conf"] else None
    if part is not None:
        for _ in range(2):
            d, _b = change(double(), w.double(), None, e["conf"])
            put(p[part], p[part].double() * (strength * w.double().norm() / d.norm()))
    if "magnitude" in p:
        t = p["magnitude"]
        d, _b = change(double(), w.double(), None, e["conf"])
        columns = t.ndim > 1 and t.shape[0] == 1 and t.shape[1] > 1 and e["conf"].get("columns", True)
        v = (w.double() + d).transpose(0, 1) if columns else w.double() + d
        n = v.reshape(v.shape[0], -1).norm(dim=1)
        put(t, n * (1 + 0.25 * torch.randn(n.shape, generator=g)))


def seed_of(name):
    h = 7
    for c in name.encode():
        h = (h * 131 + c) % 2147483647
    return torch.Generator("cpu").manual_seed(h)


def model_of(name):
    return pipeline(os.path.join(MODELS, name))


KEPT = {}


def untouched(name):
    """A pipeline to look things up in, which nobody changes."""
    if name not in KEPT:
        KEPT[name] = model_of(name)
    return KEPT[name]


# ---------------------------------------------------------------- makers
# Each returns the case: {name, model, family, dialect, by, file, note, entries, run}, run(weight) giving the library's outputs.

def case(name, model, family, dialect, by, file, entries, run=None, note="", **more):
    return dict(name=name, model=model, family=family, dialect=dialect, by=by, file=file, entries=entries, run=run, note=note, **more)


def tidy_config(folder):
    readme = os.path.join(folder, "README.md")
    if os.path.exists(readme):
        os.remove(readme)
    path = os.path.join(folder, "adapter_config.json")
    with open(path) as f:
        d = json.load(f)
    d["base_model_name_or_path"] = d["auto_mapping"] = None
    for k in ("target_modules", "feedforward_modules", "modules_to_save", "exclude_modules"):
        if isinstance(d.get(k), list):
            d[k] = sorted(d[k])
    with open(path, "w") as f:
        json.dump(d, f, indent=1)
    return d


def by_peft(name, model, family, config, component="unet", dtype=F32, note="", library="forward", own_weights=True, prune=None,
            pickled=False, **more):
    g = seed_of(name)
    pipe = model_of(model)
    net = getattr(pipe, component)
    torch.manual_seed(g.initial_seed())    # what stays as PEFT makes it
    p = get_peft_model(net, config)
    sd = get_peft_model_state_dict(p, adapter_name="default")
    drawn = {"base_model." + k: getattr(p.base_model, k)["default"] for k in ("randlora_A", "randlora_B") if hasattr(p.base_model, k)}
    entries = parse(sd | drawn, untouched(model), component, config.to_dict() | {"peft_type": config.peft_type.value})
    for (c, m), e in entries.items():
        layer = lora.layer_of(untouched(model), c, m)
        lively(e, layer.weight.data, None if getattr(layer, "bias", None) is None else layer.bias.data, g, dtype)
    if prune is not None:
        prune(p, config)
    folder = os.path.join(FILES, name)
    shutil.rmtree(folder, ignore_errors=True)
    if dtype != F32:
        for q in p.parameters():
            q.data = q.data.to(dtype)
    p.save_pretrained(folder, safe_serialization=not pickled)
    conf = tidy_config(folder)
    path = os.path.join(folder, "adapter_model")
    stored = torch.load(path + ".bin") if pickled else load_file(path + ".safetensors")
    entries = parse(floats(stored | drawn), untouched(model), component, conf)     # of bases that are not saved PEFT's own
    state = {}

    def run(weight, t, with_text):
        if weight != 1.0 and not own_weights:
            return None
        if not state:
            q = model_of(model)
            m = PeftModel.from_pretrained(getattr(q, component), folder)
            m.float().eval()
            if library == "merge":
                m.merge_adapter()
            state.update(pipe=q, net=m)
        if weight != 1.0:
            for m in state["net"].modules():
                if hasattr(m, "set_scale") and hasattr(m, "scaling"):
                    m.set_scale("default", weight)
        return outputs(state["pipe"], t, component == "unet", with_text)
    return case(name, model, family, "peft", "PEFT", folder, entries, run, note, **more)


def floats(sd):
    return {k: v.float() if v.is_floating_point() else v for k, v in sd.items()}


def underscore(pipe, c, m, prefix=None, sgm=False):
    xl = getattr(pipe, "text_encoder_2", None) is not None
    cfg = pipe.unet.config
    up = ["CrossAttn" in t for t in cfg.up_block_types]
    if prefix == "lycoris_":
        return prefix + m.replace(".", "_")
    name = lora.kohya_key(c, m, xl, (lambda x: lora.sgm_name(x, cfg.layers_per_block, up)) if sgm else None)
    return name if prefix is None or c != "unet" else name.replace("lora_unet_", prefix, 1)


def by_lycoris(name, model, family, algo, modules, dim=2, alpha=1.0, dtype=F16, sgm=False, prefix=None, note="", own_weights=True, per=None, **kw):
    """LyCORIS' module classes on the named layers; `per` maps a module's name to other settings."""
    g = seed_of(name)
    pipe = model_of(model)
    made = []
    for c, m in modules:
        layer = lora.layer_of(pipe, c, m)
        a, d, al, k = algo, dim, alpha, dict(kw)
        if per is not None:
            over = dict(per(c, m) or {})
            a, d, al = over.pop("algo", a), over.pop("dim", d), over.pop("alpha", al)
            k.update(over)
        key = underscore(pipe, c, m, prefix, sgm)
        if a == "norm":
            mod = wrapper.NormModule(key, layer, 1.0)
        else:
            mod = wrapper.network_module_dict[a](key, layer, 1.0, d, al, **k)
        e = {"conf": {}}
        for n, q in mod.named_parameters() if a != "dylora" else ():
            n = {"weight": "diff", "bias": "diff_b"}.get(n, n) if a == "full" else n
            e[families.PARTS[n]] = q.data
        for n in ("alpha", "on_input"):
            if getattr(mod, n, None) is not None:
                e[n] = getattr(mod, n)
        if a != "dylora":
            bias = getattr(layer, "bias", None)
            lively(e, layer.weight.data.clone(), None if bias is None else bias.data.clone(), g, dtype)
        else:
            for q in mod.parameters():
                q.data.copy_((0.4 * torch.randn(q.shape, generator=g)).to(dtype))
        mod.eval()
        made.append(mod)
    for mod in made:
        mod.apply_to()
    sd = {}
    for mod in made:
        for k, v in mod.state_dict(prefix=mod.lora_name + ".").items():
            v = v.detach().contiguous()
            sd[k] = v.to(dtype) if v.is_floating_point() and (dtype == F32 or float(v.abs().max()) < 6e4) else v
    path = os.path.join(FILES, name + ".safetensors")
    save_file(sd, path, metadata={"ss_network_module": "lycoris.kohya"} if prefix is None else None)
    entries = parse(floats(load_file(path)), untouched(model))
    comps = {c for c, _ in modules}

    def run(weight, t, with_text):
        if weight != 1.0 and not own_weights:
            return None
        for mod in made:
            mod.multiplier = weight
        return outputs(pipe, t, "unet" in comps, with_text)
    return case(name, model, family, "lycoris" if prefix is None else "lycoris, wrapper", "LyCORIS", path, entries,
                None if algo == "dylora" else run, note)


def by_diffusers(name, model, family, parts, dtype=F32, note="", meta=True, **more):
    from make_adapters import clean
    g = seed_of(name)
    pipe = model_of(model)
    layers, metas, entries = {}, {}, {}
    for c, config in parts.items():
        net = getattr(pipe, c)
        net.add_adapter(config, adapter_name="default")
        sd = get_peft_model_state_dict(net, adapter_name="default")
        es = parse(sd, untouched(model), c, config.to_dict() | {"peft_type": "LORA"})
        for (cc, m), e in es.items():
            layer = lora.layer_of(untouched(model), cc, m)
            lively(e, layer.weight.data, None if layer.bias is None else layer.bias.data, g, dtype)
        entries.update(es)
        layers[c + "_lora_layers"] = {k: v.to(dtype) for k, v in sd.items()}
        metas[c + "_lora_adapter_metadata"] = clean(net.peft_config["default"].to_dict())
    type(pipe).save_lora_weights(FILES, weight_name=name + ".safetensors", **layers, **(metas if meta else {}))
    path = os.path.join(FILES, name + ".safetensors")
    state = {}

    def run(weight, t, with_text):
        if not state:
            q = model_of(model)
            q.load_lora_weights(path, adapter_name="x")
            state["pipe"] = q
        state["pipe"].set_adapters(["x"], [weight])
        return outputs(state["pipe"], t, "unet" in parts, with_text)
    copy = {k: {a: (b.clone() if torch.is_tensor(b) else b) for a, b in e.items()} for k, e in entries.items()}
    return case(name, model, family, "diffusers", "diffusers", path, copy, run, note, **more)


def fresh(pipe, c, m, kind, g, dtype, r=2, alpha=None, conf=None, **flags):
    """A module's tensors for the files that are written here."""
    layer = lora.layer_of(pipe, c, m)
    w = layer.weight.data
    o, i, k = w.shape[0], w.shape[1] if w.ndim > 1 else 1, tuple(w.shape[2:])
    one = (1,) * len(k)
    if flags.get("square") and k == (1, 1):
        k, one = (), ()
    e = {"conf": dict(conf or {})}
    z = lambda *s: torch.zeros(*s)
    if kind == "lora":
        e.update(down=z(r, i, *k), up=z(o, r, *one))
    elif kind == "moslora":
        e.update(down=z(r, i, *k), up=z(o, r, *one), mixer=z(r, r))
    elif kind == "glora_bm":
        e.update(a1=z(i, r, *one), a2=z(r, i, *one), b1=z(o, r, *one), b2=z(r, i, *one), bm=z(r, r, *k))
    elif kind == "glora_old":
        e.update(a1=z(r, i, *one), a2=z(i, r, *one), b1=z(r, i, *k), b2=z(o, r, *one))
    elif kind == "glora":
        e.update(a1=z(i, r, *one), a2=z(r, i, *one), b1=z(o, r, *one), b2=z(r, i, *k))
    elif kind == "full":
        e.update(diff=z(*w.shape))
    elif kind == "replace":
        e.update(replace=z(*w.shape))
    elif kind == "uv":
        e.update(u=z(o, r), v=z(r, i))
    elif kind == "oft":
        e.update(oft_blocks=z(r, o // r, o // r))
    elif kind == "boft_peft":
        size = i * (k[0] * k[1] if k else 1)
        e.update(boft_R=z(2, size // 4, 4, 4), boft_s=z(1, o) if k else z(o, 1))
    if flags.get("bias") and layer.bias is not None:
        e["replace_b" if kind == "replace" else "diff_b"] = z(*layer.bias.shape)
    if alpha is not None:
        e["alpha"] = torch.tensor(float(alpha))
    lively(e, w, None if getattr(layer, "bias", None) is None else layer.bias.data, g, dtype)
    return e


def by_hand(name, model, family, dialect, entries, tensors, dtype=F16, ending=".safetensors", note="", meta=None, legacy=False, how=None, **more):
    """tensors: {key: tensor} for safetensors, or what torch.save is given. `how` opens the file with diffusers, where it can."""
    path = os.path.join(FILES, name + ending)
    if ending == ".safetensors":
        save_file({k: v.to(dtype).contiguous() if v.is_floating_point() else v for k, v in tensors.items()}, path, metadata=meta)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    state, comps = {}, {c for c, _ in entries}

    def run(weight, t, with_text):
        if not state:
            state["pipe"] = model_of(model)
            how(state["pipe"], path)
        if how is procs:
            return outputs(state["pipe"], t, True, with_text) if weight == 1.0 else None
        state["pipe"].set_adapters(["x"], [weight])
        return outputs(state["pipe"], t, "unet" in comps, with_text)
    return case(name, model, family, dialect, "diffusers" if how is not None else "ours", path, entries, how and run, note, **more)


def by_name(pipe, path):
    pipe.load_lora_weights(os.path.dirname(path), weight_name=os.path.basename(path), adapter_name="x")


def procs(pipe, path):
    """Custom Diffusion's attention processors, as diffusers reads them; it would set them only all at once."""
    new = pipe.unet._process_custom_diffusion(load_file(path) if path.endswith(".safetensors") else torch.load(path))
    pipe.unet.set_attn_processor(pipe.unet.attn_processors | {k: v.eval() for k, v in new.items()})


# ---------------------------------------------------------------- judging

def inputs(model, pipe):
    d = {"tiny-sd1": 24, "tiny-sd2": 20, "tiny-sdxl": 40}[model]
    t = {"in/sample": noise(21, 1, 4, 12, 8), "in/timestep": torch.tensor([801.0]), "in/context": noise(22, 1, 77, d)}
    ids = lambda tok: torch.tensor([tok(PROMPT, padding="max_length", max_length=77, truncation=True)["input_ids"]])
    t["in/ids"] = ids(pipe.tokenizer).int()
    if model == "tiny-sdxl":
        t["in/ids_2"] = ids(pipe.tokenizer_2).int()
        t["in/text_embeds"] = noise(23, 1, 20)
        t["in/time_ids"] = torch.tensor([[32., 24., 0., 0., 32., 24.]])
    return t


def outputs(pipe, t, with_unet, with_text):
    dt = pipe.unet.dtype
    xl = "in/time_ids" in t
    o = {}
    if with_unet:
        add = {"text_embeds": t["in/text_embeds"].to(dt), "time_ids": t["in/time_ids"].to(dt)} if xl else None
        o["unet"] = pipe.unet(t["in/sample"].to(dt), t["in/timestep"].to(dt), t["in/context"].to(dt), added_cond_kwargs=add).sample
    if with_text:
        r = pipe.text_encoder(t["in/ids"].long(), output_hidden_states=True)
        o["te"] = (r.hidden_states[-2] if xl else r.last_hidden_state)[:, :ROWS]
        if xl:
            r = pipe.text_encoder_2(t["in/ids_2"].long(), output_hidden_states=True)
            o["te2"], o["te2_embeds"] = r.hidden_states[-2][:, :ROWS], r.text_embeds
    return o


def nets_of(pipe):
    return [m for m in (pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if m is not None]


def exact(pipe, t, with_unet, with_text, *files):
    """The formulas' outputs in f64."""
    def go():
        with applied(pipe, *files):
            return outputs(pipe, t, with_unet, with_text)
    return in_f64(go, *nets_of(pipe))


def main():
    from family_cases import cases, methods, mixtures
    make_set("families", cases(), mixtures(), methods())


def make_set(stem, cases, mixtures, methods):
    """golden/<stem>.json and golden/<stem>_<model>.safetensors."""
    os.makedirs(FILES, exist_ok=True)
    T, pipes, listing, made = {}, {}, [], {}
    for model in ("tiny-sd1", "tiny-sd2", "tiny-sdxl"):
        pipes[model] = model_of(model)
        T[model] = inputs(model, pipes[model])
        T[model].update({"base/" + k: v for k, v in outputs(pipes[model], T[model], True, True).items()})
    for make in cases:
        c = make()
        listing.append(judge(c, pipes[c["model"]], T[c["model"]]))
        c.pop("run")
        made[c["name"]] = c
    mixed = [mix(m, made, pipes, T) for m in mixtures]
    composed = [by_method(m, made, pipes, T) for m in methods]
    for model, t in T.items():
        store("%s_%s.safetensors" % (stem, model), t)
    write_json(stem + ".json", {"stem": stem, "versions": versions() | {"lycoris_lora": "4.1.3"}, "prompt": PROMPT, "rows": ROWS, "files": listing,
                                 "mixed": mixed, "methods": composed})


def judge(c, pipe, T):
    t = {k: v for k, v in T.items() if k.startswith("in/")}
    comps = [k[0] for k in c["entries"]]
    with_unet, with_text = "unet" in comps, len(set(comps) - {"unet"}) > 0
    cases = []
    rules = [(w, False) for w in WEIGHTS]
    if any("magnitude" in e for e in c["entries"].values()):
        rules.append((0.6, True))
    worst = 0
    for w, peft_dora in rules:
        want = exact(pipe, t, with_unet, with_text, (c["entries"], w, peft_dora))
        got = None
        dora = any("magnitude" in e for e in c["entries"].values())
        peft_way = c["by"] in ("PEFT", "diffusers")
        if c["run"] is not None and (w == 1.0 or not dora or (peft_way and peft_dora)):
            got = c["run"](w, t, with_text)
            got = got and {k: v for k, v in got.items() if k not in c.get("unheld", ())}
        p = "%s/w%g%s" % (c["name"], w, "p" if peft_dora else "")
        item = {"weight": w, "prefix": p}
        if peft_dora:
            item["rule"] = "peft"
        for k, v in want.items():
            T["%s/%s" % (p, k)] = v.float()
        if got is not None:
            err = max(max_rel(got[k], want[k]) for k in got)
            worst = max(worst, err)
            item["f64_rel"] = float("%.2g" % err)
            for k, v in got.items():
                T["%s/%s_lib" % (p, k)] = v
        cases.append(item)
    effect = {k: float("%.2g" % max_rel(T["%s/%s" % (cases[0]["prefix"], k)], T["base/" + k])) for k in want}
    paths = [c["file"]] + c.get("second", [])
    size = sum(os.path.getsize(os.path.join(p, f)) for p in paths if os.path.isdir(p) for f in os.listdir(p)) + \
        sum(os.path.getsize(p) for p in paths if os.path.isfile(p))
    for p in paths:
        for f in ([os.path.join(p, x) for x in os.listdir(p)] if os.path.isdir(p) else [p]):
            os.chmod(f, 0o644)
    item = {"name": c["name"], "path": rel_path(c["file"]), "model": c["model"], "family": c["family"], "dialect": c["dialect"], "by": c["by"],
            "modules": len(c["entries"]), "unet": comps.count("unet"), "text": len(comps) - comps.count("unet")}
    for k in ("ignored", "words", "kind", "refused"):
        if k in c:
            item[k] = c[k]
    if c["note"]:
        item["note"] = c["note"]
    item["cases"] = cases
    print("%-26s %-10s %2d modules %6d bytes  library-f64 %s  effect %s%s" % (c["name"], c["by"], len(c["entries"]), size,
          [i.get("f64_rel") for i in cases], list(effect.values()), "   <<<<<<" if worst > 1e-5 or min(effect.values()) < 1e-2 else ""), flush=True)
    return item


def mix(m, made, pipes, T):
    model = made[m[0][0]]["model"]
    t = {k: v for k, v in T[model].items() if k.startswith("in/")}
    files = [(made[n]["entries"], w, False) for n, w in m]
    comps = {k[0] for e, _, _ in files for k in e}
    p = "mixed/" + "+".join(n for n, _ in m)
    for k, v in exact(pipes[model], t, "unet" in comps, len(comps - {"unet"}) > 0, *files).items():
        T[model]["%s/%s" % (p, k)] = v.float()
    return {"model": model, "prefix": p, "files": [{"name": n, "weight": w} for n, w in m]}


def dense(entries, pipe):
    """A file's UNet deltas as entries of compose.py: rank `out`, the identity times the whole difference, in f64."""
    out = {}
    for (c, m), e in entries.items():
        layer = lora.layer_of(pipe, c, m)
        b = getattr(layer, "bias", None)
        d, _ = change({k: v.double() for k, v in e.items() if k != "conf"}, layer.weight.data.double(),
                      None if b is None else b.data.double(), e["conf"])
        out[(c, m)] = {"A": d.reshape(d.shape[0], -1), "B": torch.eye(d.shape[0], dtype=torch.float64), "alpha": None, "rs": False}
    return out


def by_method(m, made, pipes, T):
    """K-LoRA and composite over families that are not LoRA: the prediction of each call, in f64."""
    files = [made[f["name"]] for f in m["files"]]
    model = files[0]["model"]
    pipe, N = pipes[model], m["calls"]
    t = {k: v for k, v in T[model].items() if k.startswith("in/")}
    entries = [{k: e for k, e in f["entries"].items() if k[0] == "unet"} for f in files]
    ads = [compose.Adapter(f["name"], dense(e, pipe), f["weight"]) for f, e in zip(m["files"], entries)]
    prefix = "%s/%s" % (m["method"], "+".join(a.name for a in ads))
    plan = compose.KLora(ads, compose.unet_order(pipe), **m["options"]) if m["method"] == "klora" else compose.Composite(ads)
    seen = []
    for n in range(N):
        total = 0
        for branch in range(plan.branches):
            cell = (lambda x: plan.layer_cell(n, N, x)) if m["method"] == "klora" else (lambda x: plan.cell(n, N, branch))
            act = [({k: v for k, v in e.items() if cell(k[1])[i] != 0}, ads[i].weight, False) for i, e in enumerate(entries)]
            seen.append([len(a[0]) for a in act])
            total = total + plan.shares()[branch] * exact(pipe, t, True, False, *act)["unet"]
        T[model]["%s/%d" % (prefix, n)] = total.float()
    if m["method"] == "klora":
        near = min(abs(r - plan.S(plan.tau(n, N, i + 1))) for n in range(N) for i, r in enumerate(plan.rho) if plan.S_c[i] and plan.S_s[i])
        assert near > 1e-3, "a choice hangs on rounding: %g" % near
    print("%-40s modules of each: %s" % (prefix, seen), flush=True)
    return {"method": m["method"], "model": model, "prefix": prefix, "calls": N, "files": m["files"], "options": m["options"]}


if __name__ == "__main__":
    main()
