"""Gradients of what is trained, through the whole UNet of the tiny models: DoRA, LoHa and LoKr by PEFT, the rest by torch.

    python make_train_forms.py          writes golden/train_forms_<model>.safetensors

Tensors are set in the middle of a training, none of them zero. The loss is mean((UNet(x, t, text) - target)^2) on the
case "times" of nets_<model>.safetensors (two samples, two times). All is computed in f64 and stored as f32.

    target
    <form>/<module>/<tensor>         its value, as lib/train lays it out: matrices (rows, columns), the columns of a
                                     convolution ordered (ky, kx, in), up factors transposed
    <form>/<module>/<tensor>/grad    its gradient
    <form>/out                       what the UNet gave
    <form>/choice                    rank, alpha, factor, exact norm, both factors
"""
import math
import warnings

import common
import torch
from common import MODELS, in_f64, load, noise, pipeline, store, versions

BLOCK = "up_blocks.1.attentions.0.transformer_blocks.0."
LAYERS = ["conv_in", "time_embedding.linear_1", "down_blocks.0.resnets.0.conv1", "down_blocks.1.resnets.0.time_emb_proj",
          "down_blocks.1.resnets.0.conv_shortcut", "down_blocks.0.downsamplers.0.conv", "mid_block.attentions.0.proj_in",
          BLOCK + "attn1.to_q", BLOCK + "attn1.to_out.0", BLOCK + "attn2.to_k", BLOCK + "attn2.to_v", BLOCK + "ff.net.0.proj"]
NORMS = ["down_blocks.0.resnets.0.norm1", "mid_block.attentions.0.norm", BLOCK + "norm2", "conv_norm_out"]
PREFIXES = {"dora": "lora_", "loha": "hada_", "lokr": "lokr_"}


def ordered(t):
    """(rows, in, ky, kx) as (rows, ky kx in); what has two dimensions stays."""
    return t.permute(0, 2, 3, 1).reshape(t.shape[0], -1) if t.ndim == 4 else t


def flat_ordered(t, layer):
    """PEFT's flat factor (r, in ky kx) as (r, ky kx in)."""
    k = layer.weight.shape[2:]
    return ordered(t.reshape(t.shape[0], -1, *k)) if len(k) else t


def scatter(named, seed):
    """Uniform numbers of the size of a fresh weight into each parameter, beside what is there."""
    for i, (name, p) in enumerate(named):
        g = torch.Generator("cpu").manual_seed(seed + i)
        size = 0.2 if "magnitude" in name else 0.7 / math.sqrt(max(p[0].numel(), 1))
        p.data += (torch.rand(p.shape, generator=g, dtype=torch.float32) * 2 - 1).to(p.dtype) * size
        p.data = p.data.float().to(p.dtype) # what the file holds is what was computed with


def run(net, inputs, target, named):
    with torch.enable_grad():
        out = net(**inputs).sample
        grads = torch.autograd.grad(((out - target) ** 2).mean(), [p for _, p in named])
    return out, grads


def inputs_of(model):
    t = load("nets_%s.safetensors" % model)
    case = {k.split("/")[2]: v.double() for k, v in t.items() if k.startswith("unet/times/")}
    x = {"sample": case["sample"], "timestep": case["timestep"], "encoder_hidden_states": case["context"]}
    extra = {k: case[k] for k in ("text_embeds", "time_ids") if k in case}
    if extra:
        x["added_cond_kwargs"] = extra
    return x, noise(77, *case["sample"].shape).double()


def put(tensors, form, module, name, value, grad):
    for ending, t in (("", value), ("/grad", grad)):
        tensors["%s/%s/%s%s" % (form, module, name, ending)] = t.float()


def by_peft(form, pipe, model, config, choice, tensors, seed):
    from peft import inject_adapter_in_model
    kind = form.split("_")[0]
    net = pipe.unet
    config.target_modules = [n for n in LAYERS]
    inject_adapter_in_model(config, net)
    layers = {n: m for n, m in net.named_modules() if hasattr(m, "base_layer")}
    assert sorted(layers) == sorted(LAYERS), sorted(layers)
    x, target = inputs_of(model)

    def compute():
        named = [(n, p) for n, p in net.named_parameters() if PREFIXES[kind] in n]
        for p in net.parameters():
            p.requires_grad_(False)
        for _, p in named:
            p.requires_grad_(True)
        scatter(named, seed)
        return named, run(net, x, target, named)
    named, (out, grads) = in_f64(compute, net)
    for (name, p), g in zip(named, grads):
        module = next(n for n in LAYERS if name.startswith(n + "."))
        tensor = name[len(module) + 1:].split(".")[0]
        base = layers[module].base_layer
        v, g = p.detach(), g.detach()
        if tensor == "lora_A":
            v, g = ordered(v), ordered(g)
        elif tensor == "lora_B":
            v, g = v.flatten(1).T, g.flatten(1).T
        elif tensor == "lora_magnitude_vector":
            tensor, v, g = "lengths", v.flatten(), g.flatten()
        elif tensor in ("hada_w1_b", "hada_w2_b"):
            tensor, v, g = tensor[5:], flat_ordered(v, base), flat_ordered(g, base)
        elif tensor == "lokr_w2_b":
            tensor, v, g = tensor[5:], flat_ordered(v, base), flat_ordered(g, base)
        elif tensor.startswith(("hada_", "lokr_")):
            tensor, v, g = tensor[5:], ordered(v), ordered(g)
        put(tensors, form, module, tensor, v.contiguous(), g.contiguous())
    tensors[form + "/out"] = out.detach().float()
    tensors[form + "/choice"] = torch.tensor(choice, dtype=torch.float32)


