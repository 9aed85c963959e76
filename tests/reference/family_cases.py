"""The cases of make_families.py: which family on which modules in which dialect. Each is a function that makes the file."""
import json
import os
import re

import lora
import torch
from make_families import (A0, A1, F16, F32, FILES, SD1, SD1_LINEAR, SD1_NORMS, SD2, TE, TE_NORMS, XL, XL_NORMS, by_diffusers, by_hand,
                           by_lycoris, by_name, by_peft, fresh, procs, seed_of, text, underscore, unet, untouched)
from peft import AdaLoraConfig, BOFTConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig
from safetensors.torch import load_file, save_file

S1, S2, SX = "tiny-sd1", "tiny-sd2", "tiny-sdxl"
TE_BARE = [m.removeprefix("text_model.") for m in TE]
CONVS = [m for m in SD1 if re.search("conv|proj_in|proj_out", m)]


def cases():
    return peft_cases() + diffusers_cases() + lycoris_cases() + hand_cases()


# ---------------------------------------------------------------- PEFT

def peft_cases():
    few = [SD1[0], SD1[1], SD1[3], SD1[4], SD1[6], SD1[8], SD1[9]]
    return [
        lambda: by_peft("peft_lora", S1, "LoRA", LoraConfig(r=3, lora_alpha=6, target_modules=SD1, rank_pattern={"attn2.to_k": 2, ".*ff.net.2": 4},
                        alpha_pattern={"attn2.to_k": 5}), note="rank_pattern and alpha_pattern; convolutions"),
        lambda: by_peft("peft_lora_bias", S1, "LoRA", LoraConfig(r=2, lora_alpha=3, use_rslora=True, lora_bias=True,
                                                            target_modules=[SD1[3], SD1[4], SD1[8]]),
                        note="lora_B.bias, rsLoRA"),
        lambda: by_peft("peft_dora", S1, "DoRA", LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=SD1),
                        note="a convolution's magnitude is (1, out, 1, 1): rows, though it has the shape of LyCORIS' columns"),
        lambda: by_peft("peft_dora_te", S1, "DoRA", LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=TE_BARE), component="text_encoder"),
        lambda: by_peft("peft_loha", S1, "LoHa", LoHaConfig(r=2, alpha=3, target_modules=SD1)),
        lambda: by_peft("peft_loha_tucker", S1, "LoHa", LoHaConfig(r=2, alpha=2, use_effective_conv2d=True, target_modules=few),
                        note="hada_t1, hada_t2"),
        lambda: by_peft("peft_loha_te", S1, "LoHa", LoHaConfig(r=2, alpha=4, target_modules=TE_BARE), component="text_encoder"),
        lambda: by_peft("peft_lokr", S1, "LoKr", LoKrConfig(r=1, alpha=2, decompose_both=True, decompose_factor=4, target_modules=SD1),
                        note="both factors decomposed where the layer is large enough"),
        lambda: by_peft("peft_lokr_tucker", S1, "LoKr", LoKrConfig(r=1, alpha=1, use_effective_conv2d=True, target_modules=few), note="lokr_t2"),
        lambda: by_peft("peft_lokr_full", S1, "LoKr", LoKrConfig(r=16, alpha=8, target_modules=few[:5], rank_pattern={"attn2.to_k": 20},
                                                            alpha_pattern={"to_out.0": 4}),
                        note="both factors full: PEFT keeps alpha / r of its configuration, where LyCORIS has scale 1"),
        lambda: by_peft("peft_lokr_xl", SX, "LoKr", LoKrConfig(r=2, alpha=3, decompose_factor=2, target_modules=XL)),
        lambda: by_peft("peft_oft", S1, "OFT", OFTConfig(oft_block_size=4, r=0, target_modules=SD1), library="merge", own_weights=False,
                        note="Cayley-Neumann, five terms; PEFT's merge, for its forward adds up overlapping patches of a 3x3 convolution"),
        lambda: by_peft("peft_oft_forward", S1, "OFT", OFTConfig(oft_block_size=8, r=0, target_modules=SD1_LINEAR + [SD1[6]]), own_weights=False,
                        note="linear layers and a 1x1 convolution by PEFT's forward"),
        lambda: by_peft("peft_oft_exact", S1, "OFT", OFTConfig(oft_block_size=0, r=2, use_cayley_neumann=False, target_modules=few), library="merge",
                        own_weights=False, note="the inverse: (I - Q)(I + Q)^-1, the other way round than the series"),
        lambda: by_peft("peft_oft_coft", S1, "OFT", OFTConfig(oft_block_size=4, r=0, coft=True, eps=0.3, block_share=True, target_modules=SD1_LINEAR),
                        own_weights=False, note="coft: Q capped at eps / sqrt(blocks); one block shared"),
        lambda: by_peft("peft_oft_terms", S1, "OFT", OFTConfig(oft_block_size=8, r=0, num_cayley_neumann_terms=7, target_modules=SD1_LINEAR[:4]),
                        own_weights=False, note="seven terms"),
        lambda: by_peft("peft_oft_xl", SX, "OFT", OFTConfig(oft_block_size=0, r=4, target_modules=XL), library="merge", own_weights=False),
        lambda: by_peft("peft_oft_te", S1, "OFT", OFTConfig(oft_block_size=4, r=0, target_modules=TE_BARE), component="text_encoder",
                        own_weights=False),
        lambda: by_peft("peft_boft", S1, "BOFT", BOFTConfig(boft_block_size=4, target_modules=SD1), own_weights=False),
        lambda: by_peft("peft_ia3", S1, "(IA)^3", IA3Config(target_modules=few + [SD1[5]], feedforward_modules=[SD1[4], SD1[5], SD1[8]]),
                        own_weights=False,
                        note="factors as they are, bias scaled too; which scale the input the configuration says alone"),
        lambda: by_peft("peft_ia3_te", S1, "(IA)^3", IA3Config(target_modules=TE_BARE, feedforward_modules=[TE_BARE[2]]),
                        component="text_encoder", own_weights=False),
        lambda: by_peft("peft_adalora", S1, "AdaLoRA", AdaLoraConfig(init_r=4, target_r=2, lora_alpha=6, total_step=10,
                                                            target_modules=SD1_LINEAR + [SD1[8]]),
                        own_weights=False, prune=prune, kind="AdaLoRA",
                        note="alpha / (init_r + 1e-5) whatever rank is left; lora_A of a convolution is flat"),
        lambda: by_peft("peft_saved", S1, "full", LoraConfig(r=2, lora_alpha=2, target_modules=[SD1[0]],
                        modules_to_save=["conv_out", "conv_norm_out", SD1[11]]),
                        own_weights=False, note="modules_to_save: whole weights beside LoRA, a normalisation too"),
        lambda: by_peft("peft_bias", S1, "LoRA", LoraConfig(r=2, lora_alpha=2, bias="lora_only", target_modules=[SD1[3], SD1[4], SD1[8]]),
                        own_weights=False, note="bias lora_only: whole biases beside the factors"),
        lambda: by_peft("peft_bias_te", S1, "LoRA", LoraConfig(r=2, lora_alpha=2, bias="all", target_modules=TE_BARE), component="text_encoder",
                        own_weights=False, note="bias all: every bias of the net, normalisations' too"),
        lambda: by_peft("peft_pickled", S1, "LoKr", LoKrConfig(r=2, alpha=1, target_modules=few), pickled=True, note="adapter_model.bin"),
        lambda: by_peft("peft_xl_dora", SX, "DoRA", LoraConfig(r=2, lora_alpha=4, use_dora=True, use_rslora=True, target_modules=XL), note="rsLoRA"),
        lambda: by_peft("peft_xl_loha", SX, "LoHa", LoHaConfig(r=2, alpha=2, use_effective_conv2d=True, target_modules=XL)),
        lambda: by_peft("peft_xl_boft", SX, "BOFT", BOFTConfig(boft_block_num=4, boft_block_size=0, target_modules=XL[:6]), own_weights=False),
        lambda: by_peft("peft_xl_ia3", SX, "(IA)^3", IA3Config(target_modules=XL, feedforward_modules=[XL[3], XL[4], XL[7]]), own_weights=False),
        lambda: by_peft("peft_xl_adalora", SX, "AdaLoRA", AdaLoraConfig(init_r=4, target_r=2, lora_alpha=2, total_step=10, target_modules=XL[:6]),
                        own_weights=False, prune=prune, kind="AdaLoRA"),
        lambda: by_peft("peft_sd2_oft", S2, "OFT", OFTConfig(oft_block_size=4, r=0, target_modules=SD2), library="merge", own_weights=False),
        lambda: by_peft("peft_sd2_dora", S2, "DoRA", LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=SD2)),
    ]


