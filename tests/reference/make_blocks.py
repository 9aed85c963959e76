"""Goldens of weights by block, B-LoRA and ZipLoRA, on tiny-sd1 and tiny-sdxl.

    python make_blocks.py          writes golden/blocks.json, golden/blocks.safetensors, adapters/zip_coefficients.safetensors,
                                   adapters/zip_network.pth
"""
import os

import blocks
import compose
import lora
import make_compose
import torch
from common import ADAPTERS, DATA, MODELS, max_rel, rel_path, store, versions, write_json
from make_compose import A, Book, entry
from safetensors.torch import save_file


def plan_of(case, entries, order, plain=make_compose.plan_of):
    """make_compose's plans, and those of blocks.py; adapters with "blocks", a vector as text."""
    o = dict(case["options"])
    if case["method"] not in ("blora", "zip"):
        p = plain(case, entries, order)
    else:
        ads = [compose.Adapter(a["name"], entries[a["name"]], a.get("weight", 1.0), a.get("text_weight")) for a in case["adapters"]]
        if case["method"] == "blora":
            pattern = lambda key: o[key].removeprefix("unet.").replace(".", r"\.").replace("*", ".*") if key in o else None
            p = blocks.BLora(ads, plan_of.unet, pattern("content"), pattern("style"), o.get("squared", False))
        else:
            path = os.path.join(DATA, o["coefficients"]) if "coefficients" in o else None
            network = os.path.join(DATA, o["network"]) if "network" in o else None
            p = blocks.Zip(ads, o.get("lambda", 1.0), o.get("style", 1.0), path, network)
        if case.get("text") == "none":
            p.te = []
    for a, given in zip(p.adapters if p else [], case["adapters"]):
        if "blocks" in given:
            a.factor = blocks.factor_of(plan_of.unet, [float(x) for x in given["blocks"].split(",")])
    return p


def text(numbers):
    return ",".join("%g" % round(x, 3) for x in numbers)


def coefficients(path, entries):
    """Random columns: of a convolution one for each input or one for each column, and a layer in four left out."""
    g, out = torch.Generator().manual_seed(5), {}
    for which, e in zip(("m_c", "m_s"), entries):
        for i, (component, m) in enumerate(sorted(e)):
            A = e[(component, m)]["A"]
            if component == "unet" and i % 4:
                out["unet.%s.zip.%s" % (m, which)] = torch.rand(A.shape[1] if i % 3 else A[0].numel(), generator=g) * 1.4 - 0.2
    save_file(out, path, {"format": "pt"})


def hypernet(path, heights, hidden=12):
    """A network like LoRA.rar's, random, for some heights of columns; its coefficients are around 0.7."""
    g, net = torch.Generator().manual_seed(6), {}
    for i, h in enumerate(heights):
        net["input_%d.weight" % (i + 1)] = torch.randn(hidden, 2 * h, generator=g) * 3
        net["input_%d.bias" % (i + 1)] = torch.randn(hidden, generator=g) * 0.2
    net["output.1.weight"] = torch.randn(2, hidden, generator=g) * 0.3
    net["output.1.bias"] = torch.tensor([0.8, 0.6])
    torch.save(net, path)


