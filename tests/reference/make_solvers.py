"""What diffusers' schedulers do for the solvers that came after 0.1 and for the variants of all: order, algorithm,
type, the last steps, clipping and thresholding, DDPM's variance.

    python make_solvers.py

Writes golden/variants.json and golden/variants.safetensors, in the form of make_schedulers.py (which has the runs):
each case in f64, and `f64_rel`, how far the run in f32 is from it. Two pictures at a time, since thresholding treats
them one by one.

DPMSolverSDEScheduler takes its noise from a tree of the package torchsde, which has random numbers of its own. Here
the tree is replaced by a Brownian path whose pieces are drawn from the generator where the calls go; that is what
lib/sampler/dpmpp_sde.c does.
"""
import math
import sys
import types

import numpy as np
import torch
from common import max_rel, noise, store, versions, write_json
from diffusers import (DDIMScheduler, DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler,
                       DPMSolverSinglestepScheduler, HeunDiscreteScheduler, KDPM2AncestralDiscreteScheduler,
                       KDPM2DiscreteScheduler, LCMScheduler, LMSDiscreteScheduler, UniPCMultistepScheduler)
from recheck import toy

sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler  # noqa: E402

CLASSES = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler, "deis": DEISMultistepScheduler, "heun": HeunDiscreteScheduler,
           "dpmpp_2m": DPMSolverMultistepScheduler, "dpmpp_2m_sde": DPMSolverMultistepScheduler,
           "dpmpp_3m": DPMSolverMultistepScheduler, "dpmpp_3m_sde": DPMSolverMultistepScheduler,
           "dpmpp_2s": DPMSolverSinglestepScheduler, "dpmpp_sde": DPMSolverSDEScheduler, "dpm2": KDPM2DiscreteScheduler,
           "dpm2_a": KDPM2AncestralDiscreteScheduler, "lcm": LCMScheduler, "lms": LMSDiscreteScheduler,
           "unipc": UniPCMultistepScheduler}
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
OWN = {"dpmpp_2m_sde": dict(algorithm_type="sde-dpmsolver++"), "dpmpp_3m": dict(solver_order=3),
       "dpmpp_3m_sde": dict(solver_order=3, algorithm_type="sde-dpmsolver++")}  # what the kind is named for
NEW = ("dpmpp_2m_sde", "dpmpp_3m", "dpmpp_3m_sde", "dpmpp_2s", "dpmpp_sde", "dpm2", "dpm2_a", "deis", "lms", "unipc")
SHAPE = (2, 2, 2, 3)
LEADING = dict(timestep_spacing="leading", steps_offset=1)
TRAILING = dict(timestep_spacing="trailing")
V = dict(prediction_type="v_prediction")
SAMPLE = dict(prediction_type="sample")
KARRAS = dict(use_karras_sigmas=True)
MIN = dict(final_sigmas_type="sigma_min")


class Numpy64:
    """numpy, with float64 where float32 is asked for."""

    def __getattr__(self, name):
        return np.float64 if name == "float32" else getattr(np, name)


def made(kind, config, steps, dtype):
    """In f64 the levels inside the steps of DPM2 and DPM2 a as well. In f32 the last bit of a large sigma's logarithm
    is seen, and those of DPM2 a are differences of nearly equal numbers, and so rounding."""
    s = CLASSES[kind](**config)
    module = sys.modules[type(s).__module__]
    if kind in ("dpm2", "dpm2_a") and dtype == torch.float64:
        module.np = Numpy64()
    s.set_timesteps(steps)
    module.np = np
    return s


class Path:
    """A Brownian path over sigma, drawn from the largest sigma down."""

    def __init__(self, like, generator):
        self.like, self.generator, self.known = like, generator, []

    def at(self, sigma):
        for s, w in self.known:
            if math.isclose(s, sigma, rel_tol=1e-5):
                return w
        if not self.known:
            w = torch.zeros_like(self.like)
        else:
            s, w = self.known[-1]
            w = w + math.sqrt(s - sigma) * torch.randn(self.like.shape, generator=self.generator, dtype=self.like.dtype)
        self.known.append((sigma, w))
        return w

    def __call__(self, sigma, sigma_next):
        a, b = float(sigma), float(sigma_next)
        before = self.at(a)
        return (self.at(b) - before) / math.sqrt(a - b)


def effective_sigmas(s, kind):
    """The level that each call is at; the class keeps those in the middle of a step elsewhere."""
    sigmas = s.sigmas.clone()
    n = len(s.timesteps)
    if kind == "dpm2":
        sigmas[1:n:2] = s.sigmas_interpol[1:n:2]
    elif kind == "dpm2_a":
        sigmas[1:n:2] = s.sigmas_interpol[0:n - 1:2]
    elif kind == "dpmpp_sde":
        for i in range(1, n, 2):
            sigmas[i] = (s.sigmas[i - 1].double() * s.sigmas[i].double()).sqrt()
    return sigmas[:n + 1]