def prune(net, config):
    """Leave some layers a part of their ranks, as AdaLoRA's budget does."""
    pattern = {}
    for i, (n, m) in enumerate(net.named_modules()):
        if hasattr(m, "lora_E") and "default" in m.lora_E:
            pattern[n.removeprefix("base_model.model.") + ".lora_E"] = [j != i % 4 for j in range(4)]
    config.rank_pattern = pattern


# ---------------------------------------------------------------- diffusers

def diffusers_cases():
    return [
        lambda: by_diffusers("diffusers_lora", S1, "LoRA",
                             {"unet": LoraConfig(r=2, lora_alpha=3, target_modules=SD1),
                              "text_encoder": LoraConfig(r=2, lora_alpha=1, target_modules=TE_BARE)}, F16),
        lambda: by_diffusers("diffusers_dora", S1, "DoRA", {"unet": LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=SD1),
                             "text_encoder": LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=TE_BARE)}, unheld=("te",),
                             note="lora_magnitude_vector; diffusers forgets the text encoder's, which PEFT applies"),
        lambda: by_diffusers("diffusers_dora_xl", SX, "DoRA", {"unet": LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=XL)}, F16),
        lambda: by_diffusers("diffusers_bias", S1, "LoRA",
                             {"unet": LoraConfig(r=2, lora_alpha=2, lora_bias=True, target_modules=[SD1[3], SD1[4], SD1[8]])}, note="lora_B.bias"),
    ]


