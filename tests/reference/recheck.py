"""Re-check the stored torch and diffusers vectors against the installed versions, and write our own longer ones.

    python recheck.py

Prints one line per stored case with its largest difference, and at the end what differs at all. Then writes
golden/rng.* and golden/schedulers.*: the same facts, as whole tensors, for 20 steps and the samplers weft has.
"""
import json
import os
import sys

import common
import torch
from common import SHARED, max_rel, noise, store, versions, write_json
from diffusers import (DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, LCMScheduler, PNDMScheduler)
from transformers import CLIPTokenizer

CLASSES = (("ddim", DDIMScheduler), ("pndm", PNDMScheduler), ("ddpm", DDPMScheduler), ("euler_a", EulerAncestralDiscreteScheduler),
           ("euler", EulerDiscreteScheduler), ("dpmpp", DPMSolverMultistepScheduler), ("lcm", LCMScheduler))


def shared(name):
    with open(os.path.join(SHARED, name), encoding="utf-8") as f:
        return json.load(f)


def toy(xi, t):
    return 0.3 * torch.sin(1.7 * xi) + 0.05 * xi + 0.1 * float(t) / 1000


def check_rng():
    d = shared("torch_cpu_rng.json")
    worst, bad = 0.0, []

    def see(what, got, want, tol=0.0):
        nonlocal worst
        diff = max(abs(float(a) - float(b)) for a, b in zip(got, want))
        worst = max(worst, diff)
        if diff > tol:
            bad.append((what, diff))
        print("rng   %-28s %.2e" % (what, diff))

    for c in d["randn"]:
        v = noise(c["seed"], c["n"]).tolist()
        see("randn seed %d n %d" % (c["seed"], c["n"]), v[:len(c["first8"])] + v[-4:], c["first8"] + c["last4"], 1e-8 * 3)
        if "mean" in c:
            x = torch.tensor(v, dtype=torch.float64)
            see("  mean, std", [x.mean(), x.std()], [c["mean"], c["std"]], 1e-7)
    g = torch.Generator("cpu").manual_seed(0)
    for i, c in enumerate(d["consecutive_seed0"]):
        see("consecutive %d (n %d)" % (i, c["n"]), torch.randn(c["n"], generator=g).tolist(), c["values"], 3e-8)
    see("rand", torch.rand(4, generator=torch.Generator().manual_seed(0)).tolist(), d["rand_seed0_n4"], 3e-8)
    see("randn f64 n 4", noise(0, 4, dtype=torch.float64).tolist(), d["randn_f64_seed0_n4"], 1e-15)
    see("randn f64 n 16", noise(0, 16, dtype=torch.float64).tolist()[:4], d["randn_f64_seed0_n16_first4"], 1e-15)
    for s in (2 ** 32 - 1, 2 ** 64 - 1):
        see("seed %d as seed -1" % s, noise(s if s < 2 ** 63 else s, 8).tolist(), noise(-1, 8).tolist())
    return bad


def run(name, scheduler, steps, x0, gen_seed, keep=False, eta=None):
    scheduler.set_timesteps(steps)
    x = x0 * scheduler.init_noise_sigma
    gen = torch.Generator("cpu").manual_seed(gen_seed)
    stochastic = name.startswith(("ddpm", "euler_a", "lcm")) or eta
    more = {"eta": eta} if eta else {}
    inputs, path, noises, last = [], [], [], None
    for t in scheduler.timesteps:
        xi = scheduler.scale_model_input(x, t)
        inputs.append(xi.clone())
        if stochastic:
            state = gen.get_state()
        r = scheduler.step(toy(xi, t), t, x, **({"generator": gen} if stochastic else {}), **more)
        if stochastic and keep:
            peek = torch.Generator("cpu")
            peek.set_state(state)
            noises.append(torch.randn(x.shape, generator=peek))
        x, last = r.prev_sample, r
        path.append(x.clone())
    return inputs, path, noises, last