def main():
    make_compose.plan_of = plan_of
    sd1, sdxl = os.path.join(MODELS, "tiny-sd1"), os.path.join(MODELS, "tiny-sdxl")
    paths = {n: os.path.join(ADAPTERS, n + ".safetensors") for n in ("content", "style", "sd1_kohya_conv")}
    pipe = make_compose.pipeline(sd1)
    plan_of.unet = pipe.unet
    entries = {n: lora.read(p, pipe) for n, p in paths.items()}
    file = os.path.join(ADAPTERS, "zip_coefficients.safetensors")
    coefficients(file, (entries["sd1_kohya_conv"], entries["style"]))

    b = Book(pipe, entries, (1, 4, 12, 16), 81, "a photo of a red cat on the mat", "", 6, 3.0)
    two = [A("content"), A("style")]
    full, short = blocks.slots(pipe.unet)
    ramp = [0.1 * i for i in range(len(short))]
    b.add("blocks_merge", "merge", [A("content", 0.8, blocks=text(ramp)), A("style")])
    b.add("blocks_conv", "merge", [A("sd1_kohya_conv", blocks=text([1.2 - 0.1 * i for i in range(len(full))]))])
    b.add("blocks_klora", "klora", [A("content", blocks=text([1.05 - x for x in ramp])), A("style")], {"pattern": "s"})
    b.add("blora", "blora", two)
    b.add("blora_squared", "blora", [A("content", 0.8), A("style", 0.7)], {"squared": True})
    b.add("blora_named", "blora", two, {"content": "unet.down_blocks.1.*", "style": "unet.up_blocks.2.*"})
    b.add("zip", "zip", two)
    b.add("zip_half", "zip", [A("content", 0.9), A("style")], {"lambda": 0.5, "style": 0.8})
    b.add("zip_sum", "zip", two, {"lambda": 0.0})
    b.add("zip_conv", "zip", [A("sd1_kohya_conv"), A("style")], {"lambda": 0.3}, text="none")
    b.add("zip_file", "zip", [A("sd1_kohya_conv"), A("style")], {"coefficients": rel_path(file), "style": 1.1})
    network = os.path.join(ADAPTERS, "zip_network.pth")
    hypernet(network, sorted({m.out_features for n, m in pipe.unet.named_modules() if n.endswith((".to_q", ".to_out.0"))}))
    b.add("zip_network", "zip", [A("content", 0.9), A("style")], {"network": rel_path(network), "style": 0.8})
    p = plan_of({"method": "zip", "adapters": two, "options": {"network": rel_path(network)}}, entries, b.order)
    m = torch.cat([torch.cat(v) for v in p.m.values()])
    print("coefficients of the network: %.2f to %.2f" % (m.min(), m.max()))
    merged = plan_of({"method": "merge", "adapters": two, "options": {}}, entries, b.order)
    x, _, _ = compose.generate(pipe, merged, b.ddim(), b.noise, b.prompt, b.negative, 6, b.guidance)
    print("zip with lambda 0 is the sum: %.1e" % max_rel(b.t["zip_sum/latents"], x))
    models, tensors = [entry(b, "models/tiny-sd1", {n: rel_path(p) for n, p in paths.items()})], dict(b.t)

    paths = {n: os.path.join(ADAPTERS, n + ".safetensors") for n in ("sdxl_kohya_ldm", "sdxl_new")}
    pipe = make_compose.pipeline(sdxl)
    plan_of.unet = pipe.unet
    entries = {n: lora.read(p, pipe) for n, p in paths.items()}
    b = Book(pipe, entries, (1, 4, 12, 16), 82, "a blue square to the left of a circle", "blurry", 6, 3.0, "sdxl/")
    full, short = blocks.slots(pipe.unet)
    assert (len(full), len(short)) == (20, 12)
    both = [A("sdxl_kohya_ldm"), A("sdxl_new")]
    b.add("blocks_12", "merge", [A("sdxl_kohya_ldm", blocks=text([0.1 * (i + 1) for i in range(12)])), A("sdxl_new", 0.5)])
    b.add("blocks_20", "merge", [A("sdxl_kohya_ldm", blocks=text([1.5 - 0.1 * i for i in range(20)]))])
    b.add("blora", "blora", both)
    b.add("blora_alone", "blora", both[:1])
    b.add("zip", "zip", both, {"lambda": 0.6})
    models.append(entry(b, "models/tiny-sdxl", {n: rel_path(p) for n, p in paths.items()}))
    tensors.update(b.t)
    store("blocks.safetensors", tensors)
    write_json("blocks.json", {"versions": versions(), "models": models})


if __name__ == "__main__":
    main()