# ---------------------------------------------------------------- LyCORIS

ALL1 = unet(SD1) + text(TE)


def mixture(c, m):
    """A preset with an algorithm for each kind of module, and norms."""
    if "norm" in m:
        return {"algo": "norm"}
    if "attn" in m:
        return {"algo": "lokr", "factor": 4}
    if ".ff." in m:
        return {"algo": "loha", "dim": 3, "alpha": 2.0}
    if "proj" in m:
        return {"algo": "glora"}
    if "resnets" in m:
        return {"algo": "locon", "use_tucker": True}
    return {"algo": "full"}


def lycoris_cases():
    few = unet([SD1[0], SD1[1], SD1[3], SD1[6], SD1[8], SD1[9]])
    xl = unet(XL) + text(TE[:1]) + text(TE[2:], "text_encoder_2")
    return [
        lambda: by_lycoris("lyco_locon", S1, "LoCon", "locon", ALL1, dim=3, alpha=2.0),
        lambda: by_lycoris("lyco_locon_tucker", S1, "LoCon", "locon", unet(CONVS + SD1[:1]), use_tucker=True, dtype=F32, note="lora_mid"),
        lambda: by_lycoris("lyco_rslora", S1, "LoCon", "locon", few, dim=4, alpha=2.0, rs_lora=True,
                           note="alpha is stored times sqrt(r), so alpha / r reads it"),
        lambda: by_lycoris("lyco_loha", S1, "LoHa", "loha", ALL1, dim=2, alpha=1.0),
        lambda: by_lycoris("lyco_loha_tucker", S1, "LoHa", "loha", unet(CONVS + SD1[:1]), use_tucker=True, dtype=F32, note="hada_t1, hada_t2"),
        lambda: by_lycoris("lyco_lokr", S1, "LoKr", "lokr", ALL1, dim=1, alpha=1.0, note="w1 full, w2 decomposed where it is large enough"),
        lambda: by_lycoris("lyco_lokr_both", S1, "LoKr", "lokr", few + unet(SD1[4:6]), dim=1, alpha=0.5, decompose_both=True, factor=4),
        lambda: by_lycoris("lyco_lokr_tucker", S1, "LoKr", "lokr", unet(CONVS), dim=1, alpha=1.0, use_tucker=True, dtype=F32, note="lokr_t2"),
        lambda: by_lycoris("lyco_lokr_full", S1, "LoKr", "lokr", few, dim=100000, alpha=1e10, factor=4, dtype=F32,
                           note="both factors full; alpha says nothing then"),
        lambda: by_lycoris("lyco_ia3", S1, "(IA)^3", "ia3", ALL1, note="stored as the offset from 1; rows, and columns where on_input",
                           per=lambda c, m: {"train_on_input": "ff" in m or "conv1" in m or "proj_in" in m}),
        lambda: by_lycoris("lyco_oft", S1, "OFT", "diag-oft", ALL1, dim=4, dtype=F32),
        lambda: by_lycoris("lyco_oft_rescale", S1, "OFT", "diag-oft", few, dim=4, constraint=0.02, rescaled=True, own_weights=False, dtype=F32,
                           note="constraint (stored as alpha) and rescale; LyCORIS scales rows in full at any weight"),
        lambda: by_lycoris("lyco_boft", S1, "BOFT", "boft", ALL1, dim=8, own_weights=False, dtype=F32,
                           note="LyCORIS weighs each stage; the difference of the weights is linear"),
        lambda: by_lycoris("lyco_boft_rescale", S1, "BOFT", "boft", few, dim=8, constraint=0.02, rescaled=True, own_weights=False, dtype=F32),
        lambda: by_lycoris("lyco_glora", S1, "GLoRA", "glora", ALL1, dim=2, alpha=1.0),
        lambda: by_lycoris("lyco_full", S1, "full", "full",
                           unet(SD1[:4] + SD1[6:7] + SD1[8:] + ["conv_in", "time_embedding.linear_1"]) + text(TE), dtype=F32,
                           note="diff, and diff_b where the layer has a bias"),
        lambda: by_lycoris("lyco_norm", S1, "norm", "norm", unet(SD1_NORMS) + text(TE_NORMS), dtype=F32, note="w_norm, b_norm"),
        lambda: by_lycoris("lyco_dora", S1, "DoRA", "locon", ALL1, dim=2, alpha=1.0, weight_decompose=True, wd_on_out=True, dtype=F32,
                           note="dora_scale of rows"),
        lambda: by_lycoris("lyco_dora_columns", S1, "DoRA", "locon", ALL1, dim=2, alpha=1.0, weight_decompose=True, wd_on_out=False,
                           dtype=F32, note="dora_scale of columns"),
        lambda: by_lycoris("lyco_dora_loha", S1, "DoRA", "loha", few, dim=2, alpha=2.0, weight_decompose=True, wd_on_out=True, dtype=F32,
                           note="over LoHa"),
        lambda: by_lycoris("lyco_dora_lokr", S1, "DoRA", "lokr", few, dim=1, alpha=1.0, weight_decompose=True, wd_on_out=False, dtype=F32,
                           note="over LoKr, columns"),
        lambda: by_lycoris("lyco_mixed", S1, "mixed", "locon", ALL1 + unet(SD1_NORMS[:3]), per=mixture, dtype=F32,
                           note="a preset with an algorithm for each kind of module"),
        lambda: by_lycoris("lyco_dylora", S1, "LoRA", "dylora", unet(SD1_LINEAR), dim=4, alpha=2.0, block_size=2, own_weights=False,
                           note="DyLoRA as exported: plain LoRA; its own forward draws a rank by chance"),
        lambda: by_lycoris("lyco_xl_locon", SX, "LoCon", "locon", xl, sgm=True, use_tucker=True),
        lambda: by_lycoris("lyco_xl_loha", SX, "LoHa", "loha", xl, sgm=True),
        lambda: by_lycoris("lyco_xl_lokr", SX, "LoKr", "lokr", xl, dim=1, sgm=True, factor=4),
        lambda: by_lycoris("lyco_xl_dora", SX, "DoRA", "locon", xl, sgm=True, weight_decompose=True, wd_on_out=True, dtype=F32),
        lambda: by_lycoris("lyco_xl_oft", SX, "OFT", "diag-oft", xl, dim=4, sgm=True, dtype=F32),
        lambda: by_lycoris("lyco_xl_boft", SX, "BOFT", "boft", unet(XL), dim=4, sgm=True, dtype=F32, own_weights=False),
        lambda: by_lycoris("lyco_xl_glora", SX, "GLoRA", "glora", xl, sgm=True),
        lambda: by_lycoris("lyco_xl_ia3", SX, "(IA)^3", "ia3", xl, sgm=True),
        lambda: by_lycoris("lyco_xl_full", SX, "full", "full", xl + unet(XL_NORMS) + text(TE_NORMS, "text_encoder_2"), sgm=True, dtype=F32,
                           per=lambda c, m: {"algo": "norm"} if "norm" in m else None, note="with w_norm, b_norm"),
        lambda: by_lycoris("lyco_sd2_lokr", S2, "LoKr", "lokr", unet(SD2) + text(TE[:1]), dim=1),
        lambda: by_lycoris("lyco_sd2_loha", S2, "LoHa", "loha", unet(SD2) + text(TE[:1])),
        lambda: by_lycoris("lyco_sd2_dora", S2, "DoRA", "locon", unet(SD2) + text(TE[:1]), weight_decompose=True, wd_on_out=False, dtype=F32,
                           note="dora_scale of columns"),
        lambda: by_lycoris("lyco_sd2_oft", S2, "OFT", "diag-oft", unet(SD2) + text(TE[:1]), dim=4, dtype=F32),
        lambda: by_lycoris("lyco_sd1_ldm", S1, "LoKr", "lokr", ALL1, dim=1, sgm=True, note="SD1 under LDM's block names"),
        lambda: by_lycoris("wrapper_te", S1, "LoHa", "loha", text(TE), prefix="lycoris_", note="a text encoder wrapped by itself"),
        lambda: by_lycoris("wrapper_lokr", S1, "LoKr", "lokr", unet(SD1), dim=1, prefix="lycoris_"),
        lambda: by_lycoris("wrapper_xl_loha", SX, "LoHa", "loha", unet(XL), prefix="lycoris_"),
        lambda: by_lycoris("wrapper_xl_full", SX, "full", "full", unet(XL[:6] + XL_NORMS), prefix="lycoris_", dtype=F32,
                           per=lambda c, m: {"algo": "norm"} if "norm" in m else None),
    ]


