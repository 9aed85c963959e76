"""LoRA factors apart from any file format: make them, name them in each dialect, read them back, merge them.

The reader and the merge are written from the format description alone and share nothing with PEFT; make_adapters.py
holds them against diffusers and PEFT, compose.py builds on them.

    Entry = (component, module) -> {"A": [r, in, (k, k)], "B": [out, r, (1, 1)], "alpha": float or None, "rs": bool}
"""
import json
import os
import re

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

ATTN = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_ATTN = ("q_proj", "k_proj", "v_proj", "out_proj")


def group(name, module):
    if name.endswith(ATTN) and (".attn1." in name or ".attn2." in name):
        return "attn"
    if ".ff.net." in name:
        return "ff"
    if name.endswith(("proj_in", "proj_out")):
        return "proj"
    if ".resnets." in name or "samplers." in name:
        return "conv"
    if name.endswith(TEXT_ATTN):
        return "attn"
    if name.endswith((".fc1", ".fc2")):
        return "mlp"
    return "extra"


def targets(net, groups, only=None):
    """(name, layer) of every linear and convolution of the wanted groups, in module order."""
    out = []
    for n, m in net.named_modules():
        if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) and group(n, m) in groups and (only is None or re.search(only, n)):
            out.append((n, m))
    return out


def factors(layer, r, g, strength):
    """B A has the size of strength times a fresh weight; the file's scale is divided out by the caller."""
    w = layer.weight
    fan = w[0].numel()
    a = torch.randn((r,) + tuple(w.shape[1:]), generator=g) / fan ** 0.5
    b = torch.randn((w.shape[0], r) + ((1, 1) if w.ndim == 4 else ()), generator=g) * strength / r ** 0.5
    return a, b


def make(net, component, groups, rank, alpha, seed, only=None, dtype=torch.float32, strength=0.25):
    """rank and alpha: a number, None (alpha left out), or a function of the module's name."""
    g = torch.Generator("cpu").manual_seed(seed)
    out = {}
    for n, m in targets(net, groups, only):
        r = rank(n) if callable(rank) else rank
        al = alpha(n) if callable(alpha) else alpha
        a, b = factors(m, r, g, strength * (r / al if al else 1))
        out[(component, classic(component, n))] = {"A": a.to(dtype), "B": b.to(dtype), "alpha": al, "rs": False}
    return out


def classic(component, name):
    """Module names as the published formats use them: text modules with `text_model.`"""
    if component.startswith("text_encoder") and not name.startswith("text_"):
        return "text_model." + name
    return name


def scale(e):
    r = e["A"].shape[0]
    al = r if e["alpha"] is None else e["alpha"]
    return al / r ** 0.5 if e["rs"] else al / r


def delta(e, weight_shape=None):
    """alpha/r B A in f64, in the base weight's shape."""
    a, b = e["A"].double(), e["B"].double()
    d = scale(e) * (b.reshape(b.shape[0], -1) @ a.reshape(a.shape[0], -1))
    if weight_shape is None:
        weight_shape = (b.shape[0],) + tuple(a.shape[1:])
    return d.reshape(weight_shape)


def layer_of(pipe, component, module):
    net = getattr(pipe, component)
    names = dict(net.named_modules())
    return names[module] if module in names else names[module.removeprefix("text_model.")]


class merged:
    """with merged(pipe, entries, weight): ...  adds the deltas to weights that are already f64, and takes them off after."""

    def __init__(self, pipe, *pairs):
        self.pipe, self.pairs = pipe, pairs

    def __enter__(self):
        self.keep = {}
        for entries, weight in self.pairs:
            for (c, m), e in entries.items():
                w = layer_of(self.pipe, c, m).weight
                assert w.dtype == torch.float64
                self.keep.setdefault((c, m), (w, w.data.clone()))
                w.data += weight * delta(e, w.shape)
        return self

    def __exit__(self, *a):
        for w, old in self.keep.values():
            w.data.copy_(old)


# ---------------------------------------------------------------- names

def sgm_name(module, layers_per_block, attention_up):
    """diffusers UNet module -> LDM/SGM module, the rule of the published block tables."""
    L = layers_per_block + 1
    res = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
           "norm1": "in_layers.0", "norm2": "out_layers.0"}
    p = module.split(".")
    if p[0] == "down_blocks":
        i, kind, j, rest = int(p[1]), p[2], int(p[3]), p[4:]
        if kind == "downsamplers":
            return "input_blocks.%d.0.op" % (L * (i + 1))
        slot = "0" if kind == "resnets" else "1"
        head = "input_blocks.%d.%s" % (L * i + j + 1, slot)
    elif p[0] == "mid_block":
        kind, j, rest = p[1], int(p[2]), p[3:]
        head = "middle_block.%d" % (1 if kind == "attentions" else 2 * j)
    elif p[0] == "up_blocks":
        i, kind, j, rest = int(p[1]), p[2], int(p[3]), p[4:]
        if kind == "upsamplers":
            return "output_blocks.%d.%d.conv" % (L * i + L - 1, 2 if attention_up[i] else 1)
        head = "output_blocks.%d.%s" % (L * i + j, "0" if kind == "resnets" else "1")
    else:
        return {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
                "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
                "add_embedding.linear_2": "label_emb.0.2"}[module]
    if kind == "resnets":
        rest = [res[".".join(rest)]]
    return head + "." + ".".join(rest)


def kohya_key(component, module, sdxl, sgm=None):
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te1_" if sdxl else "lora_te_", "text_encoder_2": "lora_te2_"}[component]
    name = sgm(module) if sgm and component == "unet" else module
    return prefix + name.replace(".", "_")