def check_schedulers():
    bad = []
    for name, c in shared("scheduler_reference.json")["cases"].items():
        if name.startswith("_"):
            s = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
            d = max(abs(s.alphas_cumprod[int(k)].item() - v) for k, v in c.items())
            print("sched %-28s %.2e" % (name, d))
            if d > 1e-7:
                bad.append((name, d))
            continue
        cls = next(k for p, k in CLASSES if name.startswith(p))
        s = cls(**c["config"])
        x0 = torch.tensor([[1, -0.5, 0.25, 2]])
        _, path, _, last = run(name, s, c["num_inference_steps"], x0, 0)
        want = torch.tensor(c["trajectory"]).unsqueeze(1)
        ts = [float(t) for t in s.timesteps]
        dt = max(abs(a - b) for a, b in zip(ts, c["timesteps"])) + abs(len(ts) - len(c["timesteps"]))
        di = abs(float(s.init_noise_sigma) - c["init_noise_sigma"])
        ds = max(abs(float(a) - b) for a, b in zip(s.sigmas, c["sigmas"])) if "sigmas" in c else 0.0
        dx = (torch.stack(path) - want).abs().max().item()
        print("sched %-28s timesteps %.1e  sigmas %.1e  init %.1e  path %.1e (rel %.1e)"
              % (name, dt, ds, di, dx, max_rel(torch.stack(path), want)))
        if dt > 1e-3 or ds > 1e-5 or di > 1e-5 or max_rel(torch.stack(path), want) > 2e-6:
            bad.append((name, dt, ds, di, dx))
    return bad


def check_tokens():
    sys.path.insert(0, common.HERE)
    from make_models import tokenizer
    tok, _, _ = tokenizer(10 ** 9, "<|endoftext|>")
    bad = []
    for c in shared("clip_tokenizer_vectors.json")["cases"]:
        got = tok(c["text"], add_special_tokens=False)["input_ids"]
        if got != c["ids"]:
            bad.append((c["text"], got, c["ids"]))
    print("token %d cases, %d differ" % (len(shared("clip_tokenizer_vectors.json")["cases"]), len(bad)))
    return bad


def fill(module, rename=lambda k: k):
    """The weights of golden_tiny_*.json: names sorted bytewise, s = sin(1 + 0.618 i + k) in f64."""
    named = sorted((rename(n), p) for n, p in module.named_parameters())
    for k, (n, p) in enumerate(named):
        i = torch.arange(p.numel(), dtype=torch.float64)
        s = torch.sin(1 + 0.61803398875 * i + k).reshape(p.shape)
        if p.ndim >= 2:
            s = s / (p.numel() / p.shape[0]) ** 0.5
        else:
            s = 1 + 0.1 * s if n.endswith(".weight") else 0.1 * s
        p.copy_(s.float())
    return module.eval()


def wave(f, step, *shape):
    n = 1
    for s in shape:
        n *= s
    return f(step * torch.arange(n, dtype=torch.float64)).reshape(shape).float()


def against(what, x, want, bad):
    """Errors against the stored first and last values, relative to the tensor's largest value."""
    flat, top = x.flatten().double(), x.abs().max().item()
    d = 0.0
    for got, w in ((flat[:len(want["first"])], want["first"]), (flat[len(flat) - len(want["last"]):], want["last"])):
        d = max(d, (got - torch.tensor(w, dtype=torch.float64)).abs().max().item() / top)
    dl = abs(flat.norm().item() - want["l2"]) / want["l2"]
    print("net   %-34s values %.1e  l2 %.1e" % (what, d, dl))
    if max(d, dl) > 2e-6:
        bad.append((what, d, dl))


