"""Trains the autoencoder of the bundled model.

    python train_vae.py WORKDIR [minutes]            from nothing, whole pictures
    python train_vae.py WORKDIR minutes refine       goes on, on quarter pictures (four times the
                                                     steps in the time), whole ones for the last third
    python train_vae.py WORKDIR minutes decoder      goes on with the decoder alone, latents unchanged

Writes WORKDIR/vae (diffusers folder, f32) and WORKDIR/vae.png.
"""
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import world

CONFIG = dict(in_channels=3, out_channels=3, latent_channels=4, sample_size=64,
              down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
              block_out_channels=(24, 48, 72), layers_per_block=1, norm_num_groups=8)
SEED = 11


def pictures(n, seed):
    rng = random.Random(seed)
    return torch.from_numpy(np.stack([world.broad_picture(rng) for _ in range(n)])).permute(0, 3, 1, 2).contiguous()


def main():
    work = sys.argv[1]
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 14
    os.makedirs(work, exist_ok=True)
    torch.manual_seed(SEED)
    random.seed(SEED)
    t0 = time.time()
    data = pictures(12000, SEED)
    held = pictures(60, SEED + 1)
    print("drawn", len(data), "in", round(time.time() - t0, 1), "s", flush=True)
    mode = sys.argv[3] if len(sys.argv) > 3 else "new"
    if mode == "new":
        vae = AutoencoderKL(**CONFIG)
    else:
        vae = AutoencoderKL.from_pretrained(os.path.join(work, "vae")).train()
    vae.to(memory_format=torch.channels_last)
    if mode == "decoder":
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    print("parameters", sum(p.numel() for p in vae.parameters()), flush=True)
    opt = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    ema = {k: v.clone() for k, v in vae.state_dict().items()}
    batch, step, t0 = 16, 0, time.time()
    peak = {"new": 1.5e-3, "refine": 1e-3, "decoder": 6e-4}[mode]
    while True:
        done = (time.time() - t0) / (minutes * 60)
        if done >= 1:
            break
        lr = peak * min(1, (step + 1) / 100) * (1 - done) + 1e-5
        for g in opt.param_groups:
            g["lr"] = lr
        n = batch if mode == "new" else 16 if done < 0.67 else 6
        x = data[torch.randint(len(data), (n,))].float() / 127.5 - 1
        if mode != "new" and done < 0.67:
            i, j = 4 * random.randrange(9), 4 * random.randrange(9)
            x = x[:, :, i:i + 32, j:j + 32]
        x = x.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            post = vae.encode(x).latent_dist
            z = post.mean + post.std * torch.randn_like(post.mean)
            y = vae.decode(z).sample
        y = y.float()
        rec = (y - x).abs().mean() + 2 * F.mse_loss(y, x)
        dx = lambda a: a[..., 1:] - a[..., :-1]
        dy = lambda a: a[..., 1:, :] - a[..., :-1, :]
        edge = (dx(y) - dx(x)).abs().mean() + (dy(y) - dy(x)).abs().mean()
        kl = post.kl().float().mean() / x[0].numel()
        loss = rec + 0.5 * edge + 1e-4 * kl
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        opt.step()
        step += 1
        d = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for k, v in vae.state_dict().items():
                ema[k].lerp_(v, 1 - d)
        if step % 200 == 0 or step == 10:
            print(step, "l1+2mse %.4f edge %.4f kl %.2f lr %.5f %.0f s" % (rec.item(), edge.item(), kl.item(), lr, time.time() - t0), flush=True)
    vae.load_state_dict(ema)
    vae.eval()
    with torch.no_grad():
        x = held.float() / 127.5 - 1
        z = vae.encode(x).latent_dist.mean
        y = vae.decode(z).sample.clamp(-1, 1)
        print("held-out psnr %.2f" % float(10 * torch.log10(4 / F.mse_loss(y, x))), flush=True)
        base_rng = random.Random(5)
        b = torch.from_numpy(np.stack([world.render(world.random_spec(base_rng), base_rng) for _ in range(1000)]))
        zb = torch.cat([vae.encode(c.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.sample() for c in b.split(100)])
        print("latent mean", zb.mean((0, 2, 3)).tolist(), "std", zb.std((0, 2, 3)).tolist(), flush=True)
        if mode != "decoder":
            vae.register_to_config(scaling_factor=round(float(1 / zb.std()), 4))
    vae.save_pretrained(os.path.join(work, "vae"))
    both = []
    for i in range(60):
        both.append((x[i], y[i]))
    pics = [((p.permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(np.uint8) for pair in both for p in pair]
    world.sheet(pics, 12).save(os.path.join(work, "vae.png"))


if __name__ == "__main__":
    main()
