"""Switch, Composite, K-LoRA and Merge on top of diffusers: the re-statement that the goldens come from.

Written from the formulas alone. Every method is a coefficient table c[step][branch][layer][adapter]; a layer computes
y = W x + b + sum_i c_i (alpha_i/r_i) B_i A_i x, and the predictions of a step's branches are averaged with weights.

    plan.cell(n, N, branch) -> [coefficient of each adapter], for every layer alike; K-LoRA: plan.layer_cell(n, N, module)
    generate(pipe, plan, ...) -> final latents, each step's guided prediction, the prompts' contexts

K-LoRA indexing: layers are those that it governs, in execution order, l = 1..L; tau = (n L + l) / (N L) by call, n / N by step.
"""
import math

import lora
import torch
from torch.nn import functional as F


class Adapter:
    """weight multiplies the UNet deltas, te_weight the text encoder's, prediction the branch's share in Composite.
    curve: {"share": at is n / N, not n, "points": [[at, value, "hold" | "linear" | "cosine"], ..]}, what the weight in the
    UNet is multiplied with at step n. mask: {"values": (h, w), "text": what text tokens take, "adds": not shared}.
    factor(component, module): what the weight is multiplied with at a layer (blocks.py)."""

    factor = staticmethod(lambda component, module: 1.0)

    def __init__(self, name, entries, weight=1.0, te_weight=None, prediction=1.0, curve=None, mask=None):
        self.curve, self.mask = curve, mask
        self.name, self.entries, self.weight, self.prediction = name, entries, weight, prediction
        self.te_weight = weight if te_weight is None else te_weight

    def unet(self):
        return {m: e for (c, m), e in self.entries.items() if c == "unet"}


def curve_at(curve, n, N):
    if curve is None:
        return 1.0
    points, x = curve["points"], n / N if curve["share"] else n
    before = [p for p in points if p[0] <= x]
    after = [p for p in points if p[0] > x]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (a, v, shape), (b, w, _) = before[-1], after[0]
    u = (x - a) / (b - a)
    return {"hold": v, "linear": v + (w - v) * u, "cosine": v + (w - v) * (1 - math.cos(math.pi * u)) / 2}[shape]


def masks_at(adapters, h, w):
    """Each adapter's mask (h w), averaged by area, divided by the sum where that is above 1; None where it has none."""
    def side(n, to):       # (to, n): how much of each of `to` equal parts lies in each of n
        i, j = torch.arange(to)[:, None] * (n / to), torch.arange(n)[None].double()
        return (torch.minimum(i + n / to, j + 1) - torch.maximum(i, j)).clamp(min=0) * (to / n)
    mean = lambda v: (side(v.shape[0], h) @ v.double() @ side(v.shape[1], w).T).flatten()
    m = [None if a.mask is None else mean(a.mask["values"]) for a in adapters]
    total = sum(x for x in m if x is not None).clamp(min=1)
    return [x if x is None or a.mask.get("adds") else x / total for a, x in zip(adapters, m)]


# ---------------------------------------------------------------- plans

class Merge:
    branches = 1

    def __init__(self, adapters):
        self.adapters, self.te = adapters, [(a, a.te_weight) for a in adapters]

    def cell(self, n, N, branch):
        return [a.weight for a in self.adapters]

    def shares(self):
        return [1.0]


class Switch(Merge):
    """active(n) = floor((n mod k tau) / tau); official_offset: floor(max(n-1, 0) / tau) mod k. The prompt is encoded
    once, with the first adapter active as published, or with all."""

    def __init__(self, adapters, tau=5, official_offset=False, te="first"):
        Merge.__init__(self, adapters)
        self.tau, self.official = tau, official_offset
        if te == "first":
            self.te = [(adapters[0], adapters[0].te_weight)]

    def active(self, n):
        k = len(self.adapters)
        return max(n - 1, 0) // self.tau % k if self.official else n % (k * self.tau) // self.tau

    def cell(self, n, N, branch):
        return [a.weight if i == self.active(n) else 0.0 for i, a in enumerate(self.adapters)]


