"""Hold a picture that weft drew against diffusers, number by number.

    weft generate MODEL -p "a red circle" --seed 3 --save ours.safetensors
    python compare.py MODEL ours.safetensors -p "a red circle" --seed 3

Takes the options of `weft generate` that change the numbers, adapters and methods included (compose.py does those on
top of diffusers). Compares the start noise, the conditioning, each step's prediction and the final latents, and prints
max|a-b| / max|b| and the l2 ratio of each; weft's are a, diffusers' b. Exit status 1 when the latents differ by more than --tolerance.

--teacher: give both the same road. diffusers' prediction of a step is then computed from the latents that weft's own earlier predictions
lead to, so that each step is judged alone.
--given: use the start and the conditioning of the file, to judge the UNet without the text encoder.
"""
import argparse
import sys

import common
import compose
import lora
import torch
from common import l2_rel, max_rel, pipeline
from make_pictures import scheduler
from safetensors.torch import load_file, save_file


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("ours", help="the file that weft generate --save wrote")
    p.add_argument("-p", "--prompt", default="")
    p.add_argument("-n", "--negative", default="")
    p.add_argument("--no-negative", dest="negative", action="store_const", const=None, help="SDXL: zeros, as diffusers without a negative prompt")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("-s", "--steps", type=int, default=20)
    p.add_argument("-g", "--guidance", type=float, default=7.5)
    p.add_argument("--guidance-rescale", type=float, default=0.0)
    p.add_argument("--sampler", default="ddim", choices=["ddim", "euler", "euler_a", "dpmpp_2m"])
    p.add_argument("--spacing", choices=["leading", "linspace", "trailing"])
    p.add_argument("--karras", action="store_true")
    p.add_argument("--eta", type=float, default=0.0)
    p.add_argument("-a", "--adapter", action="append", default=[], metavar="FILE[:WEIGHT]")
    p.add_argument("--share", action="append", type=float, default=[], help="one for each adapter, in order")
    p.add_argument("--text-weight", action="append", type=float, default=[], help="one for each adapter, in order")
    p.add_argument("--compose", default="merge", choices=["merge", "switch", "composite", "klora"])
    p.add_argument("--text-plan", default="method", choices=["method", "all", "first", "none"])
    p.add_argument("--period", type=int, default=5)
    for flag in ("official-offset", "divide-by-count", "last-without-guidance", "paper-beta", "attention-only", "ignore-alpha", "wrap"):
        p.add_argument("--" + flag, action="store_true")
    p.add_argument("--pattern", default="s_star", choices=["s_star", "s", "custom"])
    p.add_argument("--alpha", type=float, default=1.5)
    p.add_argument("--beta", type=float, default=0.5)
    p.add_argument("--modulus", type=float, default=0.0)
    p.add_argument("--gamma", default="code", choices=["code", "paper", "none"])
    p.add_argument("--granularity", default="call", choices=["call", "step"])
    p.add_argument("--top-k", type=int, default=0)
    p.add_argument("--given", action="store_true")
    p.add_argument("--teacher", action="store_true")
    p.add_argument("--tolerance", type=float, default=1e-3)
    p.add_argument("--save", help="write diffusers' side as safetensors, with the same names")
    return p.parse_args()


def plan_of(o, pipe):
    from make_compose import plan_of as build
    if not o.adapter:
        return None
    entries, ads = {}, []
    for i, a in enumerate(o.adapter):
        path, _, w = a.rpartition(":")
        try:
            weight = float(w)
        except ValueError:
            path, weight = a, 1.0
        if not path:
            path, weight = a, 1.0
        entries[a] = lora.read(path, pipe)
        ads.append(dict({"name": a, "weight": weight}, **({"share": o.share[i]} if i < len(o.share) else {}),
                        **({"text_weight": o.text_weight[i]} if i < len(o.text_weight) else {})))
    order = compose.unet_order(pipe) if o.compose == "klora" else []
    opts = {"switch": {"period": o.period, "official_offset": o.official_offset},
            "composite": {"divide_by_count": o.divide_by_count, "nocfg_last": o.last_without_guidance},
            "klora": {"pattern": o.pattern, "gamma": o.gamma, "granularity": o.granularity, "wrap": o.wrap, "alpha": o.alpha, "beta": o.beta,
                      "modulus": o.modulus, "attention_only": o.attention_only, "ignore_alpha": o.ignore_alpha, "paper_beta": o.paper_beta,
                      "top_k": o.top_k}}
    return build({"method": o.compose, "adapters": ads, "options": opts.get(o.compose, {}), "text": o.text_plan}, entries, order)


class Teacher:
    """A scheduler that walks weft's road: step() takes weft's prediction of that step in place of ours."""

    def __init__(self, inner, theirs):
        self.inner, self.theirs, self.n = inner, theirs, 0

    def __getattr__(self, k):
        return getattr(self.inner, k)

    def step(self, eps, t, x, **kw):
        self.n += 1
        return self.inner.step(self.theirs[self.n - 1], t, x, **kw)


def main():
    o = options()
    ours = load_file(o.ours)
    pipe = pipeline(o.model)
    over = {"timestep_spacing": o.spacing} if o.spacing else {}
    sched = scheduler(pipe.scheduler.config, o.sampler, o.karras, **over)
    gen = torch.Generator("cpu").manual_seed(o.seed)
    start = torch.randn(ours["start"].shape, generator=gen)
    predictions = [ours[k] for k in sorted(ours) if k.startswith("prediction_")]
    if len(predictions) != o.steps:
        sys.exit("the file has %d predictions, --steps says %d" % (len(predictions), o.steps))
    worst = 0.0

    def show(name, a, b):
        if a.shape != b.shape:
            sys.exit("%s: weft has %s, diffusers %s" % (name, tuple(a.shape), tuple(b.shape)))
        print("%-18s max %.2e   l2 %.2e" % (name, max_rel(a, b), l2_rel(a, b)))
        return max_rel(a, b)
    show("start", ours["start"], start)
    given = {k: ours[k] for k in ("text", "negative", "pooled", "negative_pooled") if k in ours} if o.given else None
    if o.teacher:
        sched = Teacher(sched, predictions)
    x, preds, (unc, con) = compose.generate(pipe, plan_of(o, pipe), sched, ours["start"] if o.given else start, o.prompt, o.negative, o.steps, o.guidance,
                                            gen if o.sampler == "euler_a" or o.eta else None, o.guidance_rescale, o.eta, given)
    if "text" in ours:
        show("text", ours["text"], con[0])
    if "pooled" in ours:
        show("pooled", ours["pooled"], con[1])
    if "negative" in ours and o.guidance > 1:
        show("negative", ours["negative"], unc[0])
    if "negative_pooled" in ours and o.guidance > 1:
        show("negative_pooled", ours["negative_pooled"], unc[1])
    for n, p in enumerate(preds):
        show("prediction_%03d" % n, predictions[n], p)
    worst = show("latents", ours["latents"], x)
    if o.save:
        side = {"start": start, "text": con[0], "negative": unc[0], "latents": x}
        if con[1] is not None:
            side.update(pooled=con[1], negative_pooled=unc[1])
        side.update({"prediction_%03d" % n: p for n, p in enumerate(preds)})
        save_file({k: v.contiguous() for k, v in side.items()}, o.save)
    sys.exit(0 if worst <= o.tolerance else 1)


if __name__ == "__main__":
    main()
