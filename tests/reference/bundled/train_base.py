"""Trains the text encoder and the UNet of the bundled model.

    python train_base.py WORKDIR prepare          draws the pictures and captions
    python train_base.py WORKDIR text [minutes]   gives the text encoder a start
    python train_base.py WORKDIR train [minutes [SNAPSHOT]]   trains both, with snapshots,
                                                  from SNAPSHOT where one is given

On a shared machine two workers of one thread each do better than one of two:
start the last stage twice, with RANK=0 and RANK=1 and WORKERS=2 in the environment.
Needs WORKDIR/tokenizer and WORKDIR/vae.  Snapshots go to WORKDIR/snap (a
diffusers folder) with contact sheets WORKDIR/snap-N.png.
"""
import math
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import world

SEED = 21
PICTURES = 32000
USED = 12000          # of them, in the training of the UNet
CAPTIONS = 4          # captions kept of each picture
LENGTH = 77
SHORT = 28
UNET = dict(
    sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(48, 96, 128),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    mid_block_type="UNetMidBlock2DCrossAttn",
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    norm_num_groups=16, cross_attention_dim=128, attention_head_dim=4, use_linear_projection=False)
TEXT = dict(
    hidden_size=128, intermediate_size=512, projection_dim=128, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=LENGTH, hidden_act="quick_gelu", layer_norm_eps=1e-5)
PROMPTS = [
    "a red circle on a blue background",
    "a large green star on a yellow background",
    "a large yellow heart on a purple background",
    "a white cross on a black background",
    "a blue ring in the centre on an orange background",
    "an orange triangle at the bottom left on a white background",
    "a purple diamond on green stripes",
    "a black square at the top on red checks",
    "a large red star in a meadow",
    "a large yellow circle at night",
]


def scheduler():
    return DDIMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                         clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon")


def text_model(tokenizer):
    return CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id,
                                        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
                                        **TEXT))


def tokens(tokenizer, texts, length=LENGTH):
    return torch.tensor(tokenizer(texts, padding="max_length", max_length=length, truncation=True).input_ids)


def attributes(spec):
    """The numbers the text encoder first learns to name."""
    colours = list(world.COLOURS)
    kinds = ["plain", "stripes", "checks"] + world.SCENES
    return [world.SHAPES.index(spec["shape"]), colours.index(spec["colour"]), kinds.index(spec["bg"][0]),
            colours.index(spec["bg"][1]) if spec["bg"][1] else 8, list(world.POSITIONS).index(spec["pos"]),
            ["small", "medium", "large"].index(spec["size"])]


CLASSES = [8, 8, 6, 9, 9, 3]


def prepare(work):
    t0 = time.time()
    tok = CLIPTokenizer.from_pretrained(os.path.join(work, "tokenizer"))
    rng = random.Random(SEED)
    pics = np.zeros((PICTURES, 64, 64, 3), np.uint8)
    texts, attrs = [], []
    for i in range(PICTURES):
        spec = world.random_spec(rng)
        pics[i] = world.render(spec, rng)
        texts += [world.caption(spec, rng) for _ in range(CAPTIONS)]
        attrs.append(attributes(spec))
    ids = torch.cat([tokens(tok, texts[i:i + 4096]) for i in range(0, len(texts), 4096)]).short()
    np.save(os.path.join(work, "pics.npy"), pics)
    torch.save({"ids": ids.view(PICTURES, CAPTIONS, LENGTH), "attrs": torch.tensor(attrs)}, os.path.join(work, "captions.pt"))
    print("prepared in", round(time.time() - t0, 1), "s; longest caption", int((ids != tok.eos_token_id).sum(1).max()) + 1)


