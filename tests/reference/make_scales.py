"""Where an adapter's scale comes from: PEFT's regular expressions, and what PEFT makes of alphas that a moved file has lost.

    python make_scales.py          writes tests/data/scales/*, golden/scales.json, golden/scales.safetensors, golden/patterns.json

PEFT makes each file and its own forward in f32 is the reference; f64_rel is how far that is from itself in f64. bare.safetensors is what
diffusers' save_lora_adapter() writes of one component: PEFT's names, the configuration in the metadata without a prefix. The patterns are
held against paths by PEFT's own get_pattern_key().
"""
import json
import os
import random
import shutil
import signal

import torch
from common import DATA, in_f64, max_rel, store, versions, write_json
from make_families import inputs, model_of, outputs, seed_of, tidy_config, untouched
from peft import LoKrConfig, LoraConfig, PeftModel, get_peft_model
from peft.utils.other import get_pattern_key

FILES = os.path.join(DATA, "scales")
MODEL = "tiny-sd1"
TARGETS = r"(down_blocks\.1|mid_block|up_blocks\.2).*(attn\d\.to_[qkv]|ff\.net\.2)|up_blocks\.2\.resnets\.[01]\.conv1"   # keys decide: weft reads none
FEW = r"down_blocks\.1.*to_[qv]"
CASES = [
    ("peft_regex", LoraConfig(
        r=4, lora_alpha=16, target_modules=TARGETS,
        rank_pattern={r"down_blocks\.[01]\.attentions\.\d+\..*to_q|mid_block.*attn.*": 2, r"(?:ff|gg)\.net\.[0-2]": 3},
        alpha_pattern={r"attn\d\.to_q": 3, "to_q|to_k": 7, r"^up_blocks(\.\w+){2,}\.to_v$": 2.5, r"[^0-9]+\.[01]\.conv1": 5})),
    ("peft_lora", LoraConfig(r=4, lora_alpha=16, target_modules=FEW)),
    ("peft_lokr", LoKrConfig(r=64, alpha=8, target_modules=FEW)),        # both factors whole: no rank in the shapes
]


def made(name, config):
    """The folder that PEFT writes, and what PEFT computes with it."""
    g = seed_of(name)
    net = get_peft_model(model_of(MODEL).unet, config)
    for k, q in sorted(net.named_parameters()):
        if "lora_" in k or "lokr_" in k:
            q.data = torch.randn(q.shape, generator=g) * (1.5 if "lokr_" in k else 0.3 / (q.shape[-1] ** 0.5 if q.ndim == 2 else 2))
    folder = os.path.join(FILES, name)
    shutil.rmtree(folder, ignore_errors=True)
    net.save_pretrained(folder)
    tidy_config(folder)
    for f in os.listdir(folder):
        os.chmod(os.path.join(folder, f), 0o644)
    pipe = model_of(MODEL)
    return folder, lambda t: forward(PeftModel.from_pretrained(pipe.unet, folder).float().eval(), pipe, t)


def forward(net, pipe, t):
    out = outputs(pipe, t, True, False)["unet"]
    return out, in_f64(lambda: outputs(pipe, t, True, False)["unet"], pipe.unet)


def bare(name, config):
    """One component as diffusers saves it by itself."""
    g = seed_of(name)
    pipe = model_of(MODEL)
    pipe.unet.add_adapter(config)
    for k, q in sorted(pipe.unet.named_parameters()):
        if "lora_" in k:
            q.data = 0.3 * torch.randn(q.shape, generator=g) / q.shape[-1] ** 0.5
    pipe.unet.save_lora_adapter(FILES, weight_name=name + ".safetensors")
    os.chmod(os.path.join(FILES, name + ".safetensors"), 0o644)
    return os.path.join(FILES, name + ".safetensors"), lambda t: forward(pipe.unet, pipe, t)


# ---------------------------------------------------------------- patterns

PATHS = ["to_q", "into_q", "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
         "mid_block.attentions.0.transformer_blocks.0.ff.net.2", "up_blocks.2.resnets.1.conv1", "up_blocks.12.resnets.0.conv_shortcut", "a", "aa", "ab.b",
         "a.b.a", "encoder.layers.0.self_attn.q_proj", "x_1.y-2.z", "aaa.b"]