# ---------------------------------------------------------------- files of other tools, written here

KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight", "magnitude": "dora_scale", "replace": "weight",
         "replace_b": "bias"}


def keyed(entries, stem, names=KOHYA):
    """{key: tensor}; stem(component, module) -> the key without its ending."""
    return {"%s.%s" % (stem(c, m), names.get(k, k)): v for (c, m), e in entries.items() for k, v in e.items() if k != "conf"}


def glora_keys():
    return {k: k + ".weight" for k in ("a1", "a2", "b1", "b2", "bm")}


def build(name, model, kind, modules, dtype=F16, r=2, alpha=None, **flags):
    g, pipe = seed_of(name), untouched(model)
    return pipe, {(c, m): fresh(pipe, c, m, kind, g, dtype, r, alpha, **flags) for c, m in modules}


def kohya(name, model, modules, dialect="kohya", sgm=False, kind="lora", family="LoRA", prefix=None, names=KOHYA, stem=None, note="", how=None, **kw):
    pipe, e = build(name, model, kind, modules, **kw)
    s = stem(pipe) if stem is not None else lambda c, m: underscore(pipe, c, m, prefix, sgm)
    return by_hand(name, model, family, dialect, e, keyed(e, s, names), kw.get("dtype", F16), note=note, how=how)


