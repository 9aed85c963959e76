"""What bfloat16 costs: the tiny models and the bundled one in double, and how far PyTorch's own bfloat16 is from that.

    python make_arithmetic.py          writes golden/arithmetic.json, golden/arithmetic.safetensors

For each model the denoiser at eight noise levels and the VAE's decoder, from the same float32 inputs: in double, in
float32, and as diffusers runs them after `.to(torch.bfloat16)`. The outputs in double are stored; of the others the error
of all cases together, as l2 of the difference over l2 of the output, and the largest difference over the largest value.
"""
import os

import torch
from common import MODELS, REPO, in_f64, l2_rel, max_rel, noise, pipeline, rel_path, store, versions, write_json

PROMPTS = ["a photo of a red cat on the mat", "a drawing of a house"]
TIMESTEPS = [981.0, 861.0, 741.0, 601.0, 461.0, 321.0, 181.0, 21.0]


def short(x):
    return float("%.3g" % x)


def errors(got, exact):
    return {"l2": short(l2_rel(got, exact)), "max": short(max_rel(got, exact))}


def model(name, folder, tensors):
    pipe = pipeline(folder)
    unet, vae = pipe.unet, pipe.vae
    xl = hasattr(pipe, "text_encoder_2")
    n = unet.config.sample_size
    texts = [pipe.encode_prompt(p, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False) for p in PROMPTS]
    context = torch.cat([t[0] for t in texts])  # case i reads text i % 2
    x = noise(7, len(TIMESTEPS), 4, n, n)
    more = {}
    tensors.update({name + "/sample": x, name + "/timestep": torch.tensor(TIMESTEPS), name + "/context": context})
    if xl:
        f = 2 ** (len(vae.config.block_out_channels) - 1)
        more = {"text_embeds": torch.cat([t[2] for t in texts]),
                "time_ids": torch.tensor([[n * f, n * f, 0, 0, n * f, n * f]] * 2, dtype=torch.float32)}
        tensors.update({name + "/" + k: v for k, v in more.items()})

    def denoise(dtype):
        extra = {k: v.to(dtype) for k, v in more.items()}
        return torch.cat([unet(x[i:i + 1].to(dtype), t, context[i % 2][None].to(dtype),
                               added_cond_kwargs={k: v[i % 2][None] for k, v in extra.items()} or None).sample
                          for i, t in enumerate(TIMESTEPS)])

    z = noise(8, 2, 4, n, n) * vae.config.scaling_factor

    def decode(dtype):
        return (vae.decode((z / vae.config.scaling_factor).to(dtype)).sample.to(torch.float64) / 2 + 0.5).clamp(0, 1)

    case = {"name": name, "folder": rel_path(folder)}
    for key, run, net in (("denoiser", denoise, unet), ("vae", decode, vae)):
        f32, exact = run(torch.float32), in_f64(lambda: run(torch.float64), net)
        bf16 = (net.to(torch.bfloat16), run(torch.bfloat16))[1]
        tensors[name + "/" + key] = exact.float()
        case[key] = {"f32": errors(f32, exact), "bf16": errors(bf16, exact)}
        print(name, key, case[key])
    tensors[name + "/latent"] = z
    return case


def main():
    tensors = {}
    folders = [(n, os.path.join(MODELS, n)) for n in ("tiny-sd1", "tiny-sd2", "tiny-sdxl")]
    folders.append(("bundled", os.path.join(REPO, "examples", "model")))
    cases = [model(n, f, tensors) for n, f in folders]
    store("arithmetic.safetensors", tensors)
    write_json("arithmetic.json", {"versions": versions(), "models": cases})


if __name__ == "__main__":
    main()