def walk(s, kind, steps, strength, extra, dtype):
    """As a pipeline does: the latents at the start, and after each call."""
    x0, z = noise(5, *SHAPE).to(dtype), noise(6, *SHAPE).to(dtype)
    for name in ("sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down"):
        if hasattr(s, name):
            setattr(s, name, getattr(s, name).to(dtype))
    begin = 0
    if strength is None:
        x = z * s.init_noise_sigma
    else:
        begin = max(steps - min(int(steps * strength), steps), 0) * s.order
        if hasattr(s, "set_begin_index"):
            s.set_begin_index(begin)
        x = s.add_noise(x0, z, s.timesteps[begin:begin + 1])
    g = torch.Generator("cpu").manual_seed(9)
    more = {}
    if kind in ("ddpm", "lcm", "dpm2_a") or (kind == "ddim" and "eta" in extra) \
            or "sde" in getattr(s.config, "algorithm_type", ""):
        more["generator"] = g
    for name, key in (("eta", "eta"), ("use_clipped_model_output", "clipped_noise")):
        if key in extra:
            more[name] = extra[key]
    if "order" in extra:
        more["order"] = extra["order"]
    keep = torch.randn
    if dtype == torch.float64:  # the same numbers, not those that a generator gives in f64
        torch.randn = lambda *a, dtype=None, **k: keep(*a, dtype=torch.float32, **k).to(dtype)
    try:
        path = [x]
        if kind == "dpmpp_sde":
            s.noise_sampler = Path(x, g)
        for t in s.timesteps[begin:]:
            path.append(s.step(toy(s.scale_model_input(path[-1], t), t), t, path[-1], **more).prev_sample)
    finally:
        torch.randn = keep
    return begin, torch.stack(path)


def of_new_kinds():
    for kind in NEW:
        for n in (1, 2, 3, 20):
            yield "%s_n%d" % (kind, n), kind, {}, n, {}
        yield kind + "_v", kind, V, 10, {}
        if kind not in ("dpmpp_sde", "dpm2", "dpm2_a"):  # which diffusers does not have
            yield kind + "_predict_sample", kind, SAMPLE, 10, {}
        if kind != "dpmpp_2s":
            yield kind + "_leading", kind, LEADING, 7, {}
            yield kind + "_trailing", kind, TRAILING, 7, {}
        yield kind + "_linear", kind, dict(beta_schedule="linear"), 6, {}
        for n in (2, 10):
            yield "%s_karras_n%d" % (kind, n), kind, KARRAS, n, {}
        for n, strength in ((4, 0.5), (12, 0.5), (10, 0.3)):
            yield "%s_n%d_strength_%g" % (kind, n, strength), kind, {}, n, dict(strength=strength)
        yield kind + "_karras_strength", kind, KARRAS, 10, dict(strength=0.5)
    for kind in ("dpmpp_2m_sde", "dpmpp_3m", "dpmpp_3m_sde", "unipc"):
        yield kind + "_zero_snr_v", kind, {**TRAILING, **V, "rescale_betas_zero_snr": True}, 10, {}


def of_dpm():
    for order in (1, 2, 3):
        for algorithm in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"):
            for how in ("midpoint", "heun"):
                if (algorithm, order) == ("sde-dpmsolver", 3):  # which diffusers does not have
                    continue
                config = dict(solver_order=order, algorithm_type=algorithm, solver_type=how)
                short = "%d_%s_%s" % (order, algorithm.replace("dpmsolver", "dpm"), how)
                n = 4 if (algorithm, order) == ("sde-dpmsolver++", 3) else 6  # the more steps, the more it swings
                yield "dpmpp_2m_min_%s" % short, "dpmpp_2m", {**config, **MIN}, n, {}
                if algorithm.endswith("++"):
                    yield "dpmpp_2m_zero_%s" % short, "dpmpp_2m", config, 6, {}
                    for n in (5, 6, 7):
                        yield "dpmpp_2s_zero_%s_n%d" % (short, n), "dpmpp_2s", config, n, {}
                if algorithm != "sde-dpmsolver":
                    yield "dpmpp_2s_min_%s" % short, "dpmpp_2s", {**config, **MIN}, n, {}
                    yield "dpmpp_2s_strength_%s" % short, "dpmpp_2s", {**config, **MIN}, 9, dict(strength=0.5)
    for order in (2, 3):
        for last in (True, False):
            for euler in (True, False):
                config = dict(solver_order=order, lower_order_final=last, euler_at_final=euler, **MIN)
                for n in (7, 16):
                    yield "dpmpp_2m_last_%d%d%d_n%d" % (order, last, euler, n), "dpmpp_2m", config, n, {}
        for last in (True, False):
            for n in (6, 7, 8):
                yield "dpmpp_2s_last_%d%d_n%d" % (order, last, n), "dpmpp_2s", \
                    dict(solver_order=order, lower_order_final=last, **MIN), n, {}