def dressed(name, model, family, dialect, stem, algo, modules, note="", **kw):
    """LyCORIS' own module and forward, its tensors under another program's names."""
    c = by_lycoris(name, model, family, algo, modules, dtype=F32, note=note, **kw)
    pipe = untouched(model)
    at = {underscore(pipe, comp, m): stem(pipe)(comp, m) for comp, m in modules}
    t = {}
    for k, v in load_file(c["file"]).items():
        head, end = k.split(".", 1)
        t["%s.%s" % (at[head], end)] = v
    save_file(t, c["file"])
    return dict(c, dialect=dialect)


def comfy(pipe):
    """diffusion_model.<LDM path with dots>, text_encoders.clip_l.transformer.<path>."""
    cfg = pipe.unet.config
    up = ["CrossAttn" in t for t in cfg.up_block_types]
    heads = {"text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.clip_g.transformer."}
    return lambda c, m: heads[c] + m if c in heads else "diffusion_model." + lora.sgm_name(m, cfg.layers_per_block, up)


def dotted(pipe):
    return lambda c, m: "%s.%s" % (c, m)


def onetrainer(pipe):
    heads = {"unet": "lora_unet.", "text_encoder": "lora_te1." if getattr(pipe, "text_encoder_2", None) is not None else "lora_te."}
    return lambda c, m: heads.get(c, "lora_te2.") + m


def onetrainer_omi():
    """unet.<LDM path>, clip_l., clip_g., and a word's vectors in the bundle."""
    pipe, e = build("onetrainer_omi", SX, "lora", unet(XL) + text(TE[:1]) + text(TE[2:], "text_encoder_2"), alpha=1.0)
    cfg = pipe.unet.config
    up = ["CrossAttn" in t for t in cfg.up_block_types]
    heads = {"text_encoder": "clip_l.", "text_encoder_2": "clip_g."}
    t = keyed(e, lambda c, m: heads[c] + m if c in heads else "unet." + lora.sgm_name(m, cfg.layers_per_block, up))
    g = torch.Generator("cpu").manual_seed(9)
    t["bundle_emb.<thing>.clip_l"], t["bundle_emb.<thing>.clip_g"] = (0.3 * torch.randn(2, d, generator=g) for d in (16, 24))
    return by_hand("onetrainer_omi", SX, "LoRA", "OneTrainer, OMI", e, t, words=2,
                   note="LDM's block names behind unet.; clip_l., clip_g.; a bundled word")