def check_nets():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection
    bad = []
    for c in shared("golden_tiny_models.json")["cases"]:
        if "vae" in c["name"]:
            v = fill(AutoencoderKL(**c["config"]))
            against("tiny_vae decode", v.decode(wave(torch.sin, 0.1, 1, 4, 6, 5)).sample, c["decode"], bad)
            e = v.encode(wave(torch.cos, 0.05, 1, 3, 20, 24)).latent_dist
            against("tiny_vae encode mean", e.mean, c["encode_mean"], bad)
            against("tiny_vae encode logvar", e.logvar, c["encode_logvar"], bad)
            continue
        u = fill(UNet2DConditionModel(**c["config"]))
        assert len(u.state_dict()) == c["tensors"]
        i = c["inputs"]
        add = {"text_embeds": wave(torch.sin, 0.3, 2, 20), "time_ids": torch.tensor(i["time_ids"], dtype=torch.float32)} if "time_ids" in i else None
        y = u(wave(torch.sin, 0.1, 2, 4, 16, 16), torch.tensor(i["timesteps"]), wave(torch.cos, 0.2, 2, 7, 24), added_cond_kwargs=add).sample
        against(c["name"], y, c["output"], bad)
    d = shared("golden_tiny_clip.json")
    k = d["config"]
    ids = torch.tensor([[98, 3, 17, 42, 5] + [99] * 72])
    for c in d["cases"]:
        m = fill(CLIPTextModelWithProjection(CLIPTextConfig(
            vocab_size=k["vocab"], hidden_size=k["hidden"], num_hidden_layers=k["layers"], num_attention_heads=k["heads"],
            intermediate_size=k["intermediate"], max_position_embeddings=k["positions"], projection_dim=k["projection"],
            hidden_act=c["act"], bos_token_id=98, eos_token_id=99, attn_implementation="eager")))
        o = m(ids, output_hidden_states=True)
        against("clip %s last" % c["act"], o.last_hidden_state, c["last_hidden_state"], bad)
        against("clip %s penultimate" % c["act"], o.hidden_states[-2], c["penultimate_no_final_ln"], bad)
        against("clip %s pooled" % c["act"], o.last_hidden_state[0, 5], c["pooled"], bad)
        against("clip %s text_embeds" % c["act"], o.text_embeds[0], c["text_embeds"], bad)
    return bad


SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
OURS = {
    "ddim": ("ddim", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **SD), 20),
    "ddim_one": ("ddim", dict(clip_sample=False, set_alpha_to_one=True, steps_offset=0, **SD), 7),
    "ddim_v": ("ddim", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction", **SD), 20),
    "ddim_trailing": ("ddim", dict(clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing", **SD), 20),
    "ddim_n1": ("ddim", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **SD), 1),
    "ddim_eta": ("ddim", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **SD), 20, 0.5),
    "ddim_eta_one": ("ddim", dict(clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing", **SD), 10, 1.0),
    "ddim_linear_betas": ("ddim", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **dict(SD, beta_schedule="linear")), 10),
    "ddim_zero_snr_v": ("ddim", dict(clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing", rescale_betas_zero_snr=True,
                                     prediction_type="v_prediction", **SD), 10),
    "ddim_sample": ("ddim", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="sample", **SD), 10),
    "euler_sample": ("euler", dict(timestep_spacing="leading", steps_offset=1, prediction_type="sample", **SD), 10),
    "euler_zero_snr_v": ("euler", dict(timestep_spacing="trailing", rescale_betas_zero_snr=True, prediction_type="v_prediction", **SD), 10),
    "euler_linear_betas": ("euler", dict(timestep_spacing="leading", steps_offset=1, **dict(SD, beta_schedule="linear")), 10),
    "dpmpp_2m_sample": ("dpmpp", dict(timestep_spacing="leading", steps_offset=1, prediction_type="sample", **SD), 10),
    "dpmpp_2m_zero_snr_v": ("dpmpp", dict(timestep_spacing="trailing", rescale_betas_zero_snr=True, prediction_type="v_prediction", **SD), 10),
    "euler": ("euler", dict(timestep_spacing="leading", steps_offset=1, **SD), 20),
    "euler_linspace": ("euler", dict(timestep_spacing="linspace", **SD), 20),
    "euler_trailing_v": ("euler", dict(timestep_spacing="trailing", prediction_type="v_prediction", **SD), 20),
    "euler_karras": ("euler", dict(timestep_spacing="leading", steps_offset=1, use_karras_sigmas=True, **SD), 20),
    "euler_n1": ("euler", dict(timestep_spacing="leading", steps_offset=1, **SD), 1),
    "euler_n1_karras": ("euler", dict(timestep_spacing="leading", steps_offset=1, use_karras_sigmas=True, **SD), 2),
    "euler_a": ("euler_a", dict(timestep_spacing="leading", steps_offset=1, **SD), 20),
    "euler_a_linspace": ("euler_a", dict(timestep_spacing="linspace", **SD), 20),
    "euler_a_v": ("euler_a", dict(timestep_spacing="leading", steps_offset=1, prediction_type="v_prediction", **SD), 20),
    "dpmpp_2m": ("dpmpp", dict(timestep_spacing="linspace", **SD), 20),
    "dpmpp_2m_leading": ("dpmpp", dict(timestep_spacing="leading", steps_offset=1, **SD), 20),
    "dpmpp_2m_trailing": ("dpmpp", dict(timestep_spacing="trailing", **SD), 20),
    "dpmpp_2m_karras": ("dpmpp", dict(timestep_spacing="linspace", use_karras_sigmas=True, **SD), 20),
    "dpmpp_2m_v_karras": ("dpmpp", dict(timestep_spacing="leading", steps_offset=1, use_karras_sigmas=True, prediction_type="v_prediction", **SD), 20),
    "dpmpp_2m_n1": ("dpmpp", dict(timestep_spacing="linspace", **SD), 1),
    "dpmpp_2m_n5": ("dpmpp", dict(timestep_spacing="linspace", **SD), 5),
}