def train_text(work, minutes):
    torch.manual_seed(SEED)
    tok = CLIPTokenizer.from_pretrained(os.path.join(work, "tokenizer"))
    te = text_model(tok)
    print("text encoder parameters", sum(p.numel() for p in te.parameters()), flush=True)
    d = torch.load(os.path.join(work, "captions.pt"))
    head = torch.nn.Linear(TEXT["hidden_size"], sum(CLASSES))
    params = list(te.parameters()) + list(head.parameters())
    opt = torch.optim.AdamW(params, lr=1e-3, weight_decay=0.01)
    step, t0, length = 0, time.time(), 40
    while True:
        done = (time.time() - t0) / (minutes * 60)
        if done >= 1:
            break
        for g in opt.param_groups:
            g["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - done) + 1e-5
        i = torch.randint(PICTURES, (128,))
        ids = d["ids"][i, torch.randint(CAPTIONS, (128,)), :length].long()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = te(ids).last_hidden_state
        after = (ids == tok.eos_token_id).float()
        pick = torch.multinomial(after, 4)       # the end token or any padding after it
        h = h.float().gather(1, pick[..., None].expand(-1, -1, h.shape[-1]))
        out = head(h).split(CLASSES, -1)
        a = d["attrs"][i]
        loss = sum(F.cross_entropy(o.flatten(0, 1), a[:, k].repeat_interleave(4)) for k, o in enumerate(out))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        step += 1
        if step % 50 == 0:
            acc = [round(float((o[:, 0].argmax(-1) == a[:, k]).float().mean()), 2) for k, o in enumerate(out)]
            print(step, "loss %.3f" % float(loss.detach()), acc, "%.0f s" % (time.time() - t0), flush=True)
    te.save_pretrained(os.path.join(work, "text_start"))


def encode(work, vae, first, last):
    pics = np.load(os.path.join(work, "pics.npy"), mmap_mode="r")
    out = []
    vae = vae.to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for i in range(first, last, 32):
            x = torch.from_numpy(np.array(pics[i:min(i + 32, last)])).permute(0, 3, 1, 2).float() / 127.5 - 1
            d = vae.encode(x.to(memory_format=torch.channels_last)).latent_dist
            out.append(torch.cat([d.mean, d.std], 1).float())
    return torch.cat(out)


def pipeline(work, te, unet, tok, vae):
    p = StableDiffusionPipeline(vae=vae, text_encoder=te, tokenizer=tok, unet=unet, scheduler=scheduler(),
                                safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    p.set_progress_bar_config(disable=True)
    return p


def sample(pipe, prompts, per, path, steps=20, guidance=5.0, seed=100):
    pics = []
    for s in range(per):
        g = [torch.Generator().manual_seed(seed + s) for _ in prompts]
        pics += list(pipe(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=g,
                          output_type="np").images)
    world.sheet([(p * 255).round().astype(np.uint8) for p in pics], len(prompts)).save(path)


def train(work, minutes, start):
    rank, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORKERS", 1))
    if workers > 1:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method="file://" + os.path.abspath(os.path.join(work, "meet")),
                                             rank=rank, world_size=workers)
    torch.manual_seed(SEED + 1)
    tok = CLIPTokenizer.from_pretrained(os.path.join(work, "tokenizer"))
    vae = AutoencoderKL.from_pretrained(os.path.join(work, "vae")).eval()
    te = CLIPTextModel.from_pretrained(os.path.join(start, "text_encoder") if start else os.path.join(work, "text_start"),
                                       attn_implementation="eager", dtype=torch.float32).train()
    if start:
        unet = UNet2DConditionModel.from_pretrained(os.path.join(start, "unet"))
    else:
        unet = UNet2DConditionModel(**UNET)
    unet.to(memory_format=torch.channels_last).train()
    unet.set_attn_processor(AttnProcessor())       # a quarter faster here than torch's fused attention
    print("UNet parameters", sum(p.numel() for p in unet.parameters()), flush=True)
    ids = torch.load(os.path.join(work, "captions.pt"))["ids"]
    t0 = time.time()
    part = USED // workers
    kept = os.path.join(work, "latents-%d-of-%d.pt" % (rank, workers))
    if not os.path.exists(kept):
        torch.save(encode(work, vae, rank * part, (rank + 1) * part), kept)       # each worker its own pictures
    lat = torch.load(kept)
    ids = ids[rank * part:(rank + 1) * part]
    print("encoded in %.0f s" % (time.time() - t0), flush=True)
    scale = vae.config.scaling_factor
    abar = scheduler().alphas_cumprod
    empty = tokens(tok, [""])[0]
    groups = [{"params": list(unet.parameters()), "peak": 1e-3 if start else 1.2e-3}, {"params": list(te.parameters()), "peak": 4e-4}]
    opt = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    live = {("unet", k): v for k, v in unet.named_parameters()} | {("te", k): v for k, v in te.named_parameters()}
    ema = {k: v.detach().clone() for k, v in live.items()}

    def snapshot(tag):
        held = {k: v.detach().clone() for k, v in live.items()}
        with torch.no_grad():
            for k, v in live.items():
                v.copy_(ema[k])
        unet.eval(), te.eval()
        pipe = pipeline(work, te, unet, tok, vae)
        sample(pipe, PROMPTS, 2, os.path.join(work, "snap-%s.png" % tag))
        pipe.save_pretrained(os.path.join(work, "snap"))
        with torch.no_grad():
            for k, v in live.items():
                v.copy_(held[k])
        unet.train(), te.train()

    batch, step, t0, mean, shots = 32 // workers, 0, time.time(), None, 0
    torch.manual_seed(SEED + 2 + rank)
    weights = list(live.values())
    while True:
        done = torch.tensor((time.time() - t0) / (minutes * 60))
        if workers > 1:
            torch.distributed.broadcast(done, 0)
        done = float(done)
        if done >= 1:
            break
        rate = min(1, (step + 1) / (60 if start else 150)) * (0.5 + 0.5 * math.cos(math.pi * done)) + 0.005
        for g in opt.param_groups:
            g["lr"] = g["peak"] * rate
        i = torch.randint(len(lat), (batch,))
        m, s = lat[i].chunk(2, 1)
        z = (m + s * torch.randn_like(m)) * scale
        c = ids[i, torch.randint(CAPTIONS, (batch,))].long()
        c[torch.rand(batch) < 0.1] = empty
        if done < 0.8:                             # no caption is longer; the padding comes later
            c = c[:, :SHORT]
        t = torch.randint(0, 1000, (batch,))
        # and they come more often
        t = torch.where(torch.rand(batch) < 0.35, torch.randint(650, 1000, (batch,)), t)
        a = abar[t].view(-1, 1, 1, 1)
        # the noise's mean is made to wander, so that the ground's colour is read from the caption
        # and not from what little of it shows through the strongest noise
        n = torch.randn_like(z) + 0.12 * torch.randn(batch, 4, 1, 1)
        x = (a.sqrt() * z + (1 - a).sqrt() * n).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            e = unet(x, t, te(c).last_hidden_state).sample
        # weighted as if the velocity were predicted: otherwise the noisy steps, which decide what is where, count for
        # nearly nothing
        w = (1 / a).clamp(max=40)
        loss = (w * (e.float() - n) ** 2).mean() / 5
        opt.zero_grad(set_to_none=True)
        loss.backward()
        if workers > 1:
            flat = torch.cat([w.grad.flatten() for w in weights])
            torch.distributed.all_reduce(flat)
            for w, g in zip(weights, flat.div_(workers).split([w.numel() for w in weights])):
                w.grad.copy_(g.view_as(w))
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        opt.step()
        step += 1
        d = min(0.9993, (1 + step) / (20 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.values()), [v.detach() for v in live.values()], 1 - d)
        mean = float(loss.detach()) if mean is None else 0.99 * mean + 0.01 * float(loss.detach())
        if step % 50 == 0:
            print(step, "loss %.4f lr %.5f %.0f s" % (mean, opt.param_groups[0]["lr"], time.time() - t0), flush=True)
        if rank == 0 and (time.time() - t0) / 60 > [7, 13, 1e9][shots]:
            shots += 1
            snapshot(str(shots))
            print("snapshot", shots, flush=True)
    if rank == 0:
        snapshot("final")
    print("done", step, flush=True)


if __name__ == "__main__":
    work, stage = sys.argv[1:3]
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else None
    if stage == "prepare":
        prepare(work)
    elif stage == "text":
        train_text(work, minutes or 1.5)
    else:
        train(work, minutes or 40, sys.argv[4] if len(sys.argv) > 4 else None)