class Composite(Merge):
    """One branch for each adapter; divisor: sum of the prediction weights, or their count as in the paper.
    nocfg_last: without guidance only the last adapter's prediction counts, as in the published program."""

    def __init__(self, adapters, divisor="sum", nocfg_last=False):
        Merge.__init__(self, adapters)
        self.branches, self.divisor, self.nocfg_last = len(adapters), divisor, nocfg_last

    def cell(self, n, N, branch):
        return [a.weight if i == branch else 0.0 for i, a in enumerate(self.adapters)]

    def shares(self):
        p = [a.prediction for a in self.adapters]
        d = sum(p) if self.divisor == "sum" else len(p)
        return [x / d for x in p]


class KLora(Merge):
    """content, style = adapters. Text encoder parts are left out unless te=True.
    attention_only: govern the attention linears alone, and adapt nothing else.
    pattern "s": S = alpha tau + beta; "s_star": (alpha tau + 0.85 alpha) mod alpha, paper_beta: 1.3 in place of 1.275;
    "custom": (alpha tau + beta) mod modulus, 0 for none."""

    def __init__(self, adapters, order, pattern="s_star", gamma="code", granularity="call", wrap=False, alpha=1.5, beta=0.5,
                 modulus=0.0, attention_only=False, ignore_alpha=False, paper_beta=False, te=False, top_k=0):
        Merge.__init__(self, adapters)
        self.te = self.te if te else []
        self.granularity, self.wrap = granularity, wrap
        self.alpha, self.beta, self.modulus = alpha, beta, modulus
        if pattern == "s_star":
            self.beta, self.modulus = (1.3 if paper_beta else 0.85 * alpha), alpha
        c, s = adapters[0].unet(), adapters[1].unet()
        self.layers = [m for m in order if (m in c or m in s) and (lora.group(m, None) == "attn" or not attention_only)]
        self.index = {m: i for i, m in enumerate(self.layers)}
        self.ignore_alpha = ignore_alpha
        rows = [score(c.get(m), s.get(m), ignore_alpha, top_k) for m in self.layers]
        self.S_c, self.S_s, self.sum_c, self.sum_s, self.K = zip(*rows)
        self.q = [a / b if a > 0 and b > 0 else 0.0 for a, b in zip(self.sum_c, self.sum_s)]
        self.gamma = balance(gamma, self.sum_c, self.sum_s, self.q)
        self.rho = [(sc / (self.gamma * ss)) if ss > 0 else (math.inf if sc > 0 else math.nan) for sc, ss in zip(self.S_c, self.S_s)]

    def tau(self, n, N, l):
        """l from 1. Integers first, so that equal ratios are equal numbers."""
        if self.granularity == "step":
            return n / N
        L = len(self.layers)
        c = n * L + l
        return (c % (N * L) if self.wrap else c) / (N * L)

    def S(self, tau):
        s = self.alpha * tau + self.beta
        return math.fmod(s, self.modulus) if self.modulus > 0 else s

    def choice(self, n, N, i):
        """0 content, 1 style, 2 neither (both scores are zero)."""
        if math.isnan(self.rho[i]):
            return 2
        if self.S_c[i] == 0 or self.S_s[i] == 0:        # a layer of one adapter is that adapter's, whatever the curve
            return 0 if self.S_s[i] == 0 else 1
        return 0 if self.rho[i] > self.S(self.tau(n, N, i + 1)) else 1

    def layer_cell(self, n, N, module):
        if module not in self.index:
            return [0.0, 0.0]
        w = self.choice(n, N, self.index[module])
        return [a.weight if i == w else 0.0 for i, a in enumerate(self.adapters)]


def score(c, s, ignore_alpha=False, K=None):
    """Sums of the K largest |entries| of both deltas, K = r_c r_s (at most the number of entries), and of all |entries|."""
    def dense(e):
        if e is None:
            return None
        d = lora.delta(dict(e, alpha=None, rs=False) if ignore_alpha else e)
        return d.abs().reshape(-1)
    dc, ds = dense(c), dense(s)
    k = K or (c["A"].shape[0] if c else 1) * (s["A"].shape[0] if s else 1)
    k = min([k] + [d.numel() for d in (dc, ds) if d is not None])
    top = lambda d: 0.0 if d is None else torch.topk(d, k).values.sum().item()
    total = lambda d: 0.0 if d is None else d.sum().item()
    return top(dc), top(ds), total(dc), total(ds), k


