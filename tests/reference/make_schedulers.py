"""What diffusers' schedulers do where recheck.py does not look: the solvers that came later, one step and many,
pictures that start in the middle, noise levels of the caller's own, zero terminal signal.

    python make_schedulers.py

Writes golden/solvers.json and golden/solvers.safetensors. A case's scheduler is run twice, on f64 latents, which is what
is stored, and in f32; the difference is `f64_rel`, at most 1e-6 but where a step comes down from a large sigma.
"""
import torch
from common import max_rel, noise, store, versions, write_json
from diffusers import (DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, HeunDiscreteScheduler, LCMScheduler, PNDMScheduler, TCDScheduler)
from recheck import toy

CLASSES = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "euler_a": EulerAncestralDiscreteScheduler,
           "dpmpp_2m": DPMSolverMultistepScheduler, "pndm": PNDMScheduler, "ddpm": DDPMScheduler,
           "heun": HeunDiscreteScheduler, "lcm": LCMScheduler, "tcd": TCDScheduler}
DRAW = ("euler_a", "ddpm", "lcm", "tcd")
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
BASE = {"ddim": dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1), "ddpm": dict(clip_sample=False),
        "pndm": dict(skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)}
LEADING = dict(timestep_spacing="leading", steps_offset=1)
TRAILING = dict(timestep_spacing="trailing")
LINSPACE = dict(timestep_spacing="linspace")
V = dict(prediction_type="v_prediction")
SAMPLE = dict(prediction_type="sample")
ZERO = dict(rescale_betas_zero_snr=True)
KARRAS = dict(use_karras_sigmas=True)
SHAPE = (1, 4, 2, 3)


def zero_snr(s):
    """Rescaled betas for a class that has no such option: those of Euler, which has it."""
    s.alphas_cumprod = EulerDiscreteScheduler(**SD, **ZERO).alphas_cumprod


def give_sigmas(s, kind, sigmas):
    """`sigmas=` is Euler's alone; the others get from it what they hold themselves."""
    like = EulerDiscreteScheduler(**SD, timestep_spacing=s.config.timestep_spacing)
    like.alphas_cumprod = s.alphas_cumprod
    like.set_timesteps(sigmas=sigmas + [0.0])
    s.set_timesteps(len(sigmas))
    if kind == "dpmpp_2m":
        s.sigmas, s.timesteps = like.sigmas, like.timesteps.round().to(torch.int64)
    elif kind == "heun":
        s.sigmas = torch.cat([like.sigmas[:1], like.sigmas[1:-1].repeat_interleave(2), like.sigmas[-1:]])
        s.timesteps = torch.cat([like.timesteps[:1], like.timesteps[1:].repeat_interleave(2)])
    else:
        s.sigmas, s.timesteps = like.sigmas, like.timesteps


def make(kind, config, steps, sigmas):
    config = dict(config)
    patched = kind in ("heun", "pndm") and config.pop("rescale_betas_zero_snr", False)
    s = CLASSES[kind](**config)
    if patched:
        zero_snr(s)
    if sigmas:
        give_sigmas(s, kind, sigmas)
    else:
        s.set_timesteps(steps)
    return s


def walk(s, kind, steps, strength, eta, dtype):
    """As a pipeline does: the latents at the start, and after each call."""
    x0, z = noise(5, *SHAPE).to(dtype), noise(6, *SHAPE).to(dtype)
    if hasattr(s, "sigmas"):  # or the difference of two sigmas is rounded, and Heun's second slope makes much of it
        s.sigmas = s.sigmas.to(dtype)
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
    if kind in DRAW or (kind == "ddim" and eta):
        more["generator"] = g
    if kind in ("ddim", "tcd") and eta is not None:
        more["eta"] = eta
    keep = torch.randn
    if dtype == torch.float64:  # the same numbers, not those that a generator gives in f64
        torch.randn = lambda *a, dtype=None, **k: keep(*a, dtype=torch.float32, **k).to(dtype)
    try:
        path = [x]
        for t in s.timesteps[begin:]:
            path.append(s.step(toy(s.scale_model_input(path[-1], t), t), t, path[-1], **more).prev_sample)
    finally:
        torch.randn = keep
    return begin, torch.stack(path), g.get_state()