def write_kohya(path, entries, sdxl=False, sgm=None, square=False, meta=None):
    """square: store 1x1 convolution factors 2-D, as some trainers do."""
    t = {}
    for (c, m), e in entries.items():
        k = kohya_key(c, m, sdxl, sgm)
        a, b = e["A"], e["B"]
        if square and a.ndim == 4 and a.shape[-1] == 1:
            a, b = a[:, :, 0, 0], b[:, :, 0, 0]
        t[k + ".lora_down.weight"], t[k + ".lora_up.weight"] = a.contiguous(), b.contiguous()
        if e["alpha"] is not None:
            t[k + ".alpha"] = torch.tensor(e["alpha"], dtype=a.dtype)
    save_file(t, path, metadata=meta)


def write_old(path, entries, style):
    """The pre-PEFT diffusers spellings. `style`: dotted | processor | doubled | te_processor | alpha"""
    t = {}
    for (c, m), e in entries.items():
        if c == "unet":
            attn = re.sub(r"\.(to_q|to_k|to_v|to_out\.0)$", "", m)
            leaf = m[len(attn) + 1:].replace("to_out.0", "to_out")
            if style == "processor":
                k = "%s.processor.%s_lora.%%s.weight" % (attn, leaf)
            elif style == "te_processor":
                k = "unet.%s.processor.%s_lora.%%s.weight" % (attn, leaf)
            elif style == "doubled":
                k = "unet.unet.%s.lora.%%s.weight" % m
            else:
                k = "unet.%s.lora.%%s.weight" % m
        elif style == "te_processor" and m.endswith(TEXT_ATTN):
            head, leaf = m.rsplit(".", 1)
            k = "%s.%s.%s_lora.%%s.weight" % (c, head, {"out_proj": "to_out"}.get(leaf, "to_" + leaf[0]))
        else:
            k = "%s.%s.lora_linear_layer.%%s.weight" % (c, m)
        t[k % "down"], t[k % "up"] = e["A"].contiguous(), e["B"].contiguous()
        if style == "alpha":
            t["%s.%s.alpha" % (c, m)] = torch.tensor(e["alpha"], dtype=e["A"].dtype)
    save_file(t, path)


# ---------------------------------------------------------------- reading (content, style and the rest, for compose.py)

def module_names(pipe):
    """underscore name -> (component, module), both kohya spellings, for this very model."""
    out = {}
    xl = getattr(pipe, "text_encoder_2", None) is not None
    cfg = pipe.unet.config
    up = ["CrossAttn" in t for t in cfg.up_block_types]
    for n, m in pipe.unet.named_modules():
        if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)):
            out[kohya_key("unet", n, xl)] = ("unet", n)
            out[kohya_key("unet", n, xl, lambda x: sgm_name(x, cfg.layers_per_block, up))] = ("unet", n)
    for c in ("text_encoder", "text_encoder_2"):
        net = getattr(pipe, c, None)
        for n, m in net.named_modules() if net is not None else ():
            if isinstance(m, torch.nn.Linear):
                out[kohya_key(c, classic(c, n), xl)] = (c, classic(c, n))
    return out


def read(path, pipe):
    """Any of the dialects above, or a PEFT folder -> entries (factors as stored, widened to f32)."""
    config = None
    if os.path.isdir(path):
        with open(os.path.join(path, "adapter_config.json")) as f:
            config = json.load(f)
        path = os.path.join(path, "adapter_model.safetensors")
    t = load_file(path)
    with safe_open(path, "pt") as f:
        meta = f.metadata() or {}
    meta = json.loads(meta["lora_adapter_metadata"]) if "lora_adapter_metadata" in meta else {}
    names = module_names(pipe)
    out = {}
    for k, v in t.items():
        m = re.match(r"(.*?)[._]lora(?:_linear_layer)?[._](down|up|A|B)\.(?:default\.)?weight$", k)
        if not m:
            a = re.match(r"(.*)\.alpha$", k)
            assert a, k
            continue
        head, side = m.group(1), {"down": "A", "up": "B"}.get(m.group(2), m.group(2))
        alpha = t.get(head + ".alpha")
        rs = False
        if head in names:
            key = names[head]
        else:
            head = head.removeprefix("base_model.model.")
            while head.startswith("unet."):
                head = head[5:]
            c = "unet"
            for te in ("text_encoder_2", "text_encoder"):
                if head.startswith(te + "."):
                    c, head = te, head[len(te) + 1:]
            if config is not None and head.removeprefix("text_model.").startswith("encoder."):
                c = "text_encoder"
            head = head.replace(".processor.", ".")
            if c == "unet":
                head = re.sub(r"\.to_out$", ".to_out.0", head)
            else:
                head = re.sub(r"\.to_(q|k|v)$", r".\1_proj", re.sub(r"\.to_out$", ".out_proj", head))
            alpha = t.get("%s.%s.alpha" % (c, head), alpha)
            conf, pre = (config, "") if config is not None else (meta, c + ".")
            if conf.get(pre + "r") is not None:
                alpha = conf[pre + "lora_alpha"]
                for pat, al in (conf.get(pre + "alpha_pattern") or {}).items():
                    if re.match(r"(.*\.)?(%s)$" % pat, head):
                        alpha = al
                rs = bool(conf.get(pre + "use_rslora"))
            key = (c, classic(c, head))
        e = out.setdefault(key, {"alpha": None, "rs": rs})
        e[side] = v.float()
        if alpha is not None:
            e["alpha"] = float(alpha)
    return out
