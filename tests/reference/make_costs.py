"""Goldens of what a call costs, counted by hooks on diffusers' UNets: operations, bytes of weights and of activations, of one
sample; the same of the outermost level alone; and for adapters their products, bytes and norms.

    python make_costs.py           writes golden/costs.json
"""
import os

import lora
import torch
from common import ADAPTERS, MODELS, pipeline, rel_path, versions, write_json
from safetensors import safe_open

H, W, TOKENS = 6, 8, 77
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def outermost(name, last):
    """Is the module of what an evaluation with reused features computes?"""
    down = name.startswith("down_blocks.0.") and "downsamplers" not in name
    return down or name.startswith(("conv_", "time_embedding", "add_embedding", "up_blocks.%d." % last))


def count(unet, dtypes, inputs):
    """name -> [flops, weight bytes, activation bytes, rows] of one evaluation of one sample; attentions as name + '/attend'."""
    seen, sizes = {}, {}

    def layer(name, m):
        def hook(_, args, out):
            x = args[0]
            if isinstance(m, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
                c = m.weight.numel()
                seen[name] = [0, 8 * c, 4 * (x.numel() + out.numel()), 0]
                return
            rows, k = out.numel() // m.weight.shape[0], m.weight[0].numel()
            size = m.weight.numel() * BYTES[dtypes[name + ".weight"]] + (4 * m.bias.numel() if m.bias is not None else 0)
            wrote = out.numel() // 2 if name.endswith("ff.net.0.proj") else out.numel()  # weft writes value * gelu(gate)
            seen[name] = [2 * rows * k * m.weight.shape[0], size, 4 * (x.numel() + wrote), rows]
            sizes[name] = out.shape
        return hook

    hooks = [m.register_forward_hook(layer(n, m)) for n, m in unet.named_modules()
             if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm))]
    unet(**inputs)
    for h in hooks:
        h.remove()
    for n, q in list(sizes.items()):
        if n.endswith(".to_q"):
            at, k = n.removesuffix(".to_q"), sizes[n.removesuffix("q") + "k"]
            seen[at + "/attend"] = [4 * q[1] * k[1] * q[2], 0, 4 * 2 * (q[1] + k[1]) * q[2], 0]
    return seen


def adapter(entries, seen):
    flops = size = square = 0
    for (component, module), e in entries.items():
        if component != "unet":
            continue
        a, b = e["A"], e["B"]
        flops += 2 * seen[module][3] * a.shape[0] * (a[0].numel() + b.shape[0])
        size += 4 * (a.numel() + b.numel())
        square += (lora.delta(e) ** 2).sum().item()
    return {"side_flops": flops, "factor_bytes": size, "norm": square ** 0.5}


def entry(name, adapters):
    folder = os.path.join(MODELS, name)
    pipe = pipeline(folder)
    unet = pipe.unet
    weights = os.path.join(folder, "unet", "diffusion_pytorch_model.safetensors")
    with safe_open(weights, "pt") as f:
        dtypes = {k: f.get_slice(k).get_dtype() for k in f.keys()}
    inputs = {"sample": torch.randn(1, 4, H, W), "timestep": torch.tensor([500]),
              "encoder_hidden_states": torch.randn(1, TOKENS, unet.config.cross_attention_dim)}
    if unet.config.addition_embed_type == "text_time":
        pooled = unet.add_embedding.linear_1.in_features - 6 * unet.config.addition_time_embed_dim
        inputs["added_cond_kwargs"] = {"text_embeds": torch.randn(1, pooled), "time_ids": torch.zeros(1, 6)}
    seen = count(unet, dtypes, inputs)
    last = len(unet.up_blocks) - 1
    total = lambda which: dict(zip(("flops", "weight_bytes", "activation_bytes"),
                                   (sum(v[i] for n, v in seen.items() if which(n)) for i in range(3))))
    paths = {n: os.path.join(ADAPTERS, n + ".safetensors") for n in adapters}
    return {"model": rel_path(folder), "height": H, "width": W, "tokens": TOKENS, "all": total(lambda n: True),
            "outermost": total(lambda n: outermost(n, last)),
            "adapters": {rel_path(p): adapter(lora.read(p, pipe), seen) for p in paths.values()}}


def main():
    write_json("costs.json", {"versions": versions(), "models": [entry("tiny-sd1", ("content", "style", "sd1_kohya_conv")),
                                                                entry("tiny-sdxl", ("sdxl_kohya",))]})


if __name__ == "__main__":
    main()