def write_schedulers():
    cases, tensors = [], {}
    x0 = noise(5, 1, 4, 2, 3)
    for name, (kind, config, steps, *eta) in OURS.items():
        cls = next(k for p, k in CLASSES if kind == p)
        s = cls(**config)
        s.set_timesteps(steps)
        inputs, path, noises, _ = run(kind, s, steps, x0, 9, True, *eta)
        tensors[name + "/x0"] = x0 * s.init_noise_sigma
        tensors[name + "/model_in"] = torch.stack(inputs).float()
        tensors[name + "/x"] = torch.stack(path).float()
        if noises:
            tensors[name + "/noise"] = torch.stack(noises)
        case = {"name": name, "class": cls.__name__, "config": config, "steps": steps,
                "init_noise_sigma": float(s.init_noise_sigma), "timesteps": [float(t) for t in s.timesteps]}
        if eta:
            case["eta"] = eta[0]
        if hasattr(s, "sigmas"):
            case["sigmas"] = [float(v) for v in s.sigmas]
        cases.append(case)
    write_json("schedulers.json", {"versions": versions(), "model": "xi = scaled input; out = 0.3 sin(1.7 xi) + 0.05 xi + 0.1 t/1000",
                                   "x0_seed": 5, "noise_seed": 9, "shape": [1, 4, 2, 3], "cases": cases})
    store("schedulers.safetensors", tensors)


def write_rng():
    cases, tensors = [], {}
    for seed in (0, 1, 42, 1234567890123, 2 ** 32 - 1):
        for n in (1, 2, 4, 15, 16, 17, 31, 64, 256):
            k = "randn/%d/%d" % (seed, n)
            tensors[k] = noise(seed, n)
            cases.append({"tensor": k, "seed": seed, "shape": [n], "dtype": "f32"})
    tensors["randn/7/1x4x16x16"] = noise(7, 1, 4, 16, 16)
    cases.append({"tensor": "randn/7/1x4x16x16", "seed": 7, "shape": [1, 4, 16, 16], "dtype": "f32"})
    for n in (4, 16, 33):
        k = "rand/3/%d" % n
        tensors[k] = torch.rand(n, generator=torch.Generator().manual_seed(3))
        k = "randn64/3/%d" % n
        tensors[k] = noise(3, n, dtype=torch.float64)
        cases.append({"tensor": k, "seed": 3, "shape": [n], "dtype": "f64"})
    sizes = [3, 16, 2, 17, 1, 5, 64, 4]
    g = torch.Generator("cpu").manual_seed(0)
    for i, n in enumerate(sizes):
        tensors["consecutive/%d" % i] = torch.randn(n, generator=g)
    write_json("rng.json", {"versions": versions(), "cases": cases, "consecutive_seed": 0, "consecutive_sizes": sizes})
    store("rng.safetensors", tensors)


if __name__ == "__main__":
    bad = check_rng() + check_schedulers() + check_tokens() + check_nets()
    print("differs:", bad or "nothing")
    write_rng()
    write_schedulers()
