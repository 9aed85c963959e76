"""Whole pictures by diffusers' own pipelines: every sampler, from the seed to the pixels.

    python make_pictures.py        the tiny models: golden/pictures.json, golden/pictures.safetensors
    make_pictures.draw(...) is used by make_bundled.py for the bundled model.
"""
import inspect
import os

import common
import torch
from common import MODELS, in_f64, l2_rel, max_rel, noise, pipeline, store, versions, write_json
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler

KINDS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "euler_a": EulerAncestralDiscreteScheduler,
         "dpmpp_2m": DPMSolverMultistepScheduler}
SHORT = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing", "steps_offset",
         "set_alpha_to_one", "clip_sample", "use_karras_sigmas", "rescale_betas_zero_snr", "final_sigmas_type", "solver_order",
         "algorithm_type", "solver_type", "lower_order_final", "interpolation_type")


def scheduler(base, kind, karras=False, **over):
    """What a diffusers user writes: the class's from_config of the model's own scheduler_config.json. clip_sample is off as in every published
    SD configuration (PNDM's file may lack it, and DDIM's default is on)."""
    kw = dict(over)
    if kind == "ddim":
        kw["clip_sample"] = False
    elif karras:
        kw["use_karras_sigmas"] = True
    return KINDS[kind].from_config(base, **kw)


def ours(s, eta):
    c = {k: s.config[k] for k in SHORT if k in s.config and k in inspect.signature(type(s).__init__).parameters}
    return dict({"class": type(s).__name__, "eta": eta}, **c) if eta is not None else dict({"class": type(s).__name__}, **c)


def draw(pipe, base, name, kind, tensors, prompt, negative, seed, steps, guidance, width, height, karras=False, eta=None,
         rescale=0.0, keep_steps=False, prefix="", u8=True, over=None):
    """One picture: tensors <prefix><name>/{noise,latents,u8,step_noise,path}; returns its JSON case."""
    pipe.scheduler = scheduler(base, kind, karras, **(over or {}))
    f = pipe.vae_scale_factor
    shape = (1, 4, height // f, width // f)
    path = []

    def keep(p, i, t, kw):
        path.append(kw["latents"].clone())
        return {}
    kw = dict(prompt=prompt, negative_prompt=negative, num_inference_steps=steps, guidance_scale=guidance, width=width, height=height,
              output_type="latent", callback_on_step_end=keep)
    if eta is not None:
        kw["eta"] = eta
    if rescale:
        kw["guidance_rescale"] = rescale
    g = torch.Generator("cpu").manual_seed(seed)
    x = pipe(generator=g, **kw).images
    start = noise(seed, *shape)
    n = prefix + name
    tensors[n + "/noise"], tensors[n + "/latents"] = start, x
    stochastic = kind == "euler_a" or bool(eta)
    if stochastic:
        g = torch.Generator("cpu").manual_seed(seed)
        torch.randn(shape, generator=g)
        tensors[n + "/step_noise"] = torch.stack([torch.randn(shape, generator=g) for _ in range(steps)])
    if keep_steps:
        tensors[n + "/path"] = torch.stack(path)
    image = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample
    if u8:
        from make_nets import to_u8
        tensors[n + "/u8"] = to_u8(image)[0]
        pil = pipe.image_processor.postprocess(image, output_type="pil")[0]
        import numpy
        assert (torch.from_numpy(numpy.array(pil)) == tensors[n + "/u8"]).all()
    case = {"name": n, "prompt": prompt, "negative": negative, "seed": seed, "kind": kind, "karras": karras, "steps": steps, "guidance": guidance,
            "guidance_rescale": rescale, "eta": eta or 0.0, "width": width, "height": height, "scheduler": ours(pipe.scheduler, eta)}
    nets = [m for m in (pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if m is not None]
    if not stochastic:
        pipe.scheduler = scheduler(base, kind, karras, **(over or {}))
        exact = in_f64(lambda: pipe(latents=start.double(), **kw).images, *nets)
        case["f64_rel"], case["f64_l2"] = float("%.2g" % max_rel(x, exact)), float("%.2g" % l2_rel(x, exact))
    print("%-32s |x| %.2f  floor %s" % (n, x.abs().max(), case.get("f64_rel")), flush=True)
    return case


SAMPLERS = [("ddim", "ddim", False), ("euler", "euler", False), ("euler_karras", "euler", True), ("euler_a", "euler_a", False),
            ("dpmpp_2m", "dpmpp_2m", False), ("dpmpp_2m_karras", "dpmpp_2m", True)]


def main():
    tensors, models = {}, []
    for model, size, prompt in (("tiny-sd1", (32, 24), "a photo of a red cat on the mat"), ("tiny-sd2", (40, 56), "two green birds over a lake"),
                                ("tiny-sdxl", (32, 24), "a blue square to the left of a circle")):
        pipe = pipeline(os.path.join(MODELS, model))
        base, cases = pipe.scheduler.config, []
        d = lambda name, kind, **kw: cases.append(draw(pipe, base, name, kind, tensors, kw.pop("prompt", prompt), kw.pop("negative", "blurry"), kw.pop("seed", 1234),
                                                       kw.pop("steps", 20), kw.pop("guidance", 5.0), size[0], size[1], prefix=model + "/", **kw))
        for name, kind, karras in SAMPLERS:
            d(name, kind, karras=karras, keep_steps=model == "tiny-sd1")
        if model == "tiny-sd1":
            d("ddim_eta", "ddim", eta=0.5)
            d("ddim_rescale", "ddim", rescale=0.7)
            d("ddim_noguidance", "ddim", guidance=1.0)
            d("ddim_one_step", "ddim", steps=1)
        if model == "tiny-sd2":
            d("ddim_rescale", "ddim", rescale=0.7)
            d("ddim_trailing_zsnr", "ddim", over={"timestep_spacing": "trailing", "rescale_betas_zero_snr": True})
        if model == "tiny-sdxl":
            d("euler_no_negative", "euler", negative=None)
            d("euler_empty_negative", "euler", negative="")
            d("euler_noguidance", "euler", guidance=1.0)
        models.append({"model": "models/" + model, "cases": cases})
    store("pictures.safetensors", tensors)
    write_json("pictures.json", {"versions": versions(), "models": models})


if __name__ == "__main__":
    main()
