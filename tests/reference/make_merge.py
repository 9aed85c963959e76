"""Adapters merged into one, by PEFT's add_weighted_adapter on tiny-sd1's UNet.

    python make_merge.py        writes golden/merge.json, golden/merge.safetensors

Stored of each case: what the merged adapter adds to some layers, in the weight's own shape, and the UNet's output with it.
DARE draws at random in torch, so there PEFT's operators are asked with draws of ours, restated here; its sums and elections
are PEFT's own. The null-space projection is a concatenation of PEFT's after the factors have given way, with a basis by QR.
"""
import struct

import lora
import peft.utils.merge_utils as operators
import torch
from common import ADAPTERS, rel_path, store, versions, write_json
from make_families import inputs, model_of, outputs, untouched
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, LoraModel

MODEL = "tiny-sd1"
FILES = {n: "%s/%s" % (ADAPTERS, n + ("" if n == "third" else ".safetensors"))
         for n in ("content", "style", "third", "sd1_new", "sd1_kohya_conv", "sd1_new_conv", "sd1_kohya_varied")}
ATTN = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"]
CONV = ["down_blocks.0.resnets.0.conv1", "mid_block.resnets.1.conv2", "down_blocks.0.attentions.0.proj_in", "up_blocks.0.resnets.0.conv_shortcut"]

# name, PEFT's combination_type, adapters with weights, options
THREE = [("content", 0.7), ("style", 0.3), ("third", -0.5)]
EQUAL = [("content", 0.7), ("sd1_new", 0.4)]
CONVS = [("sd1_kohya_conv", 0.8), ("sd1_new_conv", -0.6)]
CASES = [
    ("cat", "cat", THREE, {}, ATTN),
    ("cat_conv", "cat", CONVS, {}, CONV),
    ("linear", "linear", [("content", 0.7), ("sd1_new", -0.4)], {}, ATTN),
    ("ties", "ties", EQUAL, {"density": 0.65}, ATTN),
    ("ties_frequency", "ties", EQUAL, {"density": 0.55, "majority": "frequency"}, ATTN),
    ("prune", "magnitude_prune", EQUAL, {"density": 0.55}, ATTN),
    ("svd", "svd", THREE, {"rank": 4}, ATTN),
    ("svd_conv", "svd", CONVS, {"rank": 3}, CONV),
    ("svd_varied", "svd", [("sd1_kohya_varied", 0.8), ("content", 0.5)], {"rank": 5}, ATTN),
    ("ties_svd", "ties_svd", THREE, {"rank": 5, "density": 0.4}, ATTN),
    ("ties_svd_frequency", "ties_svd", THREE, {"rank": 3, "density": 0.7, "majority": "frequency"}, ATTN),
    ("ties_svd_conv", "ties_svd", CONVS, {"rank": 4, "density": 0.5}, CONV),
    ("prune_svd", "magnitude_prune_svd", THREE, {"rank": 4, "density": 0.3}, ATTN),
    ("dare", "dare_linear", EQUAL, {"density": 0.6, "seed": 3}, ATTN),
    ("dare_ties", "dare_ties", EQUAL, {"density": 0.6, "seed": 3, "majority": "total"}, ATTN),
    ("dare_svd_conv", "dare_linear_svd", CONVS, {"rank": 4, "density": 0.5, "seed": 11}, CONV),
    ("dare_ties_svd", "dare_ties_svd", THREE, {"rank": 4, "density": 0.7, "seed": 2 ** 63 + 5, "majority": "frequency"}, ATTN),
    ("null_space", "null_space", [("content", 0.7), ("style", 0.9)], {}, ATTN),
    ("null_space_conv", "null_space", CONVS, {"strength": 2.0, "fixed": 0}, CONV),
    ("null_space_three", "null_space", THREE, {"strength": "hard", "fixed": 1}, ATTN),
]


# ---------------------------------------------------------------- the draws of DARE, from their description

ALL = 2 ** 64 - 1


