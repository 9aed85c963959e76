"""PEFT's methods that are no kin of LoRA's dialects: VeRA, FourierFT, HRA, SHiRA, VB-LoRA, LN tuning.

    python make_families_peft.py   writes tests/data/families/peft_*, golden/families_peft.json, golden/families_peft_<model>.safetensors

The same as make_families.py, in goldens of its own: PEFT makes and writes each file, its forward is the first reference, the
formulas of families.py in f64 are the second.
"""
import json
import os

from families import parse
from make_families import (FILES, SD1, SD1_LINEAR, SD1_NORMS, SD2, TE, TE_NORMS, XL, XL_NORMS, by_peft, case, floats, make_set,
                           untouched)
from peft import FourierFTConfig, HRAConfig, LNTuningConfig, ShiraConfig, VBLoRAConfig, VeraConfig
from safetensors.torch import load_file, save_file

S1, S2, SX = "tiny-sd1", "tiny-sd2", "tiny-sdxl"
TE_BARE = [m.removeprefix("text_model.") for m in TE]
TE_NORMS_BARE = [m.removeprefix("text_model.") for m in TE_NORMS]
XL_LINEAR = [m for m in XL if "attn" in m or ".ff." in m]
SD2_LINEAR = [m for m in SD2 if "attn" in m or ".ff." in m]
LINEAR = SD1_LINEAR + [SD1[11]]


def prefixed(name, of):
    """One of PEFT's files as a pipeline's: unet. before each key, the configuration in the metadata."""
    with open(os.path.join(FILES, of, "adapter_config.json")) as f:
        conf = json.load(f)
    t = load_file(os.path.join(FILES, of, "adapter_model.safetensors"))
    path = os.path.join(FILES, name + ".safetensors")
    save_file({"unet." + k.removeprefix("base_model.model."): v for k, v in t.items()}, path,
              metadata={"lora_adapter_metadata": json.dumps({"unet." + k: v for k, v in sorted(conf.items())})})
    return case(name, S1, "VeRA", "diffusers", "ours", path, parse(floats(t), untouched(S1), "unet", conf), None,
                "unet. in front, the configuration in the metadata")