def balance(kind, sum_c, sum_s, q):
    both = [i for i, x in enumerate(q) if x > 0]
    if kind == "none" or not both:
        return 1.0
    if kind == "paper":
        return sum(sum_c[i] for i in both) / sum(sum_s[i] for i in both)
    qs = [q[i] for i in both]
    mean = sum(qs) / len(qs)
    kept = [x for x in qs if x < 3 * mean]
    return sum(kept) / len(kept)


# ---------------------------------------------------------------- running

def execution_order(unet, *args, **kw):
    """Names of linears and convolutions in the order one evaluation calls them."""
    order, hooks = [], []
    for n, m in unet.named_modules():
        if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)):
            hooks.append(m.register_forward_pre_hook(lambda mod, a, n=n: order.append(n)))
    unet(*args, **kw)
    for h in hooks:
        h.remove()
    assert len(order) == len(set(order))
    return order


def unet_order(pipe):
    """execution_order of a pipeline's UNet, added conditioning or not."""
    c, add = pipe.unet.config, None
    if c.addition_embed_type == "text_time":
        n = c.projection_class_embeddings_input_dim - 6 * c.addition_time_embed_dim
        add = {"text_embeds": torch.zeros(1, n), "time_ids": torch.zeros(1, 6)}
    return execution_order(pipe.unet, torch.zeros(1, c.in_channels, 16, 16), 1, torch.zeros(1, 7, c.cross_attention_dim), added_cond_kwargs=add)


class Bypass:
    """Adds the active deltas' low-rank products to the layers of one net, beside untouched weights."""

    def __init__(self, net, modules):
        """modules: [{module: entry}] one for each adapter."""
        self.coef, self.hooks = (lambda m: []), []
        self.adapters, self.grid = [], None    # of a UNet under masks: whose they are, and (h, w) of the latents
        names = dict(net.named_modules())
        for m in sorted(set().union(*modules) if modules else ()):
            layer = names[m] if m in names else names[m.removeprefix("text_model.")]
            per = [(i, d[m]) for i, d in enumerate(modules) if m in d]
            self.hooks.append(layer.register_forward_hook(lambda mod, a, y, m=m, per=per: self.add(mod, m, per, a[0], y)))

    def add(self, layer, m, per, x, y):
        c = self.coef(m)
        for i, e in per:
            v = c[i] if isinstance(c[i], torch.Tensor) else None    # a coefficient for each column of the delta
            w = lora.scale(e) * (1.0 if v is not None else c[i])
            if w == 0:
                continue
            before, y = y, torch.zeros_like(y)
            A, B = e["A"].to(x.dtype), e["B"].to(x.dtype)
            A = A if v is None else A * v.reshape(A.shape[1:]).to(x.dtype)
            if isinstance(layer, torch.nn.Conv2d):
                A = A.reshape(A.shape[0], *layer.weight.shape[1:])
                B = B.reshape(*B.shape[:2], 1, 1)
                y = y + w * F.conv2d(F.conv2d(x, A, stride=layer.stride, padding=layer.padding), B)
            else:
                y = y + w * F.linear(F.linear(x, A.flatten(1)), B.flatten(1))
            y = before + self.masked(i, y)
        return y

    def masked(self, i, d):
        """The difference d of adapter i under its mask: images (n, c, h, w), pixels (n, h w, c), text (n, 77, c), vectors."""
        if not self.adapters or self.adapters[i].mask is None:
            return d
        if d.dim() == 2 or d.dim() == 3 and d.shape[1] == 77:
            return d * self.adapters[i].mask.get("text", 1.0)
        h, w = self.grid
        if d.dim() == 4:
            return d * masks_at(self.adapters, *d.shape[2:])[i].reshape(d.shape[2:]).to(d.dtype)
        while h * w > d.shape[1]:
            h, w = (h + 1) // 2, (w + 1) // 2
        assert h * w == d.shape[1]
        return d * masks_at(self.adapters, h, w)[i][:, None].to(d.dtype)

    def close(self):
        for h in self.hooks:
            h.remove()


