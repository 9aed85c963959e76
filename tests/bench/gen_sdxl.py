#!/usr/bin/env python3
"""Random-weight SDXL-shaped models, base or refiner, as diffusers folders: for benchmarks and load tests.

Names and shapes come from the tables of the published files (tests/data/tables/*.tsv), the values from gen_sd15.py's rule:
normal with std 1/sqrt(fan_in), norms 1, biases 0. No tokenizers: those hold a vocabulary, which cannot be random.

    gen_sdxl.py OUTDIR [--family base|refiner] [--parts unet,vae,te,te2] [--dtype f16|f32|bf16] [--seed N]

numpy only; 6.9 GB for a whole base model in f16, 5.3 for --parts unet,vae. Same seed, same files.
"""
import argparse
import json
import os

import numpy as np
from gen_sd15 import TE_CONFIG, UNET_CONFIG, VAE_CONFIG, values, write_safetensors

TABLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "tables")

UNETS = {
    "base": ("sdxl_unet.tsv", dict(
        UNET_CONFIG, block_out_channels=[320, 640, 1280], attention_head_dim=[5, 10, 20], transformer_layers_per_block=[1, 2, 10],
        cross_attention_dim=2048, use_linear_projection=True, sample_size=128,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)),
    "refiner": ("sdxl_refiner_unet.tsv", dict(
        UNET_CONFIG, block_out_channels=[384, 768, 1536, 1536], attention_head_dim=[6, 12, 24, 24], transformer_layers_per_block=4,
        cross_attention_dim=1280, use_linear_projection=True, sample_size=128,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2560)),
}
VAE = ("vae_kl.tsv", dict(VAE_CONFIG, sample_size=1024, scaling_factor=0.13025, force_upcast=True))
TE = ("sdxl_te1_clip_l.tsv", TE_CONFIG)
TE2 = ("sdxl_te2_openclip_bigg.tsv", dict(
    TE_CONFIG, architectures=["CLIPTextModelWithProjection"], hidden_act="gelu", hidden_size=1280, intermediate_size=5120,
    num_attention_heads=20, num_hidden_layers=32, projection_dim=1280))
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon", "steps_offset": 1,
    "timestep_spacing": "leading", "use_karras_sigmas": False,
}


def entries(table, part, seed, dtype):
    with open(os.path.join(TABLES, table), encoding="utf-8") as f:
        head, *rows = [line.rstrip("\n").split("\t") for line in f]
    name_at, shape_at = head.index("diffusers_name"), head.index("shape")
    out = []
    for row in rows:
        name = row[name_at]
        if name == "-" or name.endswith("position_ids"):
            continue
        shape = tuple(int(n) for n in row[shape_at].split("x"))
        if len(shape) == 1:
            fan = None if name.endswith("weight") else 0
        else:
            fan = 2500 if "embedding.weight" in name else int(np.prod(shape[1:]))  # tables of words: std 0.02
        out.append((name, shape, dtype, lambda k=part + name, s=shape, f=fan: values(k, seed, s, f)))
    return out


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=2)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--family", choices=sorted(UNETS), default="base")
    p.add_argument("--parts", default="unet,vae,te,te2")
    p.add_argument("--dtype", choices=("f16", "f32", "bf16"), default="f16")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    files = {"unet": ("unet", "diffusion_pytorch_model") + UNETS[a.family], "vae": ("vae", "diffusion_pytorch_model") + VAE,
             "te": ("text_encoder", "model") + TE, "te2": ("text_encoder_2", "model") + TE2}
    if a.family == "refiner":
        del files["te"]
    classes = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
               "te": ["transformers", "CLIPTextModel"], "te2": ["transformers", "CLIPTextModelWithProjection"]}
    index = {"_class_name": "StableDiffusionXLPipeline" if a.family == "base" else "StableDiffusionXLImg2ImgPipeline",
             "force_zeros_for_empty_prompt": a.family == "base", "requires_aesthetics_score": a.family == "refiner",
             "scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    for part, (folder, stem, table, config) in files.items():
        there = part in a.parts.split(",")
        index[folder] = classes[part] if there else [None, None]
        if not there:
            continue
        d = os.path.join(a.out, folder)
        os.makedirs(d, exist_ok=True)
        e = entries(table, part, a.seed, a.dtype)
        n = write_safetensors(os.path.join(d, stem + ".safetensors"), e, {"format": "pt"})
        write_json(os.path.join(d, "config.json"), config)
        print("%s: %d tensors, %.3f GB" % (d, len(e), n / 1e9), flush=True)
    os.makedirs(os.path.join(a.out, "scheduler"), exist_ok=True)
    write_json(os.path.join(a.out, "scheduler", "scheduler_config.json"), SCHEDULER)
    write_json(os.path.join(a.out, "model_index.json"), index)


if __name__ == "__main__":
    main()
