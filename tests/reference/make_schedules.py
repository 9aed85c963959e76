"""Which levels a sampler visits, and every key of a scheduler_config.json, by diffusers' own run.

    python make_schedules.py

Writes golden/schedules.json and .safetensors: sigma schedules, betas and ends of the sigmas, stepped through as in
make_schedulers.py. Those that other programs have and diffusers has not are laid out here from their definitions and
given to diffusers as sigmas.

Writes golden/scheduler_keys.json and .safetensors: every key that a scheduler class which weft opens has (and the keys of the other
classes) at another value than the default, for each class: whether diffusers' run is another one then, and which.
"""
import inspect
import math
import sys

import numpy as np
import torch
from common import max_rel, noise, store, versions, write_json
from diffusers import (DDIMScheduler, DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler,
                       DPMSolverSinglestepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
                       HeunDiscreteScheduler, KDPM2AncestralDiscreteScheduler, KDPM2DiscreteScheduler, LCMScheduler,
                       LMSDiscreteScheduler, PNDMScheduler, TCDScheduler, UniPCMultistepScheduler)
from diffusers.schedulers import AysSchedules
import make_schedulers
from make_schedulers import BASE, KARRAS, LEADING, LINSPACE, SD, SHAPE, TRAILING, V, ZERO, give_sigmas, walk, zero_snr
from scipy.stats import beta as beta_distribution

from make_solvers import DPMSolverSDEScheduler, Numpy64

# One kind of weft's for each class.
OPENED = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler, "pndm": PNDMScheduler, "euler": EulerDiscreteScheduler,
          "euler_a": EulerAncestralDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler, "heun": HeunDiscreteScheduler,
          "lcm": LCMScheduler, "tcd": TCDScheduler, "dpmpp_2s": DPMSolverSinglestepScheduler,
          "dpmpp_sde": DPMSolverSDEScheduler, "unipc": UniPCMultistepScheduler, "lms": LMSDiscreteScheduler,
          "dpm2": KDPM2DiscreteScheduler, "dpm2_a": KDPM2AncestralDiscreteScheduler, "deis": DEISMultistepScheduler}
# Those that are stepped here. DPM++ SDE draws its noise in a way of its own: make_solvers.py.
CLASSES = {kind: cls for kind, cls in OPENED.items() if kind != "dpmpp_sde"}
make_schedulers.DRAW = tuple(set(make_schedulers.DRAW) | {"dpmpp_2m", "dpmpp_2s", "dpm2_a"})
EXP = dict(use_exponential_sigmas=True)
BETA = dict(use_beta_sigmas=True)
LU = dict(use_lu_lambdas=True)
MIN = dict(final_sigmas_type="sigma_min")
LOG = dict(interpolation_type="log_linear")
CONTINUOUS = dict(timestep_type="continuous")
RANGE = dict(sigma_min=0.1, sigma_max=10.0)
COSINE = dict(beta_schedule="squaredcos_cap_v2")
OWN_BETAS = [round(0.01 + 0.0005 * i + 0.004 * math.sin(i), 6) for i in range(40)]


# ---- schedules that diffusers has not, from their definitions ------------------------------------

def trained(config):
    """Training's sigmas, and the sigma at a timestep with a fraction: even between logarithms."""
    s = EulerDiscreteScheduler(**config)
    sigmas = (((1 - s.alphas_cumprod) / s.alphas_cumprod) ** 0.5).double().numpy()
    return sigmas, lambda t: np.exp(np.interp(t, np.arange(len(sigmas)), np.log(sigmas)))


def simple(sigmas, at, n):
    return [sigmas[len(sigmas) - 1 - int(i * (len(sigmas) / n))] for i in range(n)]


def sgm_uniform(sigmas, at, n):
    return [at(t) for t in np.linspace(len(sigmas) - 1, 0, n + 1)[:-1]]


def normal(sigmas, at, n):
    return [at(t) for t in np.linspace(len(sigmas) - 1, 0, n)]


