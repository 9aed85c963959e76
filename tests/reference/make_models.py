"""Write tests/data/models: tiny random models of the SD1, SD2 and SDXL styles, as complete diffusers folders; and
three smaller ones whose UNets are told more: SDXL's refiner, inpainting (9 channels), and one distilled to few steps.

    python make_models.py [NAME ...]

They are small and strange on purpose. Between them: three dtypes, two and three levels, one and two layers per
block, scalar and listed head counts, conv and linear projections, attention in the outer or only in the middle
levels, stacked transformer layers, added conditioning, both text encoder naming styles, three vocabularies.
The weights are normal with about 1/sqrt(fan_in), queries and keys sharper, norms and biases away from 1 and 0, so
a forgotten bias, a swapped axis or a uniform attention shows in the output.
"""
import json
import os
import shutil
import sys

import common
import torch
from common import MODELS, SHARED
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, LatentConsistencyModelPipeline, LCMScheduler,
                       PNDMScheduler, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
                       StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


def liven(module, seed):
    g = torch.Generator("cpu").manual_seed(seed)
    for name, p in sorted(module.named_parameters()):
        r = torch.randn(p.shape, generator=g)
        last = name.rsplit(".", 2)[-2]
        if "embedding" in name and name.endswith("embedding.weight"):
            p.copy_(r * (0.6 if "token" in name else 0.3))
        elif p.ndim >= 2:
            sharp = 1.3 if last in ("to_q", "to_k", "q_proj", "k_proj") else 1.0
            if last in ("conv2", "proj_out", "out_proj", "fc2") or name.endswith(("to_out.0.weight", "ff.net.2.weight")):
                sharp = 0.6     # quieter branches: a random net without them magnifies rounding a hundredfold
            if name.endswith("_embedding.linear_1.weight"):
                sharp = 0.4     # angles of t = 999 are good to 1e-5 in f32, whoever computes them: do not magnify that
            if last == "cond_proj":
                sharp = 0.1     # likewise: these angles go into the thousands
            p.copy_(r * sharp / (p.numel() / p.shape[0]) ** 0.5)
        elif name.endswith(".weight"):
            p.copy_(1 + 0.2 * r)
        else:
            p.copy_(0.15 * r)
    return module.eval()


def byte_symbols():
    own = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in own]
    return [chr(b) for b in own] + [chr(256 + i) for i in range(len(rest))]


def tokenizer(merges, pad, shuffle=None, length=77):
    """A CLIP tokenizer over the first `merges` merges of CLIP's own list. `shuffle` gives the ids no order that
    could be guessed from the merges; BOS and EOS stay last. transformers 5 saves tokenizer.json alone, published models
    carry vocab.json and merges.txt: write both."""
    with open(os.path.join(SHARED, "clip_bpe_merges.txt"), encoding="utf-8") as f:
        pairs = [tuple(l.split()) for l in f.read().split("\n") if l][:merges]
    sym = byte_symbols()
    words = sym + [s + "</w>" for s in sym] + [a + b for a, b in pairs]
    if shuffle is not None:
        order = torch.randperm(len(words), generator=torch.Generator("cpu").manual_seed(shuffle)).tolist()
        words = [words[i] for i in order]
    vocab = {w: i for i, w in enumerate(words + ["<|startoftext|>", "<|endoftext|>"])}
    t = CLIPTokenizer(vocab=vocab, merges=pairs, pad_token=pad, model_max_length=length)
    return t, vocab, pairs


def add_classic_files(folder, vocab, pairs, pad):
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump(vocab, f, ensure_ascii=True, separators=(",", ":"))
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join("%s %s\n" % p for p in pairs))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": pad, "unk_token": "<|endoftext|>"}
    with open(os.path.join(folder, "special_tokens_map.json"), "w") as f:
        json.dump(special, f, indent=1)


def text_config(vocab, **kw):
    bos, eos = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    base = dict(vocab_size=len(vocab), max_position_embeddings=77, bos_token_id=bos, eos_token_id=eos,
                pad_token_id=1, layer_norm_eps=1e-5, attn_implementation="eager")
    base.update(kw)
    return CLIPTextConfig(**base)


def classic_text_names(folder):
    """transformers 5 dropped `text_model.` from CLIPTextModel's names; every published model still has it."""
    path = os.path.join(folder, "model.safetensors")
    t = load_file(path)
    save_file({k if k.startswith(("text_model.", "text_projection")) else "text_model." + k: v for k, v in t.items()},
              path, metadata={"format": "pt"})