def mix(x):
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 & ALL
    x = (x ^ x >> 27) * 0x94d049bb133111eb & ALL
    return x ^ x >> 31


def sip13(key, data):
    """SipHash-1-3 under the key (key, ~key)."""
    rot = lambda x, n: (x << n | x >> 64 - n) & ALL
    v = [key ^ 0x736f6d6570736575, key ^ ALL ^ 0x646f72616e646f6d, key ^ 0x6c7967656e657261, key ^ ALL ^ 0x7465646279746573]

    def round():
        v[0] = v[0] + v[1] & ALL; v[1] = rot(v[1], 13) ^ v[0]; v[0] = rot(v[0], 32)
        v[2] = v[2] + v[3] & ALL; v[3] = rot(v[3], 16) ^ v[2]
        v[0] = v[0] + v[3] & ALL; v[3] = rot(v[3], 21) ^ v[0]
        v[2] = v[2] + v[1] & ALL; v[1] = rot(v[1], 17) ^ v[2]; v[2] = rot(v[2], 32)
    words = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 255])
    for (w,) in struct.iter_unpack("<Q", words):
        v[3] ^= w
        round()
        v[0] ^= w
    v[2] ^= 255
    for _ in range(3):
        round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


class Draws:
    """In the place of PEFT's random_pruning: the k-th tensor that is asked is that of the k-th source at a layer."""

    def __init__(self, seed, density, what, sources):
        self.seed, self.density, self.what, self.sources = seed, density, what, list(sources)

    def __call__(self, tensor, density, rescale):
        key = sip13(mix(self.seed + 0x9e3779b97f4a7c15 * (self.sources.pop(0) + 1) & ALL), self.what.encode())
        keep = [(mix(key + 0x9e3779b97f4a7c15 * (i + 1) & ALL) >> 11) / 2 ** 53 < density for i in range(tensor.numel())]
        return tensor * torch.tensor(keep).reshape(tensor.shape) / density


# ---------------------------------------------------------------- PEFT

def inject(unet, name, entries):
    """The factors of a file as PEFT's adapter `name`, rank and alpha module by module."""
    names = {m: e for (c, m), e in entries.items() if c == "unet"}
    assert not any(e["rs"] for e in names.values())
    rank = {m: e["A"].shape[0] for m, e in names.items()}
    alpha = {m: float(rank[m] if e["alpha"] is None else e["alpha"]) for m, e in names.items()}
    config = LoraConfig(r=max(rank.values()), lora_alpha=1, target_modules=list(names), rank_pattern={"^" + m: r for m, r in rank.items()},
                        alpha_pattern={"^" + m: a for m, a in alpha.items()}, init_lora_weights=False)
    model = LoraModel(unet, {name: config}, name) if not isinstance(unet, LoraModel) else unet
    if isinstance(unet, LoraModel):
        model.peft_config[name] = config
        model.inject_adapter(model.model, name)
    for n, layer in model.model.named_modules():
        if isinstance(layer, LoraLayer) and name in layer.lora_A:
            e = names[n]
            layer.lora_A[name].weight.data = e["A"].reshape(layer.lora_A[name].weight.shape).clone()
            layer.lora_B[name].weight.data = e["B"].reshape(layer.lora_B[name].weight.shape).clone()
            assert abs(layer.scaling[name] - lora.scale(e)) < 1e-7, (n, layer.scaling[name], lora.scale(e))
    return model


def prune_without_ties(tensor, density):
    """PEFT's own; which of equal entries it keeps is chance, so there must be none where the choice ends."""
    k, sizes = int(density * tensor.numel()), tensor.abs().flatten().sort(descending=True)[0]
    assert k in (0, tensor.numel()) or sizes[k - 1] > sizes[k] or sizes[k] == 0, "entries of equal size: choose another density"
    return pruning_of_peft(tensor, density)


pruning_of_peft, operators.magnitude_based_pruning = operators.magnitude_based_pruning, prune_without_ties