def ddim_uniform(sigmas, at, n):
    return [sigmas[1 + k * (len(sigmas) // n)] for k in reversed(range(n))]


def beta_steps(sigmas, at, n):
    part = beta_distribution.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6)
    return [sigmas[int(t)] for t in np.rint(part * (len(sigmas) - 1))]


def kl_optimal(sigmas, at, n):
    part = np.linspace(0, 1, n)
    return list(np.tan(part * math.atan(sigmas[0]) + (1 - part) * math.atan(sigmas[-1])))


def aligned(name):
    table = AysSchedules[name][:-1] + [0.029]  # diffusers ends at 0; the authors' list at 0.029

    def levels(sigmas, at, n):
        x = np.linspace(0, 1, n + 1)[:-1]
        return list(np.exp(np.interp(x, np.linspace(0, 1, len(table)), np.log(table))))
    return levels


DEFINED = {"simple": simple, "sgm_uniform": sgm_uniform, "normal": normal, "ddim_uniform": ddim_uniform, "beta": beta_steps,
           "kl_optimal": kl_optimal, "align_your_steps": aligned("StableDiffusionSigmas"),
           "align_your_steps_sdxl": aligned("StableDiffusionXLSigmas")}


# ---- schedules ---------------------------------------------------------------------------------------

def cases():
    """(name, kind, config, steps, schedule)"""
    between = {"karras": KARRAS, "exponential": EXP, "beta_sigmas": BETA}
    for kind in CLASSES:
        keys = set(inspect.signature(CLASSES[kind].__init__).parameters)
        if "use_exponential_sigmas" not in keys:
            continue
        leading = LEADING if "steps_offset" in keys else {}
        trailing = TRAILING if "steps_offset" in keys else {}
        for name, on in between.items():
            for n in (1, 2, 5, 20) if kind in ("euler", "heun", "dpmpp_2m") else (5,):
                yield "%s_%s_n%d" % (kind, name, n), kind, on, n, None
            yield "%s_%s_leading" % (kind, name), kind, {**on, **leading}, 6, None
            yield "%s_%s_trailing_v" % (kind, name), kind, {**on, **trailing, **V}, 6, None
            yield "%s_%s_range" % (kind, name), kind, {**on, **RANGE}, 6, None
            if kind in ("euler", "dpmpp_2m", "unipc"):
                yield "%s_%s_low" % (kind, name), kind, {**on, "sigma_min": 0.25}, 4, None
                yield "%s_%s_high" % (kind, name), kind, {**on, "sigma_max": 5.5}, 4, None
            if kind in ("euler", "dpmpp_2m", "unipc", "deis"):  # others make much of differences of latents of 20000
                yield "%s_%s_cosine" % (kind, name), kind, {**on, **COSINE}, 5, None
            if "final_sigmas_type" in keys:
                yield "%s_%s_final" % (kind, name), kind, {**on, **MIN}, 5, None
        if "final_sigmas_type" in keys:
            for n in (1, 5):
                yield "%s_final_n%d" % (kind, n), kind, MIN, n, None
        if kind != "dpm2_a":  # which is not finite in diffusers then
            yield "%s_cosine" % kind, kind, COSINE, 8, None
    for kind in ("ddim", "ddpm", "pndm", "euler_a", "lcm", "tcd"):
        yield "%s_cosine" % kind, kind, COSINE, 5, None
        yield "%s_own_betas" % kind, kind, {"trained_betas": OWN_BETAS, "num_train_timesteps": 40, "original_inference_steps": 10}, 5, None
    for name in ("sigmoid", "laplace"):
        yield "ddpm_%s" % name, "ddpm", {"beta_schedule": name}, 8, None
    yield "heun_exp", "heun", {"beta_schedule": "exp"}, 8, None
    yield "euler_own_betas", "euler", {"trained_betas": OWN_BETAS, "num_train_timesteps": 40}, 8, None
    yield "dpmpp_2m_own_betas_zero_snr_v", "dpmpp_2m", {"trained_betas": OWN_BETAS, "num_train_timesteps": 40, **ZERO, **V}, 8, None
    yield "ddim_cosine_zero_snr_v", "ddim", {**COSINE, **ZERO, **V, **TRAILING, "set_alpha_to_one": True}, 8, None
    for name, more in (("log", LOG), ("log_karras", {**LOG, **KARRAS}), ("log_beta", {**LOG, **BETA}),
                       ("log_final", {**LOG, **MIN}), ("log_leading", {**LOG, **LEADING}), ("continuous_v", {**CONTINUOUS, **V}),
                       ("continuous_v_karras", {**CONTINUOUS, **V, **KARRAS, "sigma_min": 0.002, "sigma_max": 700.0}),
                       ("continuous", CONTINUOUS), ("continuous_v_zero", {**CONTINUOUS, **V, **ZERO, **TRAILING})):
        for n in (2, 7):
            yield "euler_%s_n%d" % (name, n), "euler", more, n, None
    for n in (1, 2, 5, 20):
        yield "dpmpp_2m_lu_n%d" % n, "dpmpp_2m", LU, n, None
    yield "dpmpp_2m_lu_cosine", "dpmpp_2m", {**LU, **COSINE}, 5, None
    yield "dpmpp_2m_lu_karras", "dpmpp_2m", {**LU, **KARRAS}, 5, None
    for name, more in (("", {}), ("_leading", LEADING), ("_cosine", {**COSINE, **LINSPACE}), ("_final", MIN)):
        for low in (-5.1, -1.5):
            yield "dpmpp_2m_lambda%s_%g" % (name, -low), "dpmpp_2m", {**more, "lambda_min_clipped": low}, 6, None
    for schedule in DEFINED:
        for n in (1, 2, 7, 10, 20, 30):
            if n > 1 or schedule not in ("normal", "kl_optimal"):
                yield "euler_%s_n%d" % (schedule, n), "euler", {}, n, schedule
        yield "euler_a_%s" % schedule, "euler_a", LEADING, 6, schedule
        yield "heun_%s" % schedule, "heun", V, 6, schedule
        yield "dpmpp_2m_%s" % schedule, "dpmpp_2m", {}, 6, schedule


def make(kind, config, steps, schedule):
    s = CLASSES[kind].from_config(config)
    if schedule is None:
        lay_out(s, kind, steps)
    else:
        give_sigmas(s, kind, [float(v) for v in DEFINED[schedule](*trained(config), steps)])
    return begun(s)


def lay_out(s, kind, steps):
    """In f64 the levels inside the steps of DPM2 and DPM2 a; make_solvers.py says why."""
    module = sys.modules[type(s).__module__]
    if kind in ("dpm2", "dpm2_a"):
        module.np = Numpy64()
    s.set_timesteps(steps)
    module.np = np
    for name in ("sigmas_interpol", "sigmas_up", "sigmas_down"):
        if hasattr(s, name):
            setattr(s, name, getattr(s, name).double())


def begun(s):
    """At its first level, or a class that finds the first timestep twice begins with the second and runs out of sigmas."""
    if hasattr(s, "set_begin_index"):
        s.set_begin_index(0)
    return s


def write_schedules():
    out, tensors = [], {}
    for name, kind, more, steps, schedule in cases():
        config = {**SD, **BASE.get(kind, {}), **more}
        eta = 0.3 if kind == "tcd" else None
        s = make(kind, config, steps, schedule)
        begin, path, _ = walk(s, kind, steps, None, eta, torch.float32)[:3]
        exact = walk(make(kind, config, steps, schedule), kind, steps, None, eta, torch.float64)[1]
        rel = max(max_rel(a, b) for a, b in zip(path, exact))
        case = {"name": name, "kind": kind, "config": config, "steps": steps, "begin": begin,
                "init_noise_sigma": float(s.init_noise_sigma), "f64_rel": float("%.2g" % rel)}
        if schedule:
            case["schedule"] = schedule
        if eta:
            case["eta"] = eta
        out.append(case)
        tensors[name + "/timesteps"] = s.timesteps.float()
        if hasattr(s, "sigmas"):  # Euler's log_linear has one more than it uses
            tensors[name + "/sigmas"] = s.sigmas.float()[:len(s.timesteps) + 1]
        tensors[name + "/x"] = torch.stack([exact[0], exact[1], exact[-1]]).float()
        if rel > 1e-6:
            print("%-40s f64_rel %.1e" % (name, rel))
    quantiles = [float(beta_distribution.ppf(p, 0.6, 0.6)) for p in QUANTILES]
    write_json("schedules.json", {"versions": versions(), "noise_seed": 9, "quantiles": [QUANTILES, quantiles], "cases": out})
    tensors["noise"] = noise(6, *SHAPE)
    store("schedules.safetensors", tensors)
    print(len(out), "cases")


QUANTILES = [1e-9, 1e-6, 0.001, 0.01, 0.05, 0.1, 1 / 3, 0.4, 0.49, 0.5, 0.51, 0.6, 0.75, 0.9, 0.95, 0.99, 0.999, 0.999999]


# ---- every key ---------------------------------------------------------------------------------------

def c(**context):
    return context


GONE = None  # the key is not there, and a class takes its own default
CLIP = dict(clip_sample=True)
THRESHOLD = dict(thresholding=True)
FLOW = dict(use_flow_sigmas=True)
BETWEEN = [c(), KARRAS, EXP, BETA]
# key: (values, contexts)
KEYS = {
    "num_train_timesteps": ([500], [c()]),
    "beta_start": ([0.002, GONE], [c()]),
    "beta_end": ([0.02, GONE], [c()]),
    "beta_schedule": (["linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp", "cubic", GONE], [c()]),
    "trained_betas": ([OWN_BETAS], [c(num_train_timesteps=40, original_inference_steps=10)]),
    "prediction_type": (["v_prediction", "sample", "original_sample", "flow_prediction", GONE], [c()]),
    "timestep_spacing": (["leading", "linspace", "trailing", GONE], [c(), KARRAS]),
    "steps_offset": ([0, 1, 3], [c(), c(timestep_spacing="leading")]),
    "rescale_betas_zero_snr": ([True], [{**LEADING, **V}, {**TRAILING, **V}]),
    "set_alpha_to_one": ([True, False, GONE], [c(), c(steps_offset=0)]),
    "clip_sample": ([True], [c()]),
    "clip_sample_range": ([0.5], [c(), CLIP]),
    "thresholding": ([True], [c()]),
    "dynamic_thresholding_ratio": ([0.7], [c(), {**THRESHOLD, "sample_max_value": 1.5}]),
    "sample_max_value": ([1.5], [c(), THRESHOLD]),
    "variance_type": (["fixed_large", "fixed_small_log", "fixed_large_log", "learned", "learned_range"], [c()]),
    "skip_prk_steps": ([False], [c()]),
    "original_inference_steps": ([20], [c()]),
    "timestep_scaling": ([5.0], [c()]),
    "use_karras_sigmas": ([True], [c(), LEADING]),
    "use_exponential_sigmas": ([True], [c(), LEADING]),
    "use_beta_sigmas": ([True], [c(), LEADING, KARRAS]),
    "sigma_min": ([0.1], BETWEEN),
    "sigma_max": ([10.0], BETWEEN),
    "use_lu_lambdas": ([True], [c(), EXP]),
    "final_sigmas_type": (["sigma_min"], BETWEEN),
    "interpolation_type": (["log_linear"], BETWEEN),
    "timestep_type": (["continuous"], [c(), V]),
    "lambda_min_clipped": ([-2.0], [c(), LEADING, TRAILING]),
    "solver_order": ([1, 2, 3, 4], [c()]),
    "algorithm_type": (["sde-dpmsolver++", "dpmsolver", "sde-dpmsolver", "deis", "odd"], [c(), MIN]),
    "solver_type": (["heun", "midpoint", "logrho", "bh1", "bh2", "odd"], [c(), MIN]),
    "lower_order_final": ([True, False], [c(), c(solver_order=3), MIN]),
    "euler_at_final": ([True], [c(), {**MIN, "lower_order_final": False}]),
    "predict_x0": ([False], [c(), MIN]),
    "disable_corrector": ([[0], [1, 2]], [c()]),
    "use_flow_sigmas": ([True], [c()]),
    "flow_shift": ([3.0], [c()]),
    "use_dynamic_shifting": ([True], [c()]),
    "time_shift_type": (["linear"], [c()]),
    "shift_terminal": ([0.1], [c()]),
    "noise_sampler_seed": ([5], [c()]),
    "snr_shift_scale": ([2.0], [c()]),  # of classes that weft does not open
}
# An object, which no file holds.
NOT_OF_FILES = {"solver_p"}
STEPS = 6


def check_complete():
    for kind, cls in OPENED.items():
        keys = set(inspect.signature(cls.__init__).parameters) - {"self"}
        assert keys > {"beta_start"}, kind
        assert keys <= set(KEYS) | NOT_OF_FILES, (kind, keys - set(KEYS))


def run(kind, config):
    """The first and the last latents of diffusers, or None where it refuses. Of DPM++ SDE, which is not stepped here, the
    scale of the first noise, the timesteps, and the sigmas."""
    config = {k: v for k, v in config.items() if v is not GONE}
    cls = OPENED[kind]
    patch = config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in inspect.signature(cls.__init__).parameters

    def fresh():
        s = cls.from_config(config)
        if patch:  # how a model was trained counts for every solver
            zero_snr(s)
        lay_out(s, kind, STEPS)
        return begun(s)
    try:
        s = fresh()
        if kind not in CLASSES:
            x = torch.cat([torch.tensor([float(s.init_noise_sigma)]), s.timesteps.float(), s.sigmas.float()])
            return torch.nn.functional.pad(x, (0, 3 * math.prod(SHAPE) - len(x))), ""
        path = walk(s, kind, STEPS, None, 0.3 if kind == "tcd" else None, torch.float64)[1]
    except Exception as e:
        return None, "%s: %s" % (type(e).__name__, e)
    if not torch.isfinite(path).all():
        return None, "not finite"
    return torch.cat([path[0].flatten(), path[1].flatten(), path[-1].flatten()]).float(), ""


def write_keys():
    check_complete()
    rows, stored, baselines, why = [], [], {}, {}

    def number(x):
        stored.append(x)
        return len(stored) - 1
    for key, (values, contexts) in KEYS.items():
        for value in values:
            for context in contexts:
                row = {"key": key, "value": value, "context": context, "without": {}, "with": {}}
                if key in context:
                    continue
                for kind in OPENED:
                    base = {**SD, **BASE.get(kind, {}), **context}
                    if key == "rescale_betas_zero_snr" and kind == "pndm" and context["timestep_spacing"] != "leading":
                        continue  # it would divide by 0
                    known = kind + repr(sorted(base.items()))
                    if known not in baselines:
                        x, _ = run(kind, base)
                        baselines[known] = None if x is None else (number(x), x)
                    x, reason = run(kind, {**base, key: value})
                    if x is None:
                        row["with"][kind] = "refused"
                        why.setdefault("%s %s: %s" % (key, value if key != "trained_betas" else "", reason[:90]), []).append(kind)
                        continue
                    if baselines[known] is None:
                        continue
                    row["without"][kind] = baselines[known][0]
                    same = torch.equal(x, baselines[known][1])
                    row["with"][kind] = baselines[known][0] if same else number(x)
                rows.append(row)
    classes = {kind: {"class": cls.__name__, "keys": sorted(set(inspect.signature(cls.__init__).parameters) - {"self"} - NOT_OF_FILES)}
               for kind, cls in OPENED.items()}
    write_json("scheduler_keys.json", {"versions": versions(), "noise_seed": 9, "steps": STEPS, "base": SD,
                                       "bases": {k: BASE.get(k, {}) for k in OPENED}, "classes": classes, "rows": rows})
    store("scheduler_keys.safetensors", {"x": torch.stack(stored), "noise": noise(6, *SHAPE)})
    for text, kinds in why.items():
        print("refused:", text, kinds)
    print(len(rows), "rows,", len(stored), "runs")


def main():
    write_schedules()
    write_keys()


if __name__ == "__main__":
    main()