def old_vae_names(folder):
    """The attention names of VAE files from before diffusers 0.18."""
    path = os.path.join(folder, "diffusion_pytorch_model.safetensors")
    ren = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    out = {}
    for k, v in load_file(path).items():
        for a, b in ren.items():
            k = k.replace(a, b)
        out[k] = v
    save_file(out, path, metadata={"format": "pt"})


SCHED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1)


def tiny_sd1():
    """f16. Three levels, two layers per block, conv projections, two heads everywhere, quick_gelu."""
    pad = "<|endoftext|>"
    tok, vocab, pairs = tokenizer(256, pad)
    unet = liven(UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(8, 16, 24),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24, attention_head_dim=2, norm_num_groups=4), 101)
    vae = liven(AutoencoderKL(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, sample_size=32,
                              down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                              latent_channels=4, scaling_factor=0.18215), 102)
    te = liven(CLIPTextModel(text_config(vocab, hidden_size=24, intermediate_size=64, num_hidden_layers=3,
                                         num_attention_heads=3, hidden_act="quick_gelu", projection_dim=24)), 103)
    pipe = StableDiffusionPipeline(vae=vae, text_encoder=te, tokenizer=tok, unet=unet,
                                   scheduler=PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **SCHED),
                                   safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return pipe, torch.float16, {"tokenizer": (vocab, pairs, pad)}, {}


def tiny_sd2():
    """f32. Attention only in the middle level of three, one layer per block, linear projections, listed heads, v."""
    pad = "!"
    tok, vocab, pairs = tokenizer(160, pad, shuffle=7)
    unet = liven(UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=20, attention_head_dim=[2, 4, 8], use_linear_projection=True, norm_num_groups=4), 201)
    vae = liven(AutoencoderKL(block_out_channels=(4, 8, 8), layers_per_block=1, norm_num_groups=2, sample_size=64,
                              down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
                              latent_channels=4, scaling_factor=0.18215), 202)
    te = liven(CLIPTextModel(text_config(vocab, hidden_size=20, intermediate_size=48, num_hidden_layers=2,
                                         num_attention_heads=2, hidden_act="gelu", projection_dim=16)), 203)
    pipe = StableDiffusionPipeline(vae=vae, text_encoder=te, tokenizer=tok, unet=unet,
                                   scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False,
                                                           prediction_type="v_prediction", **SCHED),
                                   safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return pipe, torch.float32, {"tokenizer": (vocab, pairs, pad)}, {"classic_text": ["text_encoder"], "old_vae": True}


def tiny_sdxl():
    """bf16. Two layers per block (so SDXL's own LDM block names fit), one then two transformer layers, added conditioning."""
    pads = ("<|endoftext|>", "!")
    tok1, vocab1, pairs1 = tokenizer(200, pads[0])
    tok2, vocab2, pairs2 = tokenizer(200, pads[1])
    h1, h2, proj, ids = 16, 24, 20, 8
    unet = liven(UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 2], attention_head_dim=[1, 2, 4], cross_attention_dim=h1 + h2,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=ids,
        projection_class_embeddings_input_dim=proj + 6 * ids, norm_num_groups=4), 301)
    vae = liven(AutoencoderKL(block_out_channels=(8, 8), layers_per_block=2, norm_num_groups=4, sample_size=32,
                              down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                              latent_channels=4, scaling_factor=0.13025, force_upcast=True), 302)
    te1 = liven(CLIPTextModel(text_config(vocab1, hidden_size=h1, intermediate_size=32, num_hidden_layers=2,
                                          num_attention_heads=2, hidden_act="quick_gelu", projection_dim=h1,
                                          eos_token_id=2)), 303)
    te2 = liven(CLIPTextModelWithProjection(text_config(vocab2, hidden_size=h2, intermediate_size=48, num_hidden_layers=3,
                                                        num_attention_heads=4, hidden_act="gelu", projection_dim=proj)), 304)
    pipe = StableDiffusionXLPipeline(
        vae=vae, text_encoder=te1, text_encoder_2=te2, tokenizer=tok1, tokenizer_2=tok2, unet=unet,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", interpolation_type="linear", **SCHED),
        force_zeros_for_empty_prompt=True, add_watermarker=False)
    return pipe, torch.bfloat16, {"tokenizer": (vocab1, pairs1, pads[0]), "tokenizer_2": (vocab2, pairs2, pads[1])}, \
        {"classic_text": ["text_encoder"]}


def small_vae(seed, **kw):
    return liven(AutoencoderKL(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, sample_size=32,
                               down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                               latent_channels=4, **kw), seed)


