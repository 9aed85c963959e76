"""Goldens of adapters held beside each other: norms, cosines, signs and column spaces from whole deltas in f64, on tiny-sd1.

    python make_conflicts.py       writes golden/conflicts.json, golden/conflicts.safetensors

The spaces come from singular value decompositions of the deltas, where weft has two factors and no decomposition.
"""
import os

import lora
import torch
from common import ADAPTERS, MODELS, pipeline, rel_path, store, versions, write_json

WEIGHTS = {"content": 0.8, "style": -0.5, "third": 1.0, "sd1_kohya_conv": 2.0}


def columns(d):
    u, s, _ = torch.linalg.svd(d, full_matrices=False)
    return u[:, s > 1e-6 * s[0]]


def compare(x, y):
    """[norm, norm, cosine, clash, overlap, chance], and the sums that blocks are made of."""
    p, q = columns(x), columns(y)
    overlap = ((p.T @ q) ** 2).sum() / min(p.shape[1], q.shape[1])
    chance = max(p.shape[1], q.shape[1]) / x.shape[0]
    both = (x != 0) & (y != 0)
    n = [torch.linalg.norm(x), torch.linalg.norm(y)]
    dot, differ = (x * y).sum(), (both & ((x < 0) != (y < 0))).sum()
    row = [*n, dot / (n[0] * n[1]), differ / both.sum(), overlap, torch.tensor(chance)]
    return torch.stack([v.double() for v in row]), [n[0] ** 2, n[1] ** 2, dot, differ, both.sum(), overlap, torch.tensor(chance)]


def block(component, module):
    if component != "unet":
        return component
    p = module.split(".")
    return {"down_blocks": "down.", "up_blocks": "up."}[p[0]] + p[1] if p[0] in ("down_blocks", "up_blocks") else p[0].removesuffix("_block")


def whole(sums):
    a, b, dot, differ, both, overlap, chance = (sum(s[i].double() for s in sums) for i in range(7))
    return [v.item() for v in (a.sqrt(), b.sqrt(), dot / (a * b).sqrt(), differ / both, overlap / len(sums), chance / len(sums))]


def main():
    pipe = pipeline(os.path.join(MODELS, "tiny-sd1"))
    paths = {n: os.path.join(ADAPTERS, n + ("" if n == "third" else ".safetensors")) for n in WEIGHTS}
    entries = {n: lora.read(p, pipe) for n, p in paths.items()}
    names, tensors, pairs = list(WEIGHTS), {}, []
    flat = lambda n, k: (d := WEIGHTS[n] * lora.delta(entries[n][k])).reshape(d.shape[0], -1)
    for i, a in enumerate(names):
        for j in range(i + 1, len(names)):
            b = names[j]
            both = [k for k in entries[a] if k in entries[b]]
            rows = {k: compare(flat(a, k), flat(b, k)) for k in both}
            blocks = {"": [s for _, s in rows.values()]}
            for k, (_, s) in rows.items():
                blocks.setdefault(block(*k), []).append(s)
            tensors["%d_%d" % (i, j)] = torch.stack([r for r, _ in rows.values()])
            pairs.append({"first": i, "second": j, "layers": [".".join(k) for k in both], "alone": [len(entries[n]) - len(both) for n in (a, b)],
                          "blocks": [{"name": n, "layers": len(s), "values": whole(s)} for n, s in blocks.items()]})
            print(a, b, len(both), [round(v, 3) for v in pairs[-1]["blocks"][0]["values"]])
    store("conflicts.safetensors", tensors)
    write_json("conflicts.json", {"versions": versions(), "model": "models/tiny-sd1", "pairs": pairs,
                                  "adapters": [{"path": rel_path(paths[n]), "weight": w} for n, w in WEIGHTS.items()]})


if __name__ == "__main__":
    main()