def give_way(model, names, o):
    """The down factors of all but one lose their part in what that one's span."""
    mu, fixed = o.get("strength", 0.5), names[o.get("fixed", -1)]
    c = 1.0 if mu == "hard" else mu / (1 + mu)
    for n, layer in model.model.named_modules():
        if not isinstance(layer, LoraLayer) or fixed not in layer.lora_A:
            continue
        q = torch.linalg.qr(layer.lora_A[fixed].weight.data.double().flatten(1).T)[0]
        for name in names:
            if name != fixed and name in layer.lora_A:
                a = layer.lora_A[name].weight.data
                layer.lora_A[name].weight.data = (a.double().flatten(1) - c * a.double().flatten(1) @ q @ q.T).reshape(a.shape).float()


def ask(model, kind, names, weights, o):
    if kind == "null_space":
        give_way(model, names, o)
        return model.add_weighted_adapter(names, weights, "merged", combination_type="cat")
    kw = {"svd_rank": o.get("rank")} if "rank" in o else {}
    if "density" in o:
        kw["density"] = o["density"]
    if "majority" in o:
        kw["majority_sign_method"] = o["majority"]
    if kind.startswith("dare"):
        return ask_dare(model, kind, names, weights, o, kw)
    model.add_weighted_adapter(names, weights, "merged", combination_type=kind, **kw)


def ask_dare(model, kind, names, weights, o, kw):
    """PEFT merges layer by layer and knows no names there: each layer's call is wrapped to tell them."""
    inner = "_svd_generalized_task_arithmetic_weighted_adapter" if kind.endswith("svd") else "_generalized_task_arithmetic_weighted_adapter"
    layers = {id(m): n for n, m in model.model.named_modules() if isinstance(m, LoraLayer)}
    call, pruning = getattr(model, inner), operators.random_pruning

    def wrapped(*args, **more):
        target = next(a for a in args if isinstance(a, LoraLayer))
        there = [i for i, n in enumerate(names) if n in target.lora_A]
        parts = ["weight"] if kind.endswith("svd") else ["down", "up"]
        draws = [Draws(o["seed"], o["density"], "unet.%s.%s" % (layers[id(target)], p), there) for p in parts]

        def prune(tensor, density, rescale):
            if not draws[0].sources:
                draws.pop(0)
            return draws[0](tensor, density, rescale)
        operators.random_pruning = prune
        try:
            return call(*args, **more)
        finally:
            operators.random_pruning = pruning
    setattr(model, inner, wrapped)
    model.add_weighted_adapter(names, weights, "merged", combination_type=kind, **kw)


def run(name, kind, files, o, layers, given):
    pipe = model_of(MODEL)
    model = pipe.unet
    for file, _ in files:
        model = inject(model, file, lora.read(FILES[file], untouched(MODEL)))
    ask(model, kind, [f for f, _ in files], [w for _, w in files], o)
    model.set_adapter("merged")
    modules = dict(model.model.named_modules())
    t = {}
    for layer in layers:
        d = modules[layer].get_delta_weight("merged")
        t["%s/unet.%s" % (name, layer)] = d
    t[name + "/unet"] = outputs(pipe, given, True, False)["unet"]
    return t


def main():
    pipe = model_of(MODEL)
    t = inputs(MODEL, pipe)
    base = outputs(pipe, t, True, False)["unet"]
    given, index = dict(t), []
    for name, kind, files, o, layers in CASES:
        made = run(name, kind, files, o, layers, given)
        assert (made[name + "/unet"] - base).abs().max() > 0.05 * base.abs().max(), name
        t.update(made)
        index.append({"name": name, "kind": kind, "adapters": [{"path": rel_path(FILES[f]), "weight": w} for f, w in files],
                      "options": {k: str(v) if k == "seed" else v for k, v in o.items()}, "layers": ["unet." + n for n in layers]})
        print(name)
    store("merge.safetensors", t)
    write_json("merge.json", {"versions": versions(), "model": MODEL, "cases": index})


if __name__ == "__main__":
    main()