def hand_cases():
    every = unet(SD1) + text(TE)
    xl = unet(XL) + text(TE[:1]) + text(TE[2:], "text_encoder_2")
    attn = unet([SD1[0], SD1[1], SD1[2], SD1[3]])
    return [
        lambda: kohya("kohya_lora", S1, every, alpha=1.0, how=by_name),
        lambda: kohya("kohya_xl_ldm", SX, xl, sgm=True, alpha=1.0),
        lambda: kohya("kohya_xl_diffusers", SX, xl, alpha=1.0, note="SDXL under diffusers' block names"),
        lambda: kohya("kohya_sd2", S2, unet(SD2) + text(TE[:1]), alpha=1.0),
        lambda: kohya("kohya_square", S1, unet([SD1[6], SD1[7], SD1[10]]), alpha=1.0, square=True, note="1x1 convolutions stored 2-D"),
        lambda: kohya("kohya_bias", S1, unet([SD1[3], SD1[8], SD1[11]]), alpha=1.0, bias=True, note="diff_b beside LoRA"),
        lambda: kohya("kohya_oft", S1, unet(SD1_LINEAR + SD1[8:10]), dialect="kohya, networks.oft", kind="oft", family="OFT",
                      prefix="oft_unet_", r=2, alpha=0.01, dtype=F32, note="oft_unet_; alpha is the constraint"),
        lambda: kohya("kohya_xl_oft", SX, unet(XL), dialect="kohya, networks.oft", kind="oft", family="OFT", prefix="oft_unet_", sgm=True,
                      r=4, alpha=1.0, dtype=F32),
        lambda: kohya("glora_tucker", S1, unet(SD1[8:10]), dialect="lycoris", kind="glora_bm", family="GLoRA", alpha=1.0,
                      names=glora_keys(), note="bm; no current writer, its rebuild is LyCORIS'"),
        lambda: kohya("glora_old", S1, unet([SD1[1], SD1[3], SD1[4], SD1[6]]), dialect="lycoris", kind="glora_old", family="GLoRA",
                      alpha=1.0, names=glora_keys(), conf={"old": True},
                      note="the first GLoRA files: a1 (r, in), a2 (in, r), b1 (r, in), b2 (out, r)"),
        lambda: kohya("comfy_lora", S1, every, dialect="ComfyUI", stem=comfy, alpha=1.0),
        lambda: kohya("comfy_xl_lora", SX, xl, dialect="ComfyUI", stem=comfy, alpha=1.0),
        lambda: kohya("comfy_full", SX, unet(XL[:4]), dialect="ComfyUI", kind="full", family="full", stem=comfy, bias=True, dtype=F32,
                      note="diff and diff_b, as its extraction writes them"),
        lambda: dressed("comfy_lokr", S1, "LoKr", "ComfyUI", comfy, "lokr", every, dim=1, factor=4),
        lambda: dressed("comfy_xl_loha", SX, "LoHa", "ComfyUI", comfy, "loha", xl, dim=2),
        lambda: dressed("onetrainer_dora", SX, "DoRA", "OneTrainer", onetrainer, "locon", xl, dim=2, weight_decompose=True, wd_on_out=False,
                        note="dora_scale of columns"),
        lambda: dressed("onetrainer_loha", S1, "LoHa", "OneTrainer", onetrainer, "loha", every, dim=2),
        lambda: dressed("dotted_oft", S1, "OFT", "dotted", dotted, "diag-oft", every, dim=4),
        lambda: kohya("onetrainer_lora", S1, every, dialect="OneTrainer", stem=onetrainer, alpha=1.0, note="lora_unet. and lora_te. with dots"),
        lambda: kohya("onetrainer_xl", SX, xl, dialect="OneTrainer", stem=onetrainer, alpha=1.0),
        onetrainer_omi,
        lambda: kohya("dotted_lora", S1, every, dialect="dotted", stem=dotted, alpha=1.0, note="unet. and text_encoder. with kohya's endings"),
        old_processor_bin, old_text_bin,
        lambda: ziplora(), lambda: blora(), lambda: moslora(False), lambda: moslora(True), edlora,
        lambda: simo_pt("unet"), lambda: simo_pt("text_encoder"), simo_safetensors,
        lambda: custom("ldm"), lambda: custom("delta"), lambda: custom("compressed"), lambda: custom("bin"), lambda: custom("safetensors"),
        boft_stages,
    ]


def old_processor_bin():
    pipe, e = build("old_processor", S1, "lora", unet(SD1[:4]))
    t = {"%s.processor.%s_lora.%s.weight" % (m.removesuffix(".to_out.0") if m.endswith("to_out.0") else m.rsplit(".", 1)[0],
                                             "to_out" if m.endswith("to_out.0") else m.rsplit(".", 1)[1], s): x[s].to(F16)
         for (c, m), x in e.items() for s in ("down", "up")}
    return by_hand("old_processor", S1, "LoRA", "diffusers 0.12", e, t, ending=".bin", note="a pickle; no prefix, attn1.processor.to_q_lora")


def old_text_bin():
    name = "old_text"
    pipe, e = build(name, S1, "lora", unet(SD1[:4] + SD1[6:7]) + text(TE))
    t = {}
    for (c, m), x in e.items():
        for s in ("down", "up"):
            t["unet.%s.lora.%s.weight" % (m, s) if c == "unet" else "text_encoder.%s.lora_linear_layer.%s.weight" % (m, s)] = x[s].to(F16)
    return by_hand(name, S1, "LoRA", "diffusers 0.22", e, t, ending=".bin", legacy=True, how=by_name, note="a pickle of torch's first form")


def ziplora():
    pipe, e = build("ziplora", SX, "full", unet([XL[0], XL[1], XL[2]]))
    return by_hand("ziplora", SX, "full", "ZipLoRA", e, {"unet.unet.%s.lora.weight" % m: x["diff"] for (c, m), x in e.items()},
                   kind="ZipLoRA", note="the merged delta as one matrix")


