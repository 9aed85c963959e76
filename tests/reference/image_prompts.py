"""Tiny random IP-Adapters and image encoders, in the names of the published files; and their rows by diffusers.

    encoder(folder, seed)                         a CLIPVisionModelWithProjection, saved
    adapter(unet, kind, features, seed)           {"image_proj": .., "ip_adapter": ..} as a .bin nests it
    load(pipe, dicts)                             into the UNet, as load_ip_adapter() does
"""
import os

import torch
from common import DATA
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

HOME = os.path.join(DATA, "image_prompts")
SIDE, HIDDEN, POOLED, INNER, ROWS = 32, 32, 24, 128, 6


def fill(gen, *shape, scale=None):
    scale = shape[-1] ** -0.5 if scale is None else scale
    return (torch.randn(*shape, generator=gen) * scale).half().float()


def encoder(folder, seed, **other):
    """As the published ones are made, with numbers that f16 holds."""
    gen = torch.Generator().manual_seed(seed)
    sizes = dict(hidden_size=HIDDEN, intermediate_size=48, projection_dim=POOLED, num_hidden_layers=3, num_attention_heads=4, image_size=SIDE, patch_size=8)
    net = CLIPVisionModelWithProjection(CLIPVisionConfig(**dict(sizes, **other))).eval()
    for name, v in net.state_dict().items():
        if v.is_floating_point():
            v.copy_(fill(gen, *v.shape, scale=0.05 if v.dim() == 1 and "class" not in name else 0.25) + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    os.makedirs(folder, exist_ok=True)
    net.half().save_pretrained(folder)
    return net.float()


def norm(gen, width):
    return (1 + fill(gen, width, scale=0.1)).half().float(), fill(gen, width, scale=0.1)


def adapter(unet, kind, seed):
    gen, cross = torch.Generator().manual_seed(seed), unet.config.cross_attention_dim
    p, k, n = {}, {}, 1
    if kind == "base":
        p["proj.weight"], p["proj.bias"] = fill(gen, 4 * cross, POOLED), fill(gen, 4 * cross, scale=0.1)
        p["norm.weight"], p["norm.bias"] = norm(gen, cross)
    elif kind == "full":
        p["proj.0.weight"], p["proj.0.bias"] = fill(gen, HIDDEN, HIDDEN), fill(gen, HIDDEN, scale=0.1)
        p["proj.2.weight"], p["proj.2.bias"] = fill(gen, cross, HIDDEN), fill(gen, cross, scale=0.1)
        p["proj.3.weight"], p["proj.3.bias"] = norm(gen, cross)
    else:
        d = HIDDEN
        p["latents"] = fill(gen, 1, ROWS, d)
        p["proj_in.weight"], p["proj_in.bias"] = fill(gen, d, HIDDEN), fill(gen, d, scale=0.1)
        p["proj_out.weight"], p["proj_out.bias"] = fill(gen, cross, d), fill(gen, cross, scale=0.1)
        p["norm_out.weight"], p["norm_out.bias"] = norm(gen, cross)
        for i in range(4):
            at = "layers.%d." % i
            for one in "0.norm1", "0.norm2", "1.0":
                p[at + one + ".weight"], p[at + one + ".bias"] = norm(gen, d)
            p[at + "0.to_q.weight"], p[at + "0.to_kv.weight"] = fill(gen, INNER, d), fill(gen, 2 * INNER, d)
            p[at + "0.to_out.weight"] = fill(gen, d, INNER)
            p[at + "1.1.weight"], p[at + "1.3.weight"] = fill(gen, 4 * d, d), fill(gen, d, 4 * d)
    for name in unet.attn_processors:
        if not name.endswith("attn2.processor"):
            continue
        width = unet.get_submodule(name[:-len(".processor")]).to_k.out_features
        k["%d.to_k_ip.weight" % n], k["%d.to_v_ip.weight" % n] = fill(gen, width, cross), fill(gen, width, cross)
        n += 2
    return {"image_proj": p, "ip_adapter": k}


def store_adapter(path, d, nested=False):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    half = lambda part: {n: v.half().contiguous() for n, v in d[part].items()}
    if nested:
        torch.save({part: half(part) for part in d}, path)
    else:
        save_file({"%s.%s" % (part, n): v for part in d for n, v in half(part).items()}, path)
    os.chmod(path, 0o644)


def load(pipe, dicts):
    pipe.unet._load_ip_adapter_weights(dicts, low_cpu_mem_usage=False)
    return pipe.unet.encoder_hid_proj.image_projection_layers


def pairs(unet, d):
    """{name of an attn2: (keys, values)} in the order of the file."""
    names = [n[:-len(".processor")] for n in unet.attn_processors if n.endswith("attn2.processor")]
    return {n: (d["ip_adapter"]["%d.to_k_ip.weight" % (2 * i + 1)], d["ip_adapter"]["%d.to_v_ip.weight" % (2 * i + 1)]) for i, n in enumerate(names)}