def of_the_rest():
    for order in (1, 2, 3):
        for last in (True, False):
            for n in (7, 16):
                yield "deis_%d%d_n%d" % (order, last, n), "deis", dict(solver_order=order, lower_order_final=last), n, {}
            for how in ("bh1", "bh2"):
                for image in (True, False):
                    config = dict(solver_order=order, lower_order_final=last, solver_type=how, predict_x0=image, **MIN)
                    yield "unipc_%d%d_%s_%s" % (order, last, how, "x0" if image else "e"), "unipc", config, 7, {}
        yield "unipc_%d_zero" % order, "unipc", dict(solver_order=order), 8, {}
        yield "unipc_%d_strength" % order, "unipc", dict(solver_order=order), 12, dict(strength=0.5)
        yield "deis_%d_strength" % order, "deis", dict(solver_order=order), 12, dict(strength=0.5)
    for order in (1, 2, 3):
        yield "lms_order_%d" % order, "lms", {}, 8, dict(order=order)
    yield "unipc_uncorrected", "unipc", dict(disable_corrector=[0, 1, 5]), 8, {}
    yield "unipc_karras_min", "unipc", {**KARRAS, **MIN}, 8, {}
    yield "unipc_e_v", "unipc", {**V, **MIN, "predict_x0": False}, 8, {}
    yield "unipc_e_sample", "unipc", {**SAMPLE, **MIN, "predict_x0": False}, 8, {}


def of_clipping():
    narrow = dict(thresholding=True, dynamic_thresholding_ratio=0.7, sample_max_value=1.5)
    wide = dict(thresholding=True, sample_max_value=100.0)
    for kind in ("ddim", "ddpm", "lcm", "heun"):
        for name, config in (("1", {}), ("0.4", dict(clip_sample_range=0.4)), ("3", dict(clip_sample_range=3.0))):
            for prediction in ({}, V, SAMPLE):
                yield "%s_clip_%s_%s" % (kind, name, prediction.get("prediction_type", "epsilon")), kind, \
                    {"clip_sample": True, **config, **prediction}, 6, {}
    for kind in ("ddim", "ddpm", "lcm", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m", "dpmpp_2s", "unipc", "deis"):
        for name, config in (("1", dict(thresholding=True)), ("narrow", narrow), ("wide", wide)):
            yield "%s_threshold_%s" % (kind, name), kind, config, 6, {}
        yield kind + "_threshold_v", kind, {**narrow, **V}, 6, {}
    yield "dpmpp_2m_threshold_e", "dpmpp_2m", {**narrow, **MIN, "algorithm_type": "dpmsolver"}, 6, {}
    yield "unipc_threshold_e", "unipc", {**narrow, **MIN, "predict_x0": False}, 6, {}
    for eta in (0.0, 0.7, 1.0):
        for clipped in (False, True):
            for name, config in (("none", {}), ("clip", dict(clip_sample=True)), ("threshold", narrow)):
                for one in (False, True):
                    yield "ddim_%s_eta_%g_%d%d" % (name, eta, clipped, one), "ddim", \
                        {"clip_sample": False, "set_alpha_to_one": one, **config}, 5, dict(eta=eta, clipped_noise=clipped)
    for variance in ("fixed_small", "fixed_small_log", "fixed_large"):
        for n in (5, 30):
            yield "ddpm_%s_n%d" % (variance, n), "ddpm", dict(variance_type=variance, clip_sample=False), n, {}
        yield "ddpm_%s_trailing" % variance, "ddpm", {"variance_type": variance, "clip_sample": False, **TRAILING}, 5, {}


def main():
    out, tensors = [], {}
    for make in (of_new_kinds, of_dpm, of_the_rest, of_clipping):
        for name, kind, more, steps, extra in make():
            config = {**SD, **OWN.get(kind, {}), **more}
            runs = []
            for dtype in (torch.float32, torch.float64):
                s = made(kind, config, steps, dtype)
                first = float(s.init_noise_sigma)
                sigmas = effective_sigmas(s, kind) if hasattr(s, "sigmas") else None
                begin, path = walk(s, kind, steps, extra.get("strength"), extra, dtype)
                runs.append(path)
            rel = max(max_rel(a, b) for a, b in zip(*runs))
            case = {"name": name, "kind": kind, "config": config, "steps": steps, "begin": begin,
                    "init_noise_sigma": first, "f64_rel": float("%.2g" % rel)}
            case.update(extra)
            out.append(case)
            if make is of_new_kinds:
                tensors[name + "/timesteps"] = s.timesteps.float()
            if make is of_new_kinds and sigmas is not None:
                tensors[name + "/sigmas"] = sigmas.float()
            tensors[name + "/x"] = runs[1].float()
            if rel > 1e-5:
                print("%-40s f64_rel %.1e" % (name, rel))
    tensors["x0"], tensors["noise"] = noise(5, *SHAPE), noise(6, *SHAPE)
    write_json("variants.json", {"versions": versions(), "noise_seed": 9, "images": SHAPE[0], "cases": out})
    store("variants.safetensors", tensors)
    print(len(out), "cases")


if __name__ == "__main__":
    main()