def blora():
    blocks = ["up_blocks.0.attentions.%d.transformer_blocks.%d.%s.%s" % (a, b, t, p) for a in (0, 1) for b in (0, 1) for t in ("attn1", "attn2")
              for p in ("to_q", "to_out.0")]
    pipe, e = build("blora", SX, "lora", unet(blocks))
    return by_hand("blora", SX, "LoRA", "B-LoRA", e,
                   {"unet.unet.%s.lora.%s.weight" % (m, s): x[s] for (c, m), x in e.items()
                    for s in ("down", "up")}, kind="B-LoRA", note="unet.unet.; both blocks")


def moslora(exported):
    name = "moslora_diffusers" if exported else "moslora_peft"
    pipe, e = build(name, S1, "moslora", unet([SD1[0], SD1[1], SD1[3]]), r=3)
    ends = {"down": "lora.down.weight", "up": "lora.up.weight", "mixer": "lora.downB.weight"} if exported else \
        {"down": "lora_A.weight", "up": "lora_B.weight", "mixer": "lora_AB.weight"}
    head = "unet." if exported else "base_model.model."
    return by_hand(name, S1, "MoSLoRA", "diffusers 0.22" if exported else "peft", e,
                   {"%s%s.%s" % (head, m, ends[s]): x[s] for (c, m), x in e.items() for s in ends}, dtype=F32, kind="MoSLoRA",
                   meta=None if exported else {"lora_alpha": "3"})


def edlora():
    pipe, e = build("edlora", S1, "lora", unet(SD1[:4]) + text(TE[:2]))
    for x in e.values():
        x["alpha"] = torch.tensor(float(x["down"].shape[0]))      # the scale is alpha itself, 1: not in the file
    parts = {"unet": {}, "text_encoder": {}}
    for (c, m), x in e.items():
        for s in ("down", "up"):
            parts[c]["%s.lora_%s.weight" % (m, s)] = x[s]
    g = torch.Generator("cpu").manual_seed(5)
    words = {w: 0.3 * torch.randn(11, 24, generator=g) for w in ("<cat1>", "<cat2>")}
    return by_hand("edlora", S1, "LoRA", "ED-LoRA", e, {"params": {"new_concept_embedding": words, **parts}}, ending=".pth", kind="ED-LoRA", words=2,
                   note="scale is alpha itself, 1, never divided by the rank; the words are a concept's")


def simo_order(pipe, component):
    """cloneofsimo's traversal: down, up, mid; attn1, ff.net.0.proj, attn2 with q k v out. Text: k v q out."""
    names = [n for n, _ in getattr(pipe, component).named_modules()]
    if component == "text_encoder":
        layers = sorted({n[:n.index("self_attn") - 1] for n in names if "self_attn" in n}, key=lambda n: int(n.rsplit(".", 1)[1]))
        return [lora.classic(component, "%s.self_attn.%s" % (n, p)) for n in layers for p in ("k_proj", "v_proj", "q_proj", "out_proj")]
    out = []
    for side in ("down_blocks", "up_blocks", "mid_block"):
        blocks = [n for n in names if n.startswith(side) and re.search(r"transformer_blocks\.\d+$", n)]
        for b in blocks:
            out += ["%s.attn1.%s" % (b, p) for p in ("to_q", "to_k", "to_v", "to_out.0")] + [b + ".ff.net.0.proj"]
            out += ["%s.attn2.%s" % (b, p) for p in ("to_q", "to_k", "to_v", "to_out.0")]
    return out


def simo_pt(component):
    name = "simo_" + component
    pipe = untouched(S1)
    order = [(component, m) for m in simo_order(pipe, component)]
    pipe, e = build(name, S1, "lora", order, r=1, dtype=F32)
    return by_hand(name, S1, "LoRA", "cloneofsimo", e, [e[at][s] for at in order for s in ("up", "down")], ending=".pt", legacy=True,
                   note="a list without names: up, down, up, down")


def simo_safetensors():
    pipe = untouched(S1)
    order = {c: [(c, m) for m in simo_order(pipe, c)] for c in ("unet", "text_encoder")}
    pipe, e = build("simo_both", S1, "lora", order["unet"] + order["text_encoder"], r=1)
    t, meta = {}, {}
    for c, ms in order.items():
        meta[c] = json.dumps(["CrossAttention", "Attention", "GEGLU"] if c == "unet" else ["CLIPAttention"])
        for i, at in enumerate(ms):
            t["%s:%d:up" % (c, i)], t["%s:%d:down" % (c, i)] = e[at]["up"], e[at]["down"]
            meta["%s:%d:rank" % (c, i)] = "1"
    t["<s1>"] = 0.3 * torch.randn(24, generator=torch.Generator("cpu").manual_seed(6))
    meta["<s1>"] = "<embed>"
    return by_hand("simo_both", S1, "LoRA", "cloneofsimo", e, t, meta=meta, words=1, note="numbered, with a word's embedding")