def by_torch(form, pipe, model, weight_of, tensors_of, choice, tensors, seed):
    """Layers whose weight is a function of the form's own tensors."""
    net = pipe.unet
    x, target = inputs_of(model)
    modules = dict(net.named_modules())

    def compute():
        named, made = [], {}
        for p in net.parameters():
            p.requires_grad_(False)
        for n in LAYERS:
            made[n] = tensors_of(modules[n].weight.detach())
            named += [("%s/%s" % (n, k), v) for k, v in made[n].items()]
        scatter(named, seed)
        for _, p in named:
            p.requires_grad_(True)
        with torch.enable_grad():
            weights = {n + ".weight": weight_of(modules[n].weight, made[n]) for n in LAYERS}
            out = torch.func.functional_call(net, weights, kwargs=x).sample
            grads = torch.autograd.grad(((out - target) ** 2).mean(), [p for _, p in named])
        return named, out, grads
    named, out, grads = in_f64(compute, net)
    for (name, p), g in zip(named, grads):
        module, tensor = name.rsplit("/", 1)
        turn = (lambda t: t.T) if tensor == "lora_B" else ordered
        put(tensors, form, module, tensor, turn(p.detach()).contiguous(), turn(g).contiguous())
    tensors[form + "/out"] = out.detach().float()
    tensors[form + "/choice"] = torch.tensor(choice, dtype=torch.float32)


def pair(W, r, mixer):
    t = {"lora_A": torch.zeros(r, *W.shape[1:], dtype=W.dtype), "lora_B": torch.zeros(W.shape[0], r, dtype=W.dtype)}
    t.update({"mixer": torch.zeros(r, r, dtype=W.dtype)} if mixer else {"lengths": W.flatten(1).norm(dim=1)})
    return t


def exact_dora(scale):
    def weight(W, t):
        V = W + scale * (t["lora_B"] @ t["lora_A"].flatten(1)).reshape(W.shape)
        f = t["lengths"] / V.flatten(1).norm(dim=1)
        return V * f.reshape(-1, *[1] * (W.ndim - 1))
    return weight


def moslora(scale):
    return lambda W, t: W + scale * (t["lora_B"] @ t["mixer"] @ t["lora_A"].flatten(1)).reshape(W.shape)


def full(pipe, model, tensors, seed):
    net = pipe.unet
    x, target = inputs_of(model)

    def compute():
        for p in net.parameters():
            p.requires_grad_(False)
        named = [(n, p) for n, p in net.named_parameters() if n.rsplit(".", 1)[0] in LAYERS + NORMS]
        scatter(named, seed)
        for _, p in named:
            p.requires_grad_(True)
        return named, run(net, x, target, named)
    named, (out, grads) = in_f64(compute, net)
    for (name, p), g in zip(named, grads):
        module, tensor = name.rsplit(".", 1)
        put(tensors, "full", module, tensor, ordered(p.detach()), ordered(g))
    tensors["full/out"] = out.detach().float()
    tensors["full/choice"] = torch.tensor([1, 1, -1, 0, 0], dtype=torch.float32)


def main():
    from peft import LoHaConfig, LoKrConfig, LoraConfig
    warnings.filterwarnings("ignore")
    for model, every in (("tiny-sd1", True), ("tiny-sdxl", False)):
        tensors = {"target": inputs_of(model)[1].float()}
        fresh = lambda: pipeline("%s/%s" % (MODELS, model))
        by_peft("dora", fresh(), model, LoraConfig(r=2, lora_alpha=3, use_dora=True), [2, 3, -1, 0, 0], tensors, 100)
        full(fresh(), model, tensors, 600)
        if every:
            by_torch("dora_exact", fresh(), model, exact_dora(1.5), lambda W: pair(W, 2, False), [2, 3, -1, 1, 0], tensors, 200)
            by_torch("moslora", fresh(), model, moslora(0.5), lambda W: pair(W, 4, True), [4, 2, -1, 0, 0], tensors, 300)
        by_peft("loha", fresh(), model, LoHaConfig(r=2, alpha=1), [2, 1, -1, 0, 0], tensors, 400)
        by_peft("lokr", fresh(), model, LoKrConfig(r=1, alpha=2, decompose_factor=-1, decompose_both=True), [1, 2, -1, 0, 1],
                tensors, 500)
        path = store("train_forms_%s.safetensors" % model, tensors, versions())
        print(path, len(tensors), sum(t.numel() for t in tensors.values()) * 4)


if __name__ == "__main__":
    main()
