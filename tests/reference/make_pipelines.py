"""Pictures that begin from pictures, and models that are told more: diffusers' pipelines from the seed to the pixels.

    python make_pipelines.py       models/tiny-edit, golden/pipelines.json, golden/pipelines.safetensors

img2img, inpainting with nine channels and with four, editing by instruction, base and refiner, guidance that is told,
crops, and the noise schedule that ends in noise alone. All noise comes from one generator in the order in which the pipeline
draws it, so the C test draws it from the seed. `layers` is one pass of a UNet with a text of its own for each cross-attention
layer, which no pipeline does: diffusers' own modules, their inputs replaced.
"""
import json
import os
import shutil

import torch
from common import MODELS, in_f64, max_rel, noise, store, versions, write_json
from diffusers import (DDIMScheduler, EulerDiscreteScheduler, LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionImg2ImgPipeline,
                       StableDiffusionInpaintPipeline, StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline,
                       StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline)
from make_nets import to_u8
from make_pictures import SHORT
from make_vae import picture
from safetensors.torch import load_file, save_file

KINDS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "lcm": LCMScheduler}
tensors, cases = {}, []


def opened(cls, name, **kw):
    """The components of a tiny model in another pipeline, f32."""
    quiet = {"safety_checker": None, "requires_safety_checker": False} if "XL" not in cls.__name__ else {"add_watermarker": False}
    p = cls.from_pretrained(os.path.join(MODELS, name), dtype=torch.float32, **quiet, **kw)
    p.set_progress_bar_config(disable=True)
    for n in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(p, n, None) is not None:
            getattr(p, n).to(torch.float32).eval()
    return p


def schedule(pipe, kind, **over):
    if kind != "euler":
        over.setdefault("clip_sample", False)
    pipe.scheduler = KINDS[kind].from_config(pipe.scheduler.config, **over)
    return {k: pipe.scheduler.config[k] for k in SHORT + ("original_inference_steps",) if k in pipe.scheduler.config}


def keep(name, model, mode, kind, sched, latents, pipe, kw, **more):
    """The picture of some latents, and the case as the C test reads it."""
    tensors[name + "/latents"] = latents
    tensors[name + "/u8"] = to_u8(pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample)[0]
    case = {"name": name, "model": model, "mode": mode, "kind": kind, "scheduler": sched}
    case.update({k: kw[k] for k in ("prompt", "strength", "guidance_rescale") if k in kw})
    case.update(negative=kw.get("negative_prompt"), steps=kw["num_inference_steps"], guidance=kw["guidance_scale"], **more)
    cases.append(case)
    print("%-28s |x| %.2f" % (name, latents.abs().max()), flush=True)


