"""Goldens of what stands on top of methods, on tiny-sd1: weights as curves over the calls, masks over the image.

    python make_weights.py         writes golden/weights.json, golden/weights.safetensors
"""
import os

import make_compose
import torch
from common import ADAPTERS, MODELS, rel_path, store, versions, write_json
from make_compose import A, book, entry


def masks():
    """A soft half, its complement, a disc that overlaps both, and a border that no grid's pixels meet."""
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    left = ((20 - x) / 8).clamp(0, 1)
    disc = (((y - 11.5) ** 2 + (x - 15.5) ** 2) < 80).float()
    odd = (torch.arange(7.0)[:, None] + torch.arange(5.0)[None] < 5).float()
    return {"left": left, "right": 1 - left, "disc": disc, "odd": odd}


def cases(b):
    ramp = {"share": True, "points": [[0.0, 1.0, "linear"], [0.5, 0.2, "cosine"], [0.9, 1.1, "hold"]]}
    late = {"share": False, "points": [[2, 0.0, "hold"], [4, 1.5, "linear"], [4, 0.5, "linear"], [7, 1.0, "hold"]]}
    mask = lambda name, **kw: dict({"name": name}, **kw)
    b.add("curve_merge", "merge", [A("content", 0.8, curve=ramp), A("style", 0.6, curve=late)])
    b.add("curve_switch", "switch", [A("content", curve=ramp), A("style", 0.7)], {"period": 2})
    b.add("curve_composite", "composite", [A("content", curve=late), A("style", curve=ramp)])
    b.add("curve_klora", "klora", [A("content", curve=ramp), A("style", curve=dict(late, points=[[1, 0.5, "linear"], [6, 1.2, "hold"]]))], {"pattern": "s"})
    b.add("mask_merge", "merge", [A("content", mask=mask("left")), A("style", 0.8, mask=mask("right"))])
    b.add("mask_overlap", "merge", [A("content", mask=mask("left")), A("style", mask=mask("disc", text=0.5)), A("third", 0.7)])
    b.add("mask_adds", "merge", [A("content", mask=mask("left", adds=True)), A("style", mask=mask("disc"))])
    b.add("mask_conv", "merge", [A("sd1_kohya_conv", mask=mask("odd"))])
    b.add("mask_klora_curve", "klora", [A("content", mask=mask("disc"), curve=ramp), A("style", mask=mask("odd", text=0.0))])


def main():
    folder = os.path.join(MODELS, "tiny-sd1")
    paths = {n: os.path.join(ADAPTERS, n + ("" if n == "third" else ".safetensors")) for n in ("content", "style", "third", "sd1_kohya_conv")}
    make_compose.masks.update(masks())
    b = book(folder, paths, (1, 4, 12, 16), 79, "a photo of a red cat on the mat", "", 8, 3.0)
    cases(b)
    b.t.update({"mask/" + n: m for n, m in masks().items()})
    store("weights.safetensors", b.t)
    write_json("weights.json", {"versions": versions(), "models": [entry(b, "models/tiny-sd1", {n: rel_path(p) for n, p in paths.items()})]})


if __name__ == "__main__":
    main()
