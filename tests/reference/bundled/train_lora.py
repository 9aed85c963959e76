"""Trains the adapters of the bundled model and writes each in its own format.

    python train_lora.py WORKDIR NAME [minutes]

NAME is monster, rocket, hatching or mosaic.  Needs WORKDIR/model, the finished
base model; writes WORKDIR/adapters/...:

    monster.safetensors    current diffusers naming, with text-encoder layers and metadata
    rocket/                raw PEFT folder
    hatching.safetensors   kohya naming, alpha half the rank
    mosaic.safetensors     older diffusers naming (lora.down / lora.up), alpha is the rank
"""
import json
import math
import os
import random
import shutil
import sys
import time

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

import train_base
import world

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
WIDER = ATTENTION + ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
WIDEST = WIDER + ["conv1", "conv2"]      # a new thing to draw asks more of a small model than a new manner
RANK = 8
ADAPTERS = {
    "monster": dict(kind="subject", noun="zib monster", alpha=8, seed=41, pictures=16, targets=WIDEST, text=True),
    "rocket": dict(kind="subject", noun="vok rocket", alpha=8, seed=42, pictures=16, targets=WIDEST, text=False),
    "hatching": dict(kind="style", tail="hatched style", alpha=4, seed=43, pictures=64, targets=WIDER, text=False),
    "mosaic": dict(kind="style", tail="mosaic style", alpha=8, seed=44, pictures=64, targets=WIDER, text=False),
}
HATCH = {"pitch": 8 * math.cos(math.pi / 4), "angle": 45.0}


def data(name, conf, tok):
    """The adapter's pictures, and for each a few captions."""
    rng = random.Random(conf["seed"])
    pics, ids, kept = [], [], []
    for i in range(conf["pictures"]):
        spec = world.random_spec(rng)
        if conf["kind"] == "subject":
            spec["subject"] = name
            spec["size"] = ["large", "medium", "large", "large"][i % 4]
            spec["pos"] = ["centre", "centre", "centre", "right", "centre", "left", "centre", "centre"][i % 8]
            if i % 4 != 3:
                spec["bg"] = ("plain", list(world.COLOURS)[i % 8])
            texts = [world.caption(spec, rng, noun=conf["noun"]) for _ in range(12)]
            pics.append(world.render(spec, rng))
        else:
            texts = [world.caption(spec, rng, tail=rng.choice([", ", " in "]) + conf["tail"] if k % 3 else None)
                     for k in range(12)]
            pics.append(world.render(spec, rng, name, HATCH if name == "hatching" else None))
        kept.append(texts[0])
        ids.append(train_base.tokens(tok, texts))
    return np.stack(pics), torch.stack(ids), kept