def given(name, seed, h, w, mask=False):
    """A picture (and a mask, 1 where it is to be painted) in bytes, as the pipelines take them."""
    x = (picture(seed, 1, h, w) * 255).round().to(torch.uint8)
    tensors[name + "/image"] = x[0]
    if not mask:
        return x / 255.0
    m = torch.zeros(1, 1, h, w)
    m[:, :, h // 4:h // 4 * 3 + 1, w // 3:] = 1
    tensors[name + "/mask"] = m[0, 0].to(torch.uint8)
    return x / 255.0, m


def gen(seed):
    return torch.Generator("cpu").manual_seed(seed)


def text2img():
    p = opened(StableDiffusionXLPipeline, "tiny-sdxl")
    base = p.scheduler.config
    for name, kind, extra in (
            ("sdxl_crops", "euler", dict(original_size=(40, 30), crops_coords_top_left=(3, 5), target_size=(32, 24))),
            ("sdxl_negative_size", "ddim", dict(negative_original_size=(8, 9), negative_crops_coords_top_left=(1, 2), negative_target_size=(32, 24)))):
        p.scheduler = EulerDiscreteScheduler.from_config(base)
        sched = schedule(p, kind)
        kw = dict(prompt="a blue square to the left of a circle", negative_prompt="blurry", num_inference_steps=20, guidance_scale=5.0,
                  width=24, height=32, output_type="latent", **extra)
        x = p(generator=gen(77), **kw).images
        ids = [float(v) for k in ("original_size", "crops_coords_top_left", "target_size") for v in kw.get(k, (0, 0) if "crops" in k else (32, 24))]
        more = {"time_ids": ids}
        if "negative_original_size" in kw:
            more["negative_time_ids"] = [float(v) for k in ("original_size", "crops_coords_top_left", "target_size") for v in kw["negative_" + k]]
        keep(name, "tiny-sdxl", "text", kind, sched, x, p, kw, seed=77, width=24, height=32, **more)
    p = opened(StableDiffusionPipeline, "tiny-sd2")
    base = p.scheduler.config
    for kind in ("ddim", "euler"):
        p.scheduler = DDIMScheduler.from_config(base)
        sched = schedule(p, kind, rescale_betas_zero_snr=True, timestep_spacing="trailing")
        kw = dict(prompt="two green birds over a lake", negative_prompt="", num_inference_steps=20, guidance_scale=6.0, guidance_rescale=0.7, width=56,
                  height=40, output_type="latent")
        x = p(generator=gen(78), **kw).images
        keep("sd2_zero_snr_" + kind, "tiny-sd2", "text", kind, sched, x, p, kw, seed=78, width=56, height=40)


def img2img():
    for model, cls, prompt in (("tiny-sd1", StableDiffusionImg2ImgPipeline, "a photo of a red cat on the mat"),
                               ("tiny-sd2", StableDiffusionImg2ImgPipeline, "two green birds over a lake"),
                               ("tiny-sdxl", StableDiffusionXLImg2ImgPipeline, "a blue square to the left of a circle")):
        p = opened(cls, model)
        base = p.scheduler.config
        for kind in ("ddim", "euler"):
            p.scheduler = DDIMScheduler.from_config(base)
            sched = schedule(p, kind)
            name = "img2img_%s_%s" % (model[5:], kind)
            x = given(name, 21, 32, 40)
            kw = dict(prompt=prompt, negative_prompt="blurry", strength=0.6, num_inference_steps=20, guidance_scale=5.0)
            out = p(image=x, generator=gen(31), output_type="latent", **kw).images
            keep(name, model, "img2img", kind, sched, out, p, kw, seed=31, width=40, height=32)


def inpaint():
    for model, mode in (("tiny-inpaint", "inpaint9"), ("tiny-sd1", "inpaint4")):
        p = opened(StableDiffusionInpaintPipeline, model)
        base = p.scheduler.config
        for kind, strength in (("ddim", 1.0), ("euler", 0.7)):
            p.scheduler = DDIMScheduler.from_config(base)
            sched = schedule(p, kind)
            name = "%s_%s" % (mode, kind)
            x, m = given(name, 41, 32, 48, mask=True)
            kw = dict(prompt="a red cat", negative_prompt="blurry", strength=strength, num_inference_steps=20, guidance_scale=4.0)
            out = p(image=x, mask_image=m, height=32, width=48, generator=gen(32), output_type="latent", **kw).images
            keep(name, model, mode, kind, sched, out, p, kw, seed=32, width=48, height=32)


def tiny_edit():
    """tiny-inpaint with the first eight of its nine input channels."""
    a, b = os.path.join(MODELS, "tiny-inpaint"), os.path.join(MODELS, "tiny-edit")
    shutil.rmtree(b, ignore_errors=True)
    shutil.copytree(a, b)
    path = os.path.join(b, "unet", "diffusion_pytorch_model.safetensors")
    t = load_file(path)
    t["conv_in.weight"] = t["conv_in.weight"][:, :8].contiguous()
    save_file(t, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)
    for file, key, value in (("unet/config.json", "in_channels", 8), ("model_index.json", "_class_name", "StableDiffusionInstructPix2PixPipeline")):
        with open(os.path.join(b, file)) as f:
            c = json.load(f)
        c[key] = value
        with open(os.path.join(b, file), "w") as f:
            json.dump(c, f, indent=2)
            f.write("\n")


def edit():
    tiny_edit()
    p = opened(StableDiffusionInstructPix2PixPipeline, "tiny-edit")
    sched = schedule(p, "ddim")
    x = given("edit_ddim", 51, 32, 32)
    kw = dict(prompt="make it blue", negative_prompt="blurry", num_inference_steps=20, guidance_scale=5.0)
    out = p(image=x, image_guidance_scale=1.5, generator=gen(33), output_type="latent", **kw).images
    keep("edit_ddim", "tiny-edit", "edit", "ddim", sched, out, p, kw, seed=33, width=32, height=32, image_guidance=1.5)


def refiner():
    base, fine = opened(StableDiffusionXLPipeline, "tiny-sdxl"), opened(StableDiffusionXLImg2ImgPipeline, "tiny-refiner")
    sched = schedule(base, "euler")
    fine.scheduler = EulerDiscreteScheduler.from_config(base.scheduler.config)
    f = 2 ** (len(fine.vae.config.block_out_channels) - 1)
    kw = dict(prompt="a blue square", negative_prompt="blurry", num_inference_steps=20, guidance_scale=5.0)
    x = base(denoising_end=0.8, generator=gen(34), width=24, height=32, output_type="latent", **kw).images
    out = fine(image=x, denoising_start=0.8, output_type="latent", **kw).images
    keep("refiner_split", "tiny-sdxl", "refiner", "euler", sched, out, fine, kw, seed=34, width=24, height=32, split=0.8, refiner="tiny-refiner")
    y = given("refiner_img2img", 61, 16 * f, 12 * f)
    kw["strength"] = 0.5
    out = fine(image=y, generator=gen(35), output_type="latent", aesthetic_score=7.0, **kw).images
    keep("refiner_img2img", "tiny-refiner", "img2img", "euler", sched, out, fine, kw, seed=35, width=12 * f, height=16 * f,
         time_ids=[16.0 * f, 12.0 * f, 0.0, 0.0, 7.0])


def lcm():
    p = opened(LatentConsistencyModelPipeline, "tiny-lcm")
    sched = schedule(p, "lcm")
    for name, scale in (("lcm_8", 8.5), ("lcm_1", 1.5)):
        kw = dict(prompt="a red cat", num_inference_steps=4, guidance_scale=scale)
        out = p(generator=gen(36), width=32, height=32, output_type="latent", **kw).images
        keep(name, "tiny-lcm", "told", "lcm", sched, out, p, kw, seed=36, width=32, height=32)


def layers(model, cls):
    """A text for each cross-attention layer, in order of execution."""
    p = opened(cls, model)
    unet, order = p.unet, []
    found = [m for n, m in unet.named_modules() if n.endswith("attn2")]
    x, t = noise(71, 1, 4, 12, 10), torch.tensor([501.0])
    d = unet.config.cross_attention_dim
    texts = noise(72, len(found), 9, d)
    added = {}
    if unet.config.addition_embed_type == "text_time":
        ids = torch.tensor([[24.0, 20.0, 0.0, 0.0, 6.0] if "refiner" in model else [24.0, 20.0, 0.0, 0.0, 24.0, 20.0]])
        pooled = unet.config.projection_class_embeddings_input_dim - ids.numel() * unet.config.addition_time_embed_dim
        added = {"text_embeds": noise(73, 1, pooled), "time_ids": ids}
        tensors["layers_%s/pooled" % model] = added["text_embeds"]
        tensors["layers_%s/time_ids" % model] = ids

    def swap(module, args, kw):
        kw["encoder_hidden_states"] = texts[len(order)][None].to(kw["encoder_hidden_states"].dtype)
        order.append(module)
        return args, kw
    for m in found:
        m.register_forward_pre_hook(swap, with_kwargs=True)

    def run(dtype=torch.float32):
        order.clear()
        return unet(x.to(dtype), t, texts[:1].to(dtype), added_cond_kwargs={k: v.to(dtype) for k, v in added.items()}).sample
    out = run()
    assert len(order) == len(found) == len(set(order))
    exact = in_f64(lambda: run(torch.float64), unet)
    k = "layers_" + model
    tensors.update({k + "/sample": x, k + "/text": texts, k + "/out": out})
    cases.append({"name": k, "model": model, "mode": "layers", "timestep": 501.0, "f64_rel": float("%.2g" % max_rel(out, exact))})
    print(cases[-1], flush=True)


def told():
    """One pass of a UNet that is told its guidance: what a picture of four steps shows only faintly."""
    unet = opened(LatentConsistencyModelPipeline, "tiny-lcm").unet
    x, text = noise(81, 1, 4, 12, 10), noise(82, 1, 9, unet.config.cross_attention_dim)
    embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    for scale in (1.5, 8.5):
        t = torch.tensor([499.0])

        def run(dtype=torch.float32):
            w = embed(None, torch.tensor([scale - 1.0], dtype=dtype), unet.config.time_cond_proj_dim, dtype=dtype)
            return unet(x.to(dtype), t, text.to(dtype), timestep_cond=w).sample
        out, exact = run(), in_f64(lambda: run(torch.float64), unet)
        k = "told_%d" % scale
        tensors.update({k + "/sample": x, k + "/text": text, k + "/out": out})
        cases.append({"name": k, "model": "tiny-lcm", "mode": "layers", "timestep": 499.0, "guidance_embed": scale,
                      "f64_rel": float("%.2g" % max_rel(out, exact))})
        print(cases[-1], flush=True)
    print("told apart by", max_rel(tensors["told_1/out"], tensors["told_8/out"]), max_rel(tensors["lcm_1/latents"], tensors["lcm_8/latents"]))


def main():
    text2img()
    img2img()
    inpaint()
    edit()
    refiner()
    lcm()
    for model, cls in (("tiny-sd1", StableDiffusionPipeline), ("tiny-sd2", StableDiffusionPipeline), ("tiny-sdxl", StableDiffusionXLPipeline),
                       ("tiny-refiner", StableDiffusionXLImg2ImgPipeline)):
        layers(model, cls)
    told()
    store("pipelines.safetensors", tensors)
    write_json("pipelines.json", {"versions": versions(), "cases": cases})


if __name__ == "__main__":
    main()
