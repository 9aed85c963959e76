"""What every golden maker shares: where things are, how a case is stored, how a model is opened.

A golden is only worth keeping if it can be judged, so each stored output travels with its inputs in the same
safetensors file, and with `f64_rel`: the error of the f32 reference itself, found by running the same
thing in f64. A comparison tighter than that asks for luck.
"""
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
DATA = os.path.join(REPO, "tests", "data")
MODELS = os.path.join(DATA, "models")
ADAPTERS = os.path.join(DATA, "adapters")
GOLDEN = os.path.join(DATA, "golden")
SHARED = os.path.join(DATA, "shared")

torch.set_num_threads(int(os.environ.get("WEFT_THREADS", "1")))
torch.set_grad_enabled(False)


def versions():
    import diffusers
    import peft
    import transformers
    return {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
            "peft": peft.__version__, "python": "%d.%d" % sys.version_info[:2]}


def max_rel(a, b):
    """max|a-b| / max|b| : the error the C tests use. b is the reference."""
    a, b = a.double(), b.double()
    top = b.abs().max().item()
    return ((a - b).abs().max().item() / top) if top > 0 else (a - b).abs().max().item()


def l2_rel(a, b):
    a, b = a.double(), b.double()
    n = b.norm().item()
    return ((a - b).norm().item() / n) if n > 0 else (a - b).norm().item()


def noise(seed, *shape, dtype=torch.float32):
    """torch CPU generator noise; the generator is fresh, so weft can remake it from the seed."""
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=dtype)


def store(name, tensors, meta=None):
    """Write golden/<name>; every tensor contiguous, f32/f64/i32/u8 as given, sorted names."""
    path = os.path.join(GOLDEN, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    out = {}
    for k in sorted(tensors):
        t = tensors[k]
        if not torch.is_tensor(t):
            t = torch.as_tensor(np.asarray(t))
        if t.is_floating_point() and not torch.isfinite(t).all() and not k.endswith(("rho", "/q")):
            raise ValueError("%s: %s is not finite" % (name, k))
        out[k] = t.detach().contiguous().clone()
    save_file(out, path, metadata={k: str(v) for k, v in (meta or {}).items()})
    os.chmod(path, 0o644)
    return path


def load(name):
    return load_file(os.path.join(GOLDEN, name))


def write_json(name, obj):
    """JSON that diffs well: one line per leaf list, keys in the order given."""
    path = os.path.join(GOLDEN, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(_pretty(obj) + "\n")
    return path


def _pretty(o, depth=0):
    flat = json.dumps(o, ensure_ascii=True, allow_nan=False)
    if not isinstance(o, (dict, list)) or len(flat) <= 110:
        return flat
    if isinstance(o, list) and all(isinstance(x, (int, float, str)) for x in o):
        return flat
    pad = " " * (depth + 1)
    if isinstance(o, dict):
        body = [pad + json.dumps(k) + ": " + _pretty(v, depth + 1) for k, v in o.items()]
        return "{\n" + ",\n".join(body) + "\n" + " " * depth + "}"
    return "[\n" + ",\n".join(pad + _pretty(v, depth + 1) for v in o) + "\n" + " " * depth + "]"


def read_json(name):
    with open(os.path.join(GOLDEN, name), encoding="utf-8") as f:
        return json.load(f)


def in_f64(f, *modules):
    """f() with the modules in f64 and, unlike diffusers, with the time embedding in f64 too."""
    import math
    import diffusers.models.embeddings as emb
    keep = emb.get_timestep_embedding

    def exact(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
        half = embedding_dim // 2
        e = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift))
        e = scale * timesteps.double()[:, None] * e[None]
        return torch.cat([e.cos(), e.sin()] if flip_sin_to_cos else [e.sin(), e.cos()], -1)
    emb.get_timestep_embedding = exact
    for m in modules:
        m.double()
    try:
        return f()
    finally:
        emb.get_timestep_embedding = keep
        for m in modules:
            m.float()


def rel_path(path):
    """A path as the index files give it: relative to tests/data."""
    return os.path.relpath(path, DATA)


def pipeline(folder, dtype=torch.float32):
    """A diffusers pipeline with weights widened from the stored dtype, as weft computes with them."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    with open(os.path.join(folder, "model_index.json")) as f:
        cls = json.load(f)["_class_name"]
    pipes = {"StableDiffusionPipeline": StableDiffusionPipeline, "StableDiffusionXLPipeline": StableDiffusionXLPipeline}
    kw = {"safety_checker": None, "requires_safety_checker": False} if cls == "StableDiffusionPipeline" else {"add_watermarker": False}
    p = pipes[cls].from_pretrained(folder, dtype=torch.float32, **kw)
    p.set_progress_bar_config(disable=True)
    for n in ("unet", "vae", "text_encoder", "text_encoder_2"):
        m = getattr(p, n, None)
        if m is not None:
            m.to(dtype).eval()
    return p