def encode(pipe, text, te):
    """The prompt with the given [(adapter, weight)] active in the text encoders: context, pooled (None but for SDXL)."""
    out, pooled = [], None
    for which in ("", "_2"):
        net = getattr(pipe, "text_encoder" + which, None)
        if net is None:
            continue
        b = Bypass(net, [{m: e for (c, m), e in a.entries.items() if c == "text_encoder" + which} for a, _ in te])
        b.coef = lambda m: [w * a.factor("text_encoder" + which, m) for a, w in te]
        tok = getattr(pipe, "tokenizer" + which)
        ids = tok(text, padding="max_length", max_length=tok.model_max_length, truncation=True, return_tensors="pt").input_ids
        r = net(ids, output_hidden_states=True)
        b.close()
        if hasattr(pipe, "text_encoder_2"):
            out.append(r.hidden_states[-2])
            pooled = r.text_embeds if which else None
        else:
            out.append(r.last_hidden_state)
    return torch.cat(out, -1), pooled


def generate(pipe, plan, scheduler, noise, prompt, negative, steps, guidance, generator=None, rescale=0.0, eta=0.0, given=None):
    """plan None: the base model. Returns latents (1,c,h,w), predictions (N,1,c,h,w), the (context, pooled) of uncond and of cond.
    given: {"text", "negative", "pooled", "negative_pooled"} in place of encoding the prompts. negative None: SDXL's zeros."""
    dt = pipe.unet.dtype
    scheduler.set_timesteps(steps)
    x = (noise * scheduler.init_noise_sigma).to(dt)
    te = plan.te if plan else []
    if given:
        unc, con = (given.get("negative"), given.get("negative_pooled")), (given["text"], given.get("pooled"))
    else:
        con = encode(pipe, prompt, te)
        unc = encode(pipe, negative or "", te)
        if negative is None and pipe.config.get("force_zeros_for_empty_prompt"):
            unc = tuple(torch.zeros_like(v) for v in con)
    h, w = (s * pipe.vae_scale_factor for s in noise.shape[2:])

    def evaluate(pairs, xi, t):
        add = None
        if pairs[0][1] is not None:
            add = {"text_embeds": torch.cat([p for _, p in pairs]).to(dt),
                   "time_ids": torch.tensor([[h, w, 0, 0, h, w]] * len(pairs), dtype=dt)}
        return pipe.unet(torch.cat([xi] * len(pairs)), t, torch.cat([c for c, _ in pairs]).to(dt), added_cond_kwargs=add).sample
    ads = plan.adapters if plan else []
    strip = lambda e: dict(e, alpha=None, rs=False) if getattr(plan, "ignore_alpha", False) else e
    by = Bypass(pipe.unet, [{m: strip(e) for m, e in a.unet().items()} for a in ads])
    by.adapters, by.grid = ads, tuple(noise.shape[2:])
    preds = []
    for n, t in enumerate(scheduler.timesteps):
        xi = scheduler.scale_model_input(x, t).to(dt)
        eu = ec = 0
        for b in range(plan.branches if plan else 1):
            if plan:
                of = (lambda m: plan.layer_cell(n, steps, m)) if hasattr(plan, "layer_cell") else (lambda m: plan.cell(n, steps, b))
                by.coef = lambda m, of=of: [c * curve_at(a.curve, n, steps) * a.factor("unet", m) for a, c in zip(ads, of(m))]
            share = plan.shares()[b] if plan else 1.0
            if guidance <= 1 and getattr(plan, "nocfg_last", False):
                share = float(b == plan.branches - 1)
            if guidance > 1:
                e = evaluate([unc, con], xi, t)
                eu, ec = eu + share * e[:1], ec + share * e[1:]
            else:
                ec = ec + share * evaluate([con], xi, t)
        eps = eu + guidance * (ec - eu) if guidance > 1 else ec
        if rescale and guidance > 1:
            eps = rescale * eps * (ec.std() / eps.std()) + (1 - rescale) * eps
        preds.append(eps)
        kw = {"generator": generator} if generator is not None else {}
        if eta:
            kw["eta"] = eta
        x = scheduler.step(eps, t, x, **kw).prev_sample.to(dt)
    by.close()
    return x, torch.stack(preds), (unc, con)