def cases():
    one = {"own_weights": False}
    return [
        lambda: by_peft("peft_vera", S1, "VeRA", VeraConfig(r=6, target_modules=LINEAR, d_initial=1.0, projection_prng_key=3), **one,
                        note="the projections in the file, larger than most layers"),
        lambda: by_peft("peft_vera_seed", S1, "VeRA", VeraConfig(r=6, target_modules=LINEAR, save_projection=False, projection_prng_key=71),
                        **one, note="the projections from projection_prng_key alone"),
        lambda: prefixed("vera_unet", "peft_vera_seed"),
        lambda: prefixed("vera_unet_whole", "peft_vera"),
        lambda: by_peft("peft_vera_te", S1, "VeRA", VeraConfig(r=40, target_modules=TE_BARE, save_projection=False), component="text_encoder",
                        **one, note="more ranks than inputs"),
        lambda: by_peft("peft_vera_xl", SX, "VeRA", VeraConfig(r=5, target_modules=XL_LINEAR), **one),
        lambda: by_peft("peft_vera_sd2", S2, "VeRA", VeraConfig(r=4, target_modules=SD2_LINEAR, bias="vera_only"), **one,
                        note="bias vera_only: whole biases beside the scales"),
        lambda: by_peft("peft_fourierft", S1, "FourierFT", FourierFTConfig(n_frequency=20, scaling=30.0, target_modules=LINEAR,
                                                                      n_frequency_pattern={"attn2.to_k": 7}), **one,
                        note="random_loc_seed gives the places; n_frequency_pattern"),
        lambda: by_peft("peft_fourierft_te", S1, "FourierFT", FourierFTConfig(n_frequency=150, random_loc_seed=5, target_modules=TE_BARE),
                        component="text_encoder", **one),
        lambda: by_peft("peft_fourierft_xl", SX, "FourierFT", FourierFTConfig(n_frequency=33, target_modules=XL_LINEAR), **one),
        lambda: by_peft("peft_hra", S1, "HRA", HRAConfig(r=3, target_modules=SD1), **one, note="reflections in turn; convolutions"),
        lambda: by_peft("peft_hra_gs", S1, "HRA", HRAConfig(r=4, apply_GS=True, target_modules=LINEAR), **one,
                        note="apply_GS: made orthogonal first"),
        lambda: by_peft("peft_hra_te", S1, "HRA", HRAConfig(r=2, target_modules=TE_BARE), component="text_encoder", **one),
        lambda: by_peft("peft_hra_xl", SX, "HRA", HRAConfig(r=4, target_modules=XL), **one),
        lambda: by_peft("peft_shira", S1, "SHiRA", ShiraConfig(r=2, random_seed=11, target_modules=LINEAR), note="a random mask, saved"),
        lambda: by_peft("peft_shira_te", S1, "SHiRA", ShiraConfig(r=1, target_modules=TE_BARE), component="text_encoder"),
        lambda: by_peft("peft_shira_xl", SX, "SHiRA", ShiraConfig(r=1, target_modules=XL_LINEAR)),
        lambda: by_peft("peft_vblora", S1, "VB-LoRA", VBLoRAConfig(r=3, num_vectors=12, vector_length=4, topk=3, target_modules=LINEAR,
                                                              init_vector_bank_bound=0.7), **one, note="logits"),
        lambda: by_peft("peft_vblora_top", S1, "VB-LoRA", VBLoRAConfig(r=2, num_vectors=300, vector_length=2, topk=2, target_modules=LINEAR[:4],
                                                                 save_only_topk_weights=True, init_vector_bank_bound=0.7), **one,
                        note="save_only_topk_weights"),
        lambda: by_peft("peft_vblora_te", S1, "VB-LoRA", VBLoRAConfig(r=2, num_vectors=6, vector_length=8, topk=1, target_modules=TE_BARE,
                                                                save_only_topk_weights=True, init_vector_bank_bound=0.7),
                        component="text_encoder", **one, note="save_only_topk_weights of one vector: no weight is stored"),
        lambda: by_peft("peft_vblora_xl", SX, "VB-LoRA", VBLoRAConfig(r=2, num_vectors=9, vector_length=4, target_modules=XL_LINEAR,
                                                                init_vector_bank_bound=0.7), **one),
        lambda: by_peft("peft_ln", S1, "full", LNTuningConfig(target_modules=SD1_NORMS), **one, note="LN tuning: LayerNorm and GroupNorm, whole"),
        lambda: by_peft("peft_ln_te", S1, "full", LNTuningConfig(target_modules=TE_NORMS_BARE), component="text_encoder", **one,
                        note="LN tuning"),
        lambda: by_peft("peft_ln_xl", SX, "full", LNTuningConfig(target_modules=XL_NORMS), **one, note="LN tuning"),
    ]


def mixtures():
    return [
        [("peft_vera_seed", 0.7), ("peft_hra", 0.5)],
        [("peft_fourierft", 0.8), ("peft_shira", 0.6)],
        [("peft_vblora", 0.9), ("peft_ln", 0.7)],
        [("peft_vera_xl", 0.5), ("peft_vblora_xl", 0.4)],
    ]


def methods():
    two = lambda a, b, wa=1.0, wb=1.0: [{"name": a, "weight": wa}, {"name": b, "weight": wb}]
    return [
        {"method": "klora", "calls": 3, "files": two("peft_vera_seed", "peft_fourierft"), "options": {"top_k": 24}},
        {"method": "composite", "calls": 1, "files": two("peft_hra", "peft_vblora", 0.9, 0.7), "options": {}},
    ]


if __name__ == "__main__":
    make_set("families_peft", cases(), mixtures(), methods())
