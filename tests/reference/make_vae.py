"""Pictures to latents and back: drawing from the encoder's distribution, and diffusers' tiles in both directions.

    python make_vae.py         golden/vae.json, golden/vae.safetensors, models/loud_vae.safetensors

The tiles are those of enable_tiling(), once of the size that the configuration gives and once of another; the pictures are
longer than a tile by amounts that leave a last tile of full size, of less than the overlap, and of one row.
"""
import json
import os

import torch
from common import MODELS, in_f64, max_rel, noise, pipeline, store, versions, write_json
from safetensors.torch import load_file, save_file


def picture(seed, n, h, w):
    """Smooth and rough at once, in 0..1."""
    low = torch.nn.functional.interpolate(noise(seed, n, 3, h // 8 + 2, w // 8 + 2), (h, w), mode="bicubic")
    return (0.5 + 0.25 * low + 0.05 * noise(seed + 1, n, 3, h, w)).clamp(0, 1)


def tiles(vae, tile):
    f = 2 ** (len(vae.config.block_out_channels) - 1)
    vae.enable_tiling()
    vae.tile_latent_min_size, vae.tile_sample_min_size = tile, tile * f
    return f


def encode_cases(name, vae, tensors, cases):
    f = 2 ** (len(vae.config.block_out_channels) - 1)
    x = picture(11, 2, 8 * f, 12 * f)
    g = torch.Generator("cpu").manual_seed(5)
    latent = vae.encode(2 * x - 1).latent_dist.sample(g) * vae.config.scaling_factor
    k = name + "/sample"
    tensors.update({k + "/image": x, k + "/latent": latent, k + "/noise": noise(5, *latent.shape)})
    cases.append({"name": k, "model": name, "do": "encode", "tile": 0})


def tile_cases(name, vae, tensors, cases, sizes):
    for tile, h, w in sizes:
        f = tiles(vae, tile)
        z = noise(h, 1, 4, h, w)
        s = vae.config.scaling_factor
        for do in ("decode", "encode"):
            k = "%s/tiled_%s_%dx%d_%d" % (name, do, h, w, tile)
            if do == "decode":
                run = lambda d=torch.float32: vae.decode(z.to(d) / s).sample
                out = run()
                tensors.update({k + "/latent": z, k + "/image": out})
            else:
                x = picture(h, 1, h * f, w * f)
                run = lambda d=torch.float32: vae.encode((2 * x - 1).to(d)).latent_dist.mean * s
                out = run()
                tensors.update({k + "/image": (x * 255).round().to(torch.uint8), k + "/latent": out})
                x = tensors[k + "/image"] / 255.0
                out = run()
                tensors[k + "/latent"] = out
            exact = in_f64(lambda: run(torch.float64), vae)
            case = {"name": k, "model": name, "do": do, "tile": tile, "f64_rel": float("%.2g" % max_rel(out, exact))}
            cases.append(case)
            print(case, tuple(out.shape), flush=True)
        vae.disable_tiling()


def loud(tensors, cases):
    """tiny-sd1's VAE in f16 with a stem so loud that what follows leaves f16's range, as SDXL's does."""
    path = os.path.join(MODELS, "tiny-sd1", "vae", "diffusion_pytorch_model.safetensors")
    t = load_file(path)
    for side in ("encoder", "decoder"):
        for part in ("conv_in.weight", "conv_in.bias"):
            t[side + "." + part] = (t[side + "." + part].float() * 20000).to(torch.float16)
    assert all(torch.isfinite(v).all() for v in t.values())
    out = os.path.join(MODELS, "loud_vae.safetensors")
    save_file(t, out, metadata={"format": "pt"})
    os.chmod(out, 0o644)
    vae = pipeline(os.path.join(MODELS, "tiny-sd1")).vae
    vae.load_state_dict({k: v.float() for k, v in t.items()})
    peak = []
    hook = vae.decoder.conv_in.register_forward_hook(lambda m, i, o: peak.append(o.abs().max().item()))
    z = noise(8, 1, 4, 16, 16)
    image = vae.decode(z / vae.config.scaling_factor).sample
    hook.remove()
    assert peak[0] > 65504 and torch.isfinite(image).all()
    x = picture(9, 1, 32, 32)
    latent = vae.encode(2 * x - 1).latent_dist.mean * vae.config.scaling_factor
    tensors.update({"loud/decode/latent": z, "loud/decode/image": image, "loud/encode/image": x, "loud/encode/latent": latent})
    for do in ("decode", "encode"):
        cases.append({"name": "loud/" + do, "model": "tiny-sd1", "vae": "loud_vae.safetensors", "do": do, "tile": 0, "peak": peak[0]})


def main():
    tensors, cases = {}, []
    for name in ("tiny-sd1", "tiny-sd2", "tiny-sdxl"):
        vae = pipeline(os.path.join(MODELS, name)).vae
        encode_cases(name, vae, tensors, cases)
        own = int(vae.config.sample_size / 2 ** (len(vae.config.block_out_channels) - 1))
        sizes = [(own, 28, 37)] if name != "tiny-sd1" else [(own, 16, 28), (own, 28, 37), (20, 46, 21)]
        tile_cases(name, vae, tensors, cases, sizes)
    loud(tensors, cases)
    store("vae.safetensors", tensors)
    write_json("vae.json", {"versions": versions(), "cases": cases})


if __name__ == "__main__":
    main()