def tiny_refiner():
    """f16. SDXL's refiner: the second text encoder alone, five time ids with the aesthetic score last, four levels of
    which the two in the middle attend, two transformer layers in each."""
    pad = "!"
    tok, vocab, pairs = tokenizer(120, pad)
    hidden, proj, ids = 20, 12, 8
    unet = liven(UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 8, 12, 12),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=2, attention_head_dim=[1, 2, 3, 3], cross_attention_dim=hidden,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=ids,
        projection_class_embeddings_input_dim=proj + 5 * ids, norm_num_groups=4), 401)
    vae = small_vae(402, scaling_factor=0.13025, force_upcast=True)
    te = liven(CLIPTextModelWithProjection(text_config(vocab, hidden_size=hidden, intermediate_size=32, num_hidden_layers=3,
                                                       num_attention_heads=2, hidden_act="gelu", projection_dim=proj)), 403)
    pipe = StableDiffusionXLImg2ImgPipeline(
        vae=vae, text_encoder=None, text_encoder_2=te, tokenizer=None, tokenizer_2=tok, unet=unet,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", interpolation_type="linear", **SCHED),
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, add_watermarker=False)
    return pipe, torch.float16, {"tokenizer_2": (vocab, pairs, pad)}, {"lean": True}


def tiny_inpaint():
    """f16. SD1's inpainting: latents, mask and masked picture make 9 channels."""
    pad = "<|endoftext|>"
    tok, vocab, pairs = tokenizer(120, pad)
    unet = liven(UNet2DConditionModel(
        sample_size=16, in_channels=9, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4), 501)
    te = liven(CLIPTextModel(text_config(vocab, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                         num_attention_heads=2, hidden_act="quick_gelu", projection_dim=16)), 503)
    pipe = StableDiffusionInpaintPipeline(vae=small_vae(502, scaling_factor=0.18215), text_encoder=te, tokenizer=tok,
                                          unet=unet, scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **SCHED),
                                          safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return pipe, torch.float16, {"tokenizer": (vocab, pairs, pad)}, {"classic_text": ["text_encoder"], "lean": True}


def tiny_lcm():
    """f32. Distilled to few steps: the time embedding is told the guidance through cond_proj."""
    pad = "<|endoftext|>"
    tok, vocab, pairs = tokenizer(120, pad)
    unet = liven(UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 12),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4, time_cond_proj_dim=32), 601)
    te = liven(CLIPTextModel(text_config(vocab, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                         num_attention_heads=2, hidden_act="quick_gelu", projection_dim=16)), 603)
    pipe = LatentConsistencyModelPipeline(vae=small_vae(602, scaling_factor=0.18215), text_encoder=te, tokenizer=tok,
                                          unet=unet, scheduler=LCMScheduler(original_inference_steps=50, **SCHED),
                                          safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return pipe, torch.float32, {"tokenizer": (vocab, pairs, pad)}, {"classic_text": ["text_encoder"], "lean": True}


MAKERS = {"tiny-sd1": tiny_sd1, "tiny-sd2": tiny_sd2, "tiny-sdxl": tiny_sdxl, "tiny-refiner": tiny_refiner,
          "tiny-inpaint": tiny_inpaint, "tiny-lcm": tiny_lcm}


def size(folder):
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(folder) for f in fs)


def main():
    for name in sys.argv[1:] or MAKERS:
        pipe, dtype, toks, extra = MAKERS[name]()
        folder = os.path.join(MODELS, name)
        shutil.rmtree(folder, ignore_errors=True)
        for n in ("unet", "vae", "text_encoder", "text_encoder_2"):
            m = getattr(pipe, n, None)
            if m is not None:
                m.to(dtype)
        pipe.save_pretrained(folder, safe_serialization=True)
        for n, (vocab, pairs, pad) in toks.items():
            add_classic_files(os.path.join(folder, n), vocab, pairs, pad)
            if extra.get("lean"):   # as published: the classic files alone
                os.remove(os.path.join(folder, n, "tokenizer.json"))
        for n in extra.get("classic_text", []):
            classic_text_names(os.path.join(folder, n))
        if extra.get("old_vae"):
            old_vae_names(os.path.join(folder, "vae"))
        for d, _, files in os.walk(folder):
            for f in files:
                os.chmod(os.path.join(d, f), 0o644)
        count = {n: sum(p.numel() for p in getattr(pipe, n).parameters()) for n in ("unet", "vae", "text_encoder", "text_encoder_2")
                 if getattr(pipe, n, None) is not None}
        print(name, count, "%d bytes" % size(folder))


if __name__ == "__main__":
    main()
