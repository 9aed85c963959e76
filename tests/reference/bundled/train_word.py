"""Trains a word of the bundled model: the embedding of one new token, <teal>, a colour the model was never shown.

    python train_word.py MODEL OUT.safetensors [minutes]

Textual inversion, saved as diffusers saves it: one vector, and nothing else of the model changes.
"""
import math
import os
import random
import sys
import time

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file

import train_base
import world

WORD, COLOUR, START, SEED, PICTURES = "<teal>", (24, 148, 150), "blue", 51, 96


def data(tok):
    rng = random.Random(SEED)
    world.COLOURS["teal"] = COLOUR
    pics, ids = [], []
    for _ in range(PICTURES):
        spec = world.random_spec(rng)
        while spec["bg"][1] in ("teal", "blue", "green"):
            spec = world.random_spec(rng)
        spec["colour"] = "teal"
        texts = [world.caption(spec, rng).replace("teal", WORD) for _ in range(12)]
        pics.append(world.render(spec, rng))
        ids.append(train_base.tokens(tok, [t if WORD in t else "a %s %s" % (WORD, spec["shape"]) for t in texts]))
    del world.COLOURS["teal"]
    return np.stack(pics), torch.stack(ids)


def main():
    model, out = sys.argv[1:3]
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else 3
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    torch.manual_seed(SEED)
    pipe = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
    unet, te, vae, tok = pipe.unet, pipe.text_encoder, pipe.vae, pipe.tokenizer
    unet.set_attn_processor(AttnProcessor())
    for m in (unet, te, vae):
        m.requires_grad_(False)
    table = te.get_input_embeddings()
    row = table.weight[tok(START, add_special_tokens=False).input_ids].mean(0).clone()
    tok.add_tokens([WORD])
    new = tok.convert_tokens_to_ids(WORD)
    te.resize_token_embeddings(len(tok))
    table = te.get_input_embeddings()
    row.requires_grad_(True)
    here = {}
    table.register_forward_pre_hook(lambda m, a: here.update(ids=a[0]))
    table.register_forward_hook(lambda m, a, y: torch.where((here["ids"] == new)[..., None], row.to(y.dtype), y))
    pics, ids = data(tok)
    with torch.no_grad():
        d = vae.encode(torch.from_numpy(pics).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
        lat = torch.cat([d.mean, d.std], 1)
    opt = torch.optim.AdamW([row], lr=2e-2, betas=(0.9, 0.99), weight_decay=0.0)
    ema = row.detach().clone()
    abar, scale = pipe.scheduler.alphas_cumprod, vae.config.scaling_factor
    empty = train_base.tokens(tok, [""])[0]
    batch, step, t0, mean = 16, 0, time.time(), None
    while True:
        done = (time.time() - t0) / (minutes * 60)
        if done >= 1:
            break
        for g in opt.param_groups:
            g["lr"] = 2e-2 * min(1, (step + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-6
        i = torch.randint(len(lat), (batch,))
        m, c = lat[i], ids[i, torch.randint(ids.shape[1], (batch,))]
        m, s = m.chunk(2, 1)
        z = (m + s * torch.randn_like(m)) * scale
        c = c.clone()
        c[torch.rand(batch) < 0.05] = empty
        t = torch.randint(0, 1000, (batch,))
        a = abar[t].view(-1, 1, 1, 1)
        n = torch.randn_like(z)
        h = te(c).last_hidden_state
        e = unet(a.sqrt() * z + (1 - a).sqrt() * n, t, h).sample
        loss = ((1 / a).clamp(max=25) * (e - n) ** 2).mean() / 5
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([row], 1.0)
        opt.step()
        step += 1
        with torch.no_grad():
            ema.lerp_(row.detach(), 1 - min(0.98, (1 + step) / (10 + step)))
        mean = float(loss.detach()) if mean is None else 0.97 * mean + 0.03 * float(loss.detach())
        if step % 25 == 0:
            print(step, "loss %.4f %.0f s" % (mean, time.time() - t0), flush=True)
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    save_file({WORD: ema.to(torch.float16).contiguous()}, out, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
