"""PEFT's methods that are matrices of blocks, or that begin at the base's own weight: C3A, MiSS, DeLoRA, GraLoRA, RandLoRA, and LoRA that
began as PiSSA or OLoRA.

    python make_families_peft2.py  writes tests/data/families/peft_*, golden/families_peft2.json, golden/families_peft2_<model>.safetensors

The same as make_families.py, in goldens of its own: PEFT makes and writes each file, its forward is the first reference, the
formulas of families.py in f64 are the second.
"""
import json
import os
import re

from make_families import F16, SD1_LINEAR, TE, XL, by_peft, make_set
from peft import C3AConfig, DeloraConfig, GraloraConfig, LoraConfig, MissConfig, RandLoraConfig
from safetensors.torch import load_file, save_file

S1, SX = "tiny-sd1", "tiny-sdxl"
TE_BARE = [m.removeprefix("text_model.") for m in TE]
LINEAR_XL = [m for m in XL if not re.search("conv|proj_out|downsamplers", m)]


def cases():
    one = {"own_weights": False}
    return [
        lambda: by_peft("peft_pissa", S1, "PiSSA", LoraConfig(r=3, lora_alpha=6, init_lora_weights="pissa", target_modules=SD1_LINEAR),
                        **one, kind="PiSSA", note="the base lacks its own best rank r"),
        lambda: by_peft("peft_pissa_te", S1, "PiSSA", LoraConfig(r=2, lora_alpha=3, use_rslora=True, init_lora_weights="pissa", target_modules=TE_BARE),
                        component="text_encoder", **one, kind="PiSSA", note="rsLoRA"),
        lambda: by_peft("peft_pissa_xl", SX, "PiSSA", LoraConfig(r=4, lora_alpha=4, init_lora_weights="pissa", rank_pattern={"attn2.to_k": 2},
                        target_modules=LINEAR_XL), **one, kind="PiSSA"),
        lambda: by_peft("peft_pissa_dora", S1, "DoRA", LoraConfig(r=2, lora_alpha=2, use_dora=True, init_lora_weights="pissa",
                        target_modules=SD1_LINEAR[:4]), **one, kind="PiSSA", note="over PiSSA"),
        lambda: by_peft("peft_olora", S1, "OLoRA", LoraConfig(r=3, lora_alpha=6, init_lora_weights="olora", target_modules=SD1_LINEAR),
                        **one, kind="OLoRA", note="the base lacks what its first r columns span, times the scale"),
        lambda: by_peft("peft_olora_xl", SX, "OLoRA", LoraConfig(r=2, lora_alpha=1, init_lora_weights="olora", target_modules=LINEAR_XL),
                        **one, kind="OLoRA"),
        lambda: by_peft("peft_c3a", S1, "C3A", C3AConfig(block_size=4, block_size_pattern={"1.attentions.0.transformer_blocks.0.attn1.to_out.0": 8},
                        target_modules=SD1_LINEAR), **one, note="circulant blocks, of two sizes"),
        lambda: by_peft("peft_c3a_te", S1, "C3A", C3AConfig(block_size=8, target_modules=TE_BARE), component="text_encoder", **one),
        lambda: by_peft("peft_miss", S1, "MiSS", MissConfig(r=3, target_modules=SD1_LINEAR), **one,
                        note="a rank that does not divide the inputs"),
        lambda: by_peft("peft_miss_mini", S1, "MiSS", MissConfig(r=4, mini_r=8, init_weights="mini", target_modules=SD1_LINEAR),
                        **one, note="mini: repeated over the rows"),
        lambda: by_peft("peft_miss_bat", S1, "MiSS", MissConfig(r=4, init_weights="bat", target_modules=SD1_LINEAR), **one,
                        note="bat: each block of the weight times one of the adapter"),
        lambda: by_peft("peft_miss_xl", SX, "MiSS", MissConfig(r=4, target_modules=LINEAR_XL), **one, dtype=F16),
        lambda: by_peft("peft_delora", S1, "DeLoRA", DeloraConfig(r=3, rank_pattern={"attn2.to_k": 2}, target_modules=SD1_LINEAR),
                        **one, note="norms of the columns from the file"),
        lambda: by_peft("peft_delora_xl", SX, "DeLoRA", DeloraConfig(r=2, target_modules=LINEAR_XL), **one),
        lambda: by_peft("peft_gralora", S1, "GraLoRA", GraloraConfig(r=4, gralora_k=2, alpha=6, target_modules=SD1_LINEAR), **one),
        lambda: by_peft("peft_gralora_hybrid", S1, "GraLoRA", GraloraConfig(r=8, gralora_k=4, hybrid_r=3, alpha=5, target_modules=SD1_LINEAR),
                        **one, note="with a plain pair beside; too many blocks for a pair"),
        lambda: by_peft("peft_gralora_te", S1, "GraLoRA", GraloraConfig(r=2, gralora_k=2, hybrid_r=1, alpha=2, target_modules=TE_BARE),
                        component="text_encoder", **one),
        lambda: by_peft("peft_randlora", S1, "RandLoRA", RandLoraConfig(r=3, randlora_alpha=12, target_modules=SD1_LINEAR[:4]),
                        **one, note="bases in the file, which PEFT repeats for every module"),
        lambda: by_peft("peft_randlora_seed", S1, "RandLoRA", RandLoraConfig(r=5, randlora_alpha=7, save_projection=False, projection_prng_key=42,
                        target_modules=SD1_LINEAR), **one, note="bases from their seed"),
        lambda: by_peft("peft_randlora_sparse", S1, "RandLoRA", RandLoraConfig(r=8, randlora_alpha=8, save_projection=False, sparse=True,
                        target_modules=TE_BARE), component="text_encoder", **one, note="sparse bases from their seed"),
        lambda: by_peft("peft_randlora_xl", SX, "RandLoRA", RandLoraConfig(r=16, randlora_alpha=32, save_projection=False, very_sparse=True,
                        projection_prng_key=3, target_modules=LINEAR_XL), **one, note="very sparse bases from their seed"),
        bone,
    ]


