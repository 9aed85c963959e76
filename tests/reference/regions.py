"""Blend and region prompts on top of diffusers: predictions of single calls, written from the formulas alone.

    predict(pipe, adapters, method, x, t, call, calls, text, regions, guidance, images) -> the guided prediction

method: "merge", "composite" or ("blend", start). text: [(context, pooled) of the negative, of the prompt], or with "blend"
a list of such pairs, one for each branch. regions: Region each.
"""
import compose
import torch
from compose import Bypass, curve_at, masks_at
from torch.nn import functional as F


class Region:
    """mask: values (h, w), or None for that of the adapter, whose number it is. text, negative: contexts; negative None: that
    of the whole image. isolated: its pixels and those of other isolated regions do not see each other."""

    def __init__(self, text, negative=None, mask=None, adapter=None, isolated=False):
        self.text, self.negative, self.values, self.adapter, self.isolated = text, negative, mask, adapter, isolated


class Image:
    """An image prompt: pairs {name of an attn2: (matrix of keys, of values)}, rows of the negative and of the prompt, weight,
    factors {beginning of a name: factor} (None: 1 everywhere; else 0 where none fits), mask values or None."""

    def __init__(self, pairs, negative, rows, weight=1.0, factors=None, mask=None):
        self.pairs, self.negative, self.rows, self.weight, self.factors, self.values = pairs, negative, rows, weight, factors, mask

    def factor(self, name):
        fit = [f for start, f in (self.factors or {}).items() if name.startswith(start)]
        return self.weight * (fit[-1] if fit else 0.0 if self.factors else 1.0)


class Place:
    def __init__(self, values):
        self.mask = {"values": values}


def shares(regions, adapters, h, w):
    """(regions, h w): each region's share of each pixel."""
    return torch.stack(masks_at([Place(r.values if r.adapter is None else adapters[r.adapter].mask["values"]) for r in regions], h, w))


class Attention:
    """q k^T / sqrt d by hand: cross-attention to each text, self-attention where other regions are hidden."""

    def __init__(self, state):
        self.state = state

    def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None, temb=None, **kw):
        s, q = self.state, attn.to_q(x)
        h, w = s.grid
        while h * w > x.shape[1]:
            h, w = (h + 1) // 2, (w + 1) // 2
        m = shares(s.regions, s.adapters, h, w) if s.regions else torch.zeros(0, h * w)
        if encoder_hidden_states is None:
            o = self.attend(attn, q, attn.to_k(x), attn.to_v(x), hidden(s.regions, m))
        else:
            s.reading = -1
            o = (1 - m.sum(0)).clamp(min=0)[:, None].to(q.dtype) * self.attend(attn, q, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
            for i, r in enumerate(s.regions):
                s.reading, c = i, s.texts[i]
                o = o + m[i][:, None].to(q.dtype) * self.attend(attn, q, attn.to_k(c), attn.to_v(c))
            s.reading = None
            for im in s.images:
                name, c = s.names[id(attn)], torch.cat([im.rows if half else im.negative for half in s.halves]).to(q.dtype)
                share = torch.ones(h * w) if im.values is None else masks_at([Place(im.values)], h, w)[0].reshape(-1)
                own = self.attend(attn, q, F.linear(c, im.pairs[name][0].to(q.dtype)), F.linear(c, im.pairs[name][1].to(q.dtype)))
                o = o + im.factor(name) * share[:, None].to(q.dtype) * own
        return attn.to_out[1](attn.to_out[0](o))

    def attend(self, attn, q, k, v, bias=None):
        split = lambda t: t.reshape(t.shape[0], t.shape[1], attn.heads, -1).transpose(1, 2)
        q, k, v = split(q), split(k), split(v)
        a = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if bias is not None:
            a = a + bias.to(a.dtype)
        return (a.softmax(-1) @ v).transpose(1, 2).flatten(2)


def hidden(regions, m):
    """-inf where two pixels are of different isolated regions: each has more than half of the one and of the other. Half is
    shared with another region, whatever rounding says."""
    if not any(r.isolated for r in regions):
        return None
    of = [m[i] > 0.501 for i, r in enumerate(regions) if r.isolated]
    bias = torch.zeros(m.shape[1], m.shape[1])
    for i, a in enumerate(of):
        for j, b in enumerate(of):
            if i != j:
                bias[a[:, None] & b[None]] = -torch.inf
    return bias


class State:
    reading = None


def predict(pipe, adapters, method, x, t, call, calls, text, regions=(), guidance=1.0, images=()):
    unet, dt = pipe.unet, pipe.unet.dtype
    s = State()
    s.regions, s.adapters, s.grid = list(regions), adapters, tuple(x.shape[2:])
    s.images, s.names = list(images), {id(m): n for n, m in unet.named_modules()}
    blend, k = isinstance(method, tuple), len(adapters)
    masked = [i for i, a in enumerate(adapters) if a.mask is not None]
    if blend:
        branches = [None] + masked if call >= method[1] else [None]
        acts = lambda b, i: adapters[i].mask is None or i == b
    elif method == "composite":
        branches, acts = list(range(k)), lambda b, i: i == b
    else:
        branches, acts = [None], lambda b, i: True
    owned = {r.adapter for r in s.regions if r.adapter is not None}
    reads = lambda i: s.reading is None or i not in owned or (s.reading >= 0 and s.regions[s.reading].adapter == i)

    before = dict(unet.attn_processors)
    unet.set_attn_processor(Attention(s))
    by = Bypass(unet, [a.unet() for a in adapters])
    by.adapters, by.grid = [] if blend else adapters, s.grid
    s.halves = halves = [0, 1] if guidance > 1 else [1]
    h, w = (v * pipe.vae_scale_factor for v in x.shape[2:])
    preds = []
    for n, b in enumerate(branches):
        by.coef = lambda m: [a.weight * curve_at(a.curve, call, calls) * acts(b, i) * reads(i) for i, a in enumerate(adapters)]
        pair = text[n] if isinstance(text, list) else text
        s.texts = [torch.cat([(r.text if half else pair[0][0] if r.negative is None else r.negative) for half in halves]).to(dt) for r in s.regions]
        add = None
        if pair[1][1] is not None:
            add = {"text_embeds": torch.cat([pair[i][1] for i in halves]).to(dt), "time_ids": torch.tensor([[h, w, 0, 0, h, w]] * len(halves), dtype=dt)}
        preds.append(unet(torch.cat([x] * len(halves)).to(dt), t, torch.cat([pair[i][0] for i in halves]).to(dt), added_cond_kwargs=add).sample)
    by.close()
    unet.set_attn_processor(before)
    if blend and len(branches) > 1:
        m = [v.reshape(x.shape[2:]).to(dt) for v in masks_at([adapters[i] for i in masked], *x.shape[2:])]
        e = (1 - sum(m)).clamp(min=0) * preds[0] + sum(v * p for v, p in zip(m, preds[1:]))
    else:
        e = sum(preds) / len(preds)
    return e if len(halves) == 1 else e[:1] + guidance * (e[1:] - e[:1])