def custom(form):
    """Custom Diffusion: keys and values of the cross attention, as whole weights or compressed differences."""
    name = "custom_" + form
    at = [n for n, _ in untouched(S1).unet.named_modules() if n.endswith(("attn2.to_k", "attn2.to_v")) and n.startswith(("down", "mid"))]
    at = at[:4] + [n for n in at if n.startswith("mid")]
    if form in ("bin", "safetensors"):
        blocks = [n.rsplit(".", 1)[0] for n in at[::2]]
        mods = [(b, p) for b in blocks for p in (("to_k", "to_v", "to_q", "to_out.0") if b.startswith("mid") else ("to_k", "to_v"))]
        pipe, e = build(name, S1, "replace", unet(["%s.%s" % x for x in mods]), bias=True, dtype=F32)
    else:
        pipe, e = build(name, S1, "uv" if form == "compressed" else "replace", unet(at), r=2, dtype=F32)
    word = 0.3 * torch.randn(1, 24, generator=torch.Generator("cpu").manual_seed(8))
    cfg = pipe.unet.config
    up = ["CrossAttn" in t for t in cfg.up_block_types]
    more = {"kind": "Custom Diffusion", "note": "whole weights of the keys and values"}
    if form == "ldm":
        t = {"model.diffusion_model.%s.weight" % lora.sgm_name(m, cfg.layers_per_block, up): x["replace"] for (c, m), x in e.items()}
        return by_hand(name, S1, "replacement", "Custom Diffusion, LDM", e, {"state_dict": t | {"embed": word}}, ending=".ckpt", words=1, **more)
    if form in ("delta", "compressed"):
        t = {m + ".weight": x["replace"] if form == "delta" else {"u": x["u"], "v": x["v"]} for (c, m), x in e.items()}
        if form == "compressed":
            more["note"] = "the differences as two factors each"
        return by_hand(name, S1, "replacement" if form == "delta" else "difference", "Custom Diffusion, delta", e,
                       {"unet": t, "modifier_token": {"<new1>": word[0]}}, ending=".bin", words=1, **more)
    t = {}
    for (c, m), x in e.items():
        head, leaf = m.split(".attn2.")
        leaf = "to_out_custom_diffusion.0" if leaf == "to_out.0" else leaf + "_custom_diffusion"
        t["%s.attn2.processor.%s.weight" % (head, leaf)] = x["replace"]
        if "replace_b" in x:
            t["%s.attn2.processor.%s.bias" % (head, leaf)] = x["replace_b"]
    if form == "bin":
        t[A0 + "attn1.processor"] = {}
        more["note"] += "; an attention without its own is an empty entry"
    return by_hand(name, S1, "replacement", "Custom Diffusion, diffusers", e, t, dtype=F32, ending="." + form, how=procs, **more)


def boft_stages():
    """PEFT's BOFT with two butterfly stages: it makes them on CUDA alone, so file and reference come from the formula."""
    name = "peft_boft_stages"
    pipe, e = build(name, S1, "boft_peft", unet([SD1[0], SD1[1], SD1[3], SD1[8]]), dtype=F32)
    folder = os.path.join(FILES, name)
    os.makedirs(folder, exist_ok=True)
    save_file({"base_model.model.%s.%s" % (m, k): x[k].contiguous() for (c, m), x in e.items() for k in ("boft_R", "boft_s")},
              os.path.join(folder, "adapter_model.safetensors"))
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "BOFT", "boft_block_size": 4, "boft_block_num": 0, "boft_n_butterfly_factor": 2, "bias": "none",
                   "target_modules": sorted(m for _, m in e)}, f, indent=1)
    return dict(name=name, model=S1, family="BOFT", dialect="peft", by="ours", file=folder, entries=e, run=None, note="two butterfly stages")


def mixtures():
    return [
        [("lyco_loha", 0.7), ("kohya_lora", 0.5)],
        [("lyco_lokr", 0.8), ("lyco_dora", 0.6)],
        [("peft_oft", 0.9), ("peft_dora", 0.7)],
        [("lyco_norm", 0.5), ("lyco_full", 0.4)],
        [("lyco_ia3", 1.0), ("custom_delta", 0.8)],
        [("lyco_xl_locon", 0.6), ("lyco_xl_glora", 0.5), ("peft_lokr_xl", 0.7)],
    ]


def methods():
    two = lambda a, b, wa=1.0, wb=1.0: [{"name": a, "weight": wa}, {"name": b, "weight": wb}]
    return [
        {"method": "klora", "calls": 4, "files": two("lyco_loha", "lyco_oft"), "options": {"top_k": 24}},
        {"method": "klora", "calls": 3, "files": two("lyco_dora", "peft_lokr", 0.8, 1.0), "options": {"top_k": 16, "pattern": "s"}},
        {"method": "composite", "calls": 1, "files": two("lyco_glora", "peft_boft", 0.9, 0.7), "options": {}},
    ]