def bone():
    """MiSS under its older name, which this PEFT does not open: the file as MiSS has it, with the names of then."""
    c = by_peft("peft_bone", S1, "MiSS", MissConfig(r=4, init_weights="bat", target_modules=SD1_LINEAR[:3]), **{"own_weights": False})
    path, config = (os.path.join(c["file"], n) for n in ("adapter_model.safetensors", "adapter_config.json"))
    save_file({k.replace("miss_block", "bone_block"): t for k, t in load_file(path).items()}, path)
    with open(config) as f:
        d = json.load(f)
    with open(config, "w") as f:
        json.dump({k: v for k, v in d.items() if "mini" not in k and "miss" not in k} | {"peft_type": "BONE"}, f, indent=1)
    return c | {"by": "ours", "run": None, "note": "Bone, its older name"}


def mixtures():
    return [
        [("peft_pissa", 0.7), ("peft_c3a", 0.5)],
        [("peft_olora", 0.8), ("peft_delora", 0.6)],
        [("peft_miss_bat", 0.9), ("peft_gralora", 0.7)],
        [("peft_randlora_seed", 0.6), ("peft_pissa_dora", 0.4)],
        [("peft_pissa_xl", 0.5), ("peft_miss_xl", 0.4), ("peft_randlora_xl", 0.3)],
    ]


def methods():
    two = lambda a, b, wa=1.0, wb=1.0: [{"name": a, "weight": wa}, {"name": b, "weight": wb}]
    return [
        {"method": "klora", "calls": 3, "files": two("peft_pissa", "peft_miss"), "options": {"top_k": 24}},
        {"method": "klora", "calls": 3, "files": two("peft_gralora", "peft_delora", 0.8, 1.0), "options": {"top_k": 16, "pattern": "s"}},
        {"method": "composite", "calls": 1, "files": two("peft_olora", "peft_randlora", 0.9, 0.7), "options": {}},
    ]


if __name__ == "__main__":
    make_set("families_peft2", cases(), mixtures(), methods())