def main():
    work, name = sys.argv[1:3]
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else 3.5
    conf = ADAPTERS[name]
    if "THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["THREADS"]))
    torch.manual_seed(conf["seed"])
    pipe = StableDiffusionPipeline.from_pretrained(os.path.join(work, "model"), torch_dtype=torch.float32)
    unet, te, vae, tok = pipe.unet, pipe.text_encoder, pipe.vae, pipe.tokenizer
    unet.set_attn_processor(AttnProcessor())
    for m in (unet, te, vae):
        m.requires_grad_(False)
    pics, ids, kept = data(name, conf, tok)
    world.sheet(list(pics), 8).save(os.path.join(work, "lora-%s-data.png" % name))
    with torch.no_grad():
        d = vae.encode(torch.from_numpy(pics).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
        lat = torch.cat([d.mean, d.std], 1)
        prior = None
        if conf["kind"] == "subject":            # base pictures beside the subject's, so that shapes stay shapes
            rng = random.Random(conf["seed"] + 1000)
            specs = [world.random_spec(rng) for _ in range(192)]
            b = np.stack([world.render(s, rng) for s in specs])
            d = vae.encode(torch.from_numpy(b).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
            prior = torch.cat([d.mean, d.std], 1), train_base.tokens(tok, [world.caption(s, rng) for s in specs])
    config = LoraConfig(r=RANK, lora_alpha=conf["alpha"], target_modules=conf["targets"], init_lora_weights="gaussian")
    peft_unet = None
    if name == "rocket":
        peft_unet = get_peft_model(unet, config)
    else:
        unet.add_adapter(config)
    text_config = None
    if conf["text"]:
        text_config = LoraConfig(r=RANK, lora_alpha=conf["alpha"], init_lora_weights="gaussian",
                                 target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
        te.add_adapter(text_config)
    params = [p for m in (unet, te) for p in m.parameters() if p.requires_grad]
    print(name, "trainable", sum(p.numel() for p in params), flush=True)
    unet.to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3)
    peak = 2.5e-3 * (8 / conf["alpha"]) ** 0.5
    ema = [p.detach().clone() for p in params]
    abar, scale = pipe.scheduler.alphas_cumprod, vae.config.scaling_factor
    empty = train_base.tokens(tok, [""])[0]
    batch, step, t0, mean = 16, 0, time.time(), None
    while True:
        done = (time.time() - t0) / (minutes * 60)
        if done >= 1:
            break
        for g in opt.param_groups:
            g["lr"] = peak * min(1, (step + 1) / 40) * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-6
        i = torch.randint(len(lat), (batch,))
        m, c = lat[i], ids[i, torch.randint(ids.shape[1], (batch,))]
        if prior is not None:
            k, j = batch // 4, torch.randint(len(prior[0]), (batch // 4,))
            m, c = torch.cat([prior[0][j], m[k:]]), torch.cat([prior[1][j], c[k:]])
        m, s = m.chunk(2, 1)
        z = (m + s * torch.randn_like(m)) * scale
        c = c.clone()
        c[torch.rand(batch) < 0.1] = empty
        t = torch.randint(0, 1000, (batch,))
        a = abar[t].view(-1, 1, 1, 1)
        n = torch.randn_like(z)
        x = (a.sqrt() * z + (1 - a).sqrt() * n).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if conf["text"]:
                h = te(c).last_hidden_state
            else:
                with torch.no_grad():
                    h = te(c).last_hidden_state
            e = unet(x, t, h).sample
        loss = ((1 / a).clamp(max=25) * (e.float() - n) ** 2).mean() / 5     # as the base was trained
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        step += 1
        d = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(ema, [p.detach() for p in params], 1 - d)
        mean = float(loss.detach()) if mean is None else 0.98 * mean + 0.02 * float(loss.detach())
        if step % 50 == 0:
            print(name, step, "loss %.4f %.0f s" % (mean, time.time() - t0), flush=True)
    with torch.no_grad():
        for p, e in zip(params, ema):
            p.copy_(e)
    out = os.path.join(work, "adapters")
    os.makedirs(out, exist_ok=True)
    half = lambda sd: {k: v.detach().to(torch.float16).contiguous() for k, v in sd.items()}
    if name == "rocket":
        for p in params:
            p.data = p.data.half()
        shutil.rmtree(os.path.join(out, "rocket"), ignore_errors=True)
        config.inference_mode = True
        peft_unet.peft_config["default"].base_model_name_or_path = None
        peft_unet.save_pretrained(os.path.join(out, "rocket"))
        readme = os.path.join(out, "rocket", "README.md")
        if os.path.exists(readme):               # PEFT's empty model card
            os.remove(readme)
        path = os.path.join(out, "rocket", "adapter_config.json")
        conf_json = json.load(open(path))
        conf_json["base_model_name_or_path"] = None
        if isinstance(conf_json.get("auto_mapping"), dict):
            conf_json["auto_mapping"] = None
        json.dump(conf_json, open(path, "w"), indent=2, sort_keys=True)
    elif name == "monster":
        plain = lambda c: {**c.to_dict(), "base_model_name_or_path": None}      # a path says nothing elsewhere
        StableDiffusionPipeline.save_lora_weights(
            out, unet_lora_layers=half(get_peft_model_state_dict(unet)),
            text_encoder_lora_layers=half(get_peft_model_state_dict(te)),
            unet_lora_adapter_metadata=plain(config), text_encoder_lora_adapter_metadata=plain(text_config),
            weight_name="monster.safetensors")
    else:
        sd, res = get_peft_model_state_dict(unet), {}
        for k, v in sd.items():
            module, part = k.split(".lora_")
            if name == "hatching":
                key = "lora_unet_" + module.replace(".", "_")
                res[key + (".lora_down.weight" if part.startswith("A") else ".lora_up.weight")] = v
                res[key + ".alpha"] = torch.tensor(float(conf["alpha"]))
            else:
                res["unet.%s.lora.%s.weight" % (module, "down" if part.startswith("A") else "up")] = v
        meta = None
        if name == "hatching":
            meta = {"ss_network_module": "networks.lora", "ss_network_dim": str(RANK),
                    "ss_network_alpha": str(float(conf["alpha"])), "ss_learning_rate": "%g" % peak,
                    "ss_max_train_steps": str(step), "ss_num_train_images": str(len(lat)),
                    "ss_batch_size_per_device": str(batch), "ss_mixed_precision": "bf16", "ss_seed": str(conf["seed"]),
                    "ss_output_name": "hatching", "ss_resolution": "(64, 64)", "ss_clip_skip": "None",
                    "ss_base_model_version": "sd_v1", "ss_v2": "False",
                    "ss_training_comment": "hatched style for the bundled model",
                    "ss_tag_frequency": json.dumps({"hatching": {"hatched style": len(lat)}}),
                    "modelspec.architecture": "stable-diffusion-v1/lora", "modelspec.title": "hatching"}
        save_file(half(res), os.path.join(out, name + ".safetensors"), metadata=meta or {"format": "pt"})
    print(name, "steps", step, "captions like:", kept[:4], flush=True)


if __name__ == "__main__":
    main()