def cases():
    """(name, kind, config, steps, what else)"""
    for kind in ("pndm", "ddpm", "heun", "lcm", "tcd"):
        eta = dict(eta=0.3) if kind == "tcd" else {}
        for n in (1, 2, 4, 10, 20):
            yield "%s_n%d" % (kind, n), kind, {}, n, eta
        for name, more in (("v", V), ("sample", SAMPLE), ("linear", dict(beta_schedule="linear")), ("trailing_v", {**TRAILING, **V})):
            if (kind, name) != ("pndm", "sample"):  # which diffusers does not have
                yield "%s_%s" % (kind, name), kind, more, 10 if name != "linear" else 4, eta
        for n, strength in ((4, 0.5), (20, 0.5), (10, 0.3)):
            yield "%s_n%d_strength_%g" % (kind, n, strength), kind, {}, n, dict(strength=strength, **eta)
        yield "%s_strength_1" % kind, kind, {}, 4, dict(strength=1.0, **eta)
        zero = {**V, **ZERO, **(LEADING if kind == "pndm" else TRAILING)}
        yield "%s_zero_snr_v" % kind, kind, zero, 10, eta
        yield "%s_zero_snr_v_strength" % kind, kind, zero, 10, dict(strength=0.5, **eta)
    for kind in ("pndm", "ddpm", "heun"):
        for name, spacing in (("leading", LEADING), ("linspace", LINSPACE), ("trailing", TRAILING)):
            for n in (2, 7, 20):
                yield "%s_%s_n%d" % (kind, name, n), kind, spacing, n, {}
    yield "pndm_to_one", "pndm", dict(set_alpha_to_one=True, steps_offset=0), 7, {}
    yield "pndm_n3", "pndm", {}, 3, {}
    yield "pndm_n2_strength", "pndm", {}, 2, dict(strength=0.5)
    yield "ddpm_n200", "ddpm", {}, 200, {}
    for n in (2, 10):
        yield "heun_karras_n%d" % n, "heun", {**LEADING, **KARRAS}, n, {}
    yield "heun_karras_strength", "heun", KARRAS, 10, dict(strength=0.5)
    yield "lcm_origin_100", "lcm", dict(original_inference_steps=100), 8, {}
    yield "lcm_origin_7", "lcm", dict(original_inference_steps=7), 3, {}
    yield "lcm_all", "lcm", {}, 50, {}
    yield "tcd_origin_100", "tcd", dict(original_inference_steps=100), 8, dict(eta=0.3)
    for eta in (0.0, 0.5, 1.0):
        yield "tcd_eta_%g" % eta, "tcd", {}, 4, dict(eta=eta)
    for kind in ("ddim", "euler", "euler_a", "dpmpp_2m"):
        spacing = {} if kind == "ddim" else LEADING
        for n in (1, 2, 4, 10, 20):
            yield "%s_n%d" % (kind, n), kind, spacing, n, {}
        for n, strength in ((4, 0.5), (20, 0.5), (10, 0.3)):
            yield "%s_n%d_strength_%g" % (kind, n, strength), kind, spacing, n, dict(strength=strength)
        yield "%s_zero_snr_v_strength" % kind, kind, {**TRAILING, **V, **ZERO}, 10, dict(strength=0.5)
    yield "euler_karras_strength", "euler", KARRAS, 10, dict(strength=0.5)
    yield "dpmpp_2m_karras_strength", "dpmpp_2m", KARRAS, 10, dict(strength=0.5)
    yield "ddim_eta_strength", "ddim", {}, 10, dict(strength=0.5, eta=1.0)
    own = [14.5, 6.25, 2.5, 1.125, 0.5, 0.0625]
    beyond = [80.0, 3.0, 0.002]
    for kind in ("euler", "euler_a", "heun", "dpmpp_2m"):
        yield "%s_sigmas" % kind, kind, {}, len(own), dict(sigmas=own)
        yield "%s_sigmas_v_leading" % kind, kind, {**LEADING, **V}, len(own), dict(sigmas=own)
        yield "%s_sigmas_strength" % kind, kind, {}, len(own), dict(sigmas=own, strength=0.5)
        yield "%s_sigmas_beyond" % kind, kind, {}, len(beyond), dict(sigmas=beyond)
        yield "%s_sigmas_one" % kind, kind, {}, 1, dict(sigmas=[7.0])


def main():
    out, tensors = [], {}
    for name, kind, more, steps, extra in cases():
        config = {**SD, **BASE.get(kind, {}), **more}
        sigmas, strength, eta = extra.get("sigmas"), extra.get("strength"), extra.get("eta")
        s = make(kind, config, steps, sigmas)
        begin, path, _ = walk(s, kind, steps, strength, eta, torch.float32)
        _, exact, _ = walk(make(kind, config, steps, sigmas), kind, steps, strength, eta, torch.float64)
        assert path.dtype == torch.float32 and exact.dtype == torch.float64, name
        rel = max(max_rel(a, b) for a, b in zip(path, exact))
        case = {"name": name, "kind": kind, "config": config, "steps": steps, "begin": begin,
                "init_noise_sigma": float(s.init_noise_sigma), "f64_rel": float("%.2g" % rel)}
        case.update({k: v for k, v in extra.items()})
        out.append(case)
        tensors[name + "/timesteps"] = s.timesteps.float()
        if hasattr(s, "sigmas"):
            tensors[name + "/sigmas"] = s.sigmas.float()
        tensors[name + "/x"] = exact.float()
        if rel > 1e-6:
            print("%-32s f64_rel %.1e" % (name, rel))
    tensors["x0"], tensors["noise"] = noise(5, *SHAPE), noise(6, *SHAPE)
    write_json("solvers.json", {"versions": versions(), "noise_seed": 9, "cases": out})
    store("solvers.safetensors", tensors)
    print(len(out), "cases")


if __name__ == "__main__":
    main()