PATTERNS = ["to_q", "to_q|to_k", r"attn\d\.to_q", "[01]", r"to_(q|k|out\.0)", "attn[12].to_q", "(?:attn1|attn2).to_[a-q]", r"\d+\.resnets\.\w+\.conv\w*",
            "^to_q$", "^down_blocks.*to_q", r"down_blocks\.(0|1)\.attentions\.[^0]\..*", "a{2}", "a{1,2}", "a{2,}", "a{,2}", "(a|b)+", "(a.)*a", "a+?", "[^a-z]+",
            r"\D+", r"\S*", r"\W", r"\bto_q\b", r"\Bto_q", r".*\bconv1", "conv_shortcut|", "()", "(a|)b", "((a))", r"[\w.]+", "[]a]", "[a-]", "x_1.y[-_]2.z", r"x_1\.y\-2\.z",
            "a$|b", "(^a|b)", "(a$)", "a{x}", "{2", "a}", "]", "a|b|ab.b", "(a|(b|(to_q)))", "([ab]{1,3}.?){2,3}", r"(\w+\.){3}\w+", r"\w+(?:\.\d+)+\.\w+", "z", ".", "..",
            r"\A.*to_q\Z", "a??", "(a|aa)(b|.b)", "(a*)*", "(a*)*b", "(?:(?:a|b)?)+"]


def random_pattern(r, depth=0):
    atoms = ["a", "b", ".", r"\.", "to_q", "[ab]", "[^b.]", r"\d", r"\w", r"\W", "attn", "0", "1", "net", "_", "s", "[a-z]+", r"\w*"]
    if depth < 2:
        atoms += ["(%s)" % random_pattern(r, depth + 1) for _ in range(3)] + ["(?:%s)" % random_pattern(r, depth + 1) for _ in range(2)]
    parts = []
    for _ in range(r.randint(1, 4)):
        parts.append(r.choice(atoms))
        once = len(parts[-1]) == 1 or parts[-1][-1] == "]" or (parts[-1][0] == "\\" and parts[-1] != r"\w*")
        if once or (parts[-1][-1] == ")" and not any(c in parts[-1][3:] for c in "*+{")):      # Python would take for ever
            parts[-1] += r.choice(["", "", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"])
    s = "".join(parts)
    return s if r.random() < 0.7 else s + "|" + random_pattern(r, depth + 1)


class TooLong(Exception):
    pass


def stop(*_):
    raise TooLong


def matched(pattern):
    """A digit for each path: does PEFT take the pattern for it? Python tries one way after another, and some patterns have too many."""
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        return matched_slowly(pattern)
    except TooLong:
        return ""
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def matched_slowly(pattern):
    return "".join("1" if get_pattern_key([pattern], p) == pattern else "0" for p in PATHS)


def patterns():
    r = random.Random(8)
    all_ = list(PATTERNS)
    for _ in range(4000):
        p = random_pattern(r)
        if len(all_) < 400 and len(p) < 60 and p not in all_ and ("1" in matched(p) or r.random() < 0.2):
            all_.append(p)
    found = [{"pattern": p, "matched": matched(p)} for p in all_ if p not in PATHS]
    return [x for x in found if x["matched"]]


def main():
    os.makedirs(FILES, exist_ok=True)
    t = inputs(MODEL, untouched(MODEL))
    base = outputs(untouched(MODEL), t, True, False)["unet"]
    tensors, listing = {k: v for k, v in t.items()}, []
    makers = [(name, made(name, config)) for name, config in CASES]
    makers.append(("bare", bare("bare", LoraConfig(r=4, lora_alpha=16, target_modules=FEW))))
    for name, (path, run) in makers:
        out, exact = run(t)
        tensors["%s/unet" % name] = out
        listing.append({"name": name, "path": os.path.relpath(path, DATA), "f64_rel": float("%.2g" % max_rel(out, exact)),
                        "from_base": round(max_rel(out, base), 3)})
        print(listing[-1], flush=True)
    store("scales.safetensors", tensors)
    write_json("scales.json", {"versions": versions(), "model": MODEL, "cases": listing})
    write_json("patterns.json", {"versions": versions(), "paths": PATHS, "patterns": patterns()})


if __name__ == "__main__":
    main()
