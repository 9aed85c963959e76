"""StyleAligned on top of diffusers: attention and norms as the paper and its program have them, from the formulas alone.

    predict(pipe, adapters, method, x, t, text, options, regions, guidance) -> the guided predictions (n, c, h, w)

x: (n, c, h, w), of which x[0] is the reference. text: [(contexts, pooled) of the negative, of the prompts], n rows each.
method: "merge" or "composite". options: the program's names; what is absent is as it has it.
"""
import compose
import regions
import torch
from compose import Bypass
from torch.nn import functional as F

PRESET = {"share_group_norm": True, "share_layer_norm": True, "share_attention": True, "adain_queries": True, "adain_keys": True, "adain_values": False,
          "full_attention_share": False, "shared_score_scale": 1.0, "shared_score_shift": 0.0, "only_self_level": 0.0}


def halves(v, n):
    """Batches of n samples: (k, n, ...)."""
    return v.reshape(-1, n, *v.shape[1:])


def beside(v, n):
    """Each sample's reference in its place."""
    return halves(v, n)[:, :1].expand(-1, n, *v.shape[1:]).reshape(v.shape)


def adain(v, n):
    """v (samples, heads, tokens, d): over the tokens."""
    mean, std = v.mean(2, keepdim=True), (v.var(2, keepdim=True) + 1e-5).sqrt()
    return (v - mean) / std * beside(std, n) + beside(mean, n)


def alone(level, count):
    """Which of `count` self-attentions stay as they are."""
    if level in (0, 1):
        return [bool(level)] * count
    few = int((1 - level if level > 0.5 else level) * count)
    return [(i % (count // few) == 0) != (level > 0.5) for i in range(count)]


class Attention(regions.Attention):
    def __init__(self, state, own):
        super().__init__(state)
        self.own = own

    def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None, temb=None, **kw):
        s, o = self.state, self.state.options
        if encoder_hidden_states is not None or self.own:
            return super().__call__(attn, x, encoder_hidden_states, attention_mask, temb, **kw)
        if o["full_attention_share"]:
            k = x.shape[0] // s.n
            y = x.reshape(k, s.n * x.shape[1], x.shape[2])
            y = self.attend(attn, attn.to_q(y), attn.to_k(y), attn.to_v(y)).reshape(x.shape)
            return attn.to_out[1](attn.to_out[0](y))
        h, w = s.grid
        while h * w > x.shape[1]:
            h, w = (h + 1) // 2, (w + 1) // 2
        split = lambda t: t.reshape(t.shape[0], t.shape[1], attn.heads, -1).transpose(1, 2)
        q, k, v = split(attn.to_q(x)), split(attn.to_k(x)), split(attn.to_v(x))
        q = adain(q, s.n) if o["adain_queries"] else q
        k = adain(k, s.n) if o["adain_keys"] else k
        v = adain(v, s.n) if o["adain_values"] else v
        hide = regions.hidden(s.regions, regions.shares(s.regions, s.adapters, h, w)) if s.regions else None
        hide = torch.zeros(1, 1) if hide is None else hide
        a = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + hide.to(q.dtype)
        if o["share_attention"]:
            scale = torch.tensor([1.0] + [o["shared_score_scale"]] * (s.n - 1), dtype=q.dtype).repeat(q.shape[0] // s.n)[:, None, None, None]
            b = q @ (beside(k, s.n) * scale).transpose(-1, -2) * q.shape[-1] ** -0.5 + o["shared_score_shift"] + hide.to(q.dtype)
            a, v = torch.cat([a, b], -1), torch.cat([v, beside(v, s.n)], 2)
        y = (a.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](y))


class Norms:
    """Norms that see the reference's rows under the sample's own."""

    def __init__(self, unet, state):
        o, self.kept = state.options, []
        for m in unet.modules():
            if isinstance(m, torch.nn.GroupNorm) and o["share_group_norm"] or isinstance(m, torch.nn.LayerNorm) and o["share_layer_norm"]:
                self.kept.append(m)
                m.forward = lambda x, f=m.forward: f(torch.cat([x, beside(x, state.n)], -2))[..., : x.shape[-2], :]

    def close(self):
        for m in self.kept:
            del m.forward


def predict(pipe, adapters, method, x, t, text, options, regions=(), guidance=1.0):
    unet, dt = pipe.unet, pipe.unet.dtype
    s = type("State", (), {"reading": None})()
    s.n, s.options, s.regions, s.adapters, s.grid = x.shape[0], dict(PRESET, **options), list(regions), adapters, tuple(x.shape[2:])
    owned = {r.adapter for r in s.regions if r.adapter is not None}
    reads = lambda i: s.reading is None or i not in owned or (s.reading >= 0 and s.regions[s.reading].adapter == i)
    before, names = dict(unet.attn_processors), list(unet.attn_processors)
    selves = [n for n in names if "attn1" in n]
    own = alone(s.options["only_self_level"], len(selves))
    unet.set_attn_processor({n: Attention(s, n not in selves or own[selves.index(n)]) for n in names})
    by = Bypass(unet, [a.unet() for a in adapters])
    by.adapters, by.grid = adapters, s.grid
    norms = Norms(unet, s)
    parts = [0, 1] if guidance > 1 else [1]
    h, w = (v * pipe.vae_scale_factor for v in x.shape[2:])
    s.texts = [torch.cat([(r.text if p else text[0][0][:1] if r.negative is None else r.negative).expand(s.n, -1, -1) for p in parts]).to(dt) for r in s.regions]
    add = None
    if text[1][1] is not None:
        add = {"text_embeds": torch.cat([text[p][1] for p in parts]).to(dt),
               "time_ids": torch.tensor([[h, w, 0, 0, h, w]] * (s.n * len(parts)), dtype=dt)}
    preds = []
    for b in range(len(adapters)) if method == "composite" else [None]:
        by.coef = lambda m: [a.weight * (b in (None, i)) * reads(i) for i, a in enumerate(adapters)]
        preds.append(unet(torch.cat([x] * len(parts)).to(dt), t, torch.cat([text[p][0] for p in parts]).to(dt), added_cond_kwargs=add).sample)
    norms.close()
    by.close()
    unet.set_attn_processor(before)
    e = sum(preds) / len(preds)
    return e if len(parts) == 1 else e[: s.n] + guidance * (e[s.n:] - e[: s.n])
