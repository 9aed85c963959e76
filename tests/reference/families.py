"""The adapter families as formulas in f64, apart from any library: what a module's tensors add to a weight.

    entries[(component, module)] = {part: tensor, ...}      parts under the names of PARTS, `conf` a dict beside them

`change` is written from the published definitions alone. make_families.py holds it against PEFT, LyCORIS and diffusers, which
made most of the files; where they part, the file says in families.json which of them the formula follows, and why.
"""
import math
import re

import lora
import torch

# ending of a key -> part. Longest first; `.weight` and `.bias` alone are whole tensors that replace the base's
PARTS = {
    "lora_down.weight": "down", "lora_up.weight": "up", "lora_mid.weight": "mid", "lora_A.weight": "down", "lora_B.weight": "up",
    "lora_B.bias": "up_bias", "lora_up.bias": "up_bias", "lora_A": "down", "lora_B": "up", "lora_E": "E", "lora_AB.weight": "mixer",
    "lora.down.weight": "down", "lora.up.weight": "up", "lora.downB.weight": "mixer", "lora.weight": "diff",
    "lora_linear_layer.down.weight": "down", "lora_linear_layer.up.weight": "up",
    "alpha": "alpha", "dora_scale": "magnitude", "lora_magnitude_vector.weight": "magnitude", "lora_magnitude_vector": "magnitude",
    "hada_w1_a": "hada_w1_a", "hada_w1_b": "hada_w1_b", "hada_w2_a": "hada_w2_a", "hada_w2_b": "hada_w2_b",
    "hada_t1": "hada_t1", "hada_t2": "hada_t2",
    "lokr_w1": "lokr_w1", "lokr_w1_a": "lokr_w1_a", "lokr_w1_b": "lokr_w1_b", "lokr_w2": "lokr_w2", "lokr_w2_a": "lokr_w2_a",
    "lokr_w2_b": "lokr_w2_b", "lokr_t2": "lokr_t2",
    "oft_blocks": "oft_blocks", "rescale": "rescale", "oft_R.weight": "oft_R", "boft_R": "boft_R", "boft_s": "boft_s",
    "c3a_kernel": "c3a_kernel", "miss_block": "miss_block", "bone_block": "miss_block",
    "delora_A": "delora_A", "delora_B": "delora_B", "delora_lambda": "delora_lambda", "delora_w_norm": "delora_w_norm",
    "gralora_A": "gralora_A", "gralora_B": "gralora_B", "gralora_A_general.weight": "gralora_down",
    "gralora_B_general.weight": "gralora_up",
    "randlora_lambda": "randlora_lambda", "randlora_gamma": "randlora_gamma", "randlora_A": "randlora_A", "randlora_B": "randlora_B",
    "on_input": "on_input", "ia3_l": "ia3_l",
    "a1.weight": "a1", "a2.weight": "a2", "b1.weight": "b1", "b2.weight": "b2", "bm.weight": "bm",
    "vera_lambda_b": "vera_b", "vera_lambda_d": "vera_d", "fourierft_spectrum": "spectrum", "hra_u": "hra_u",
    "shira_weight": "shira_weight", "shira_indices": "shira_indices", "vblora_logits_A": "vb_logits_A", "vblora_logits_B": "vb_logits_B",
    "vblora_logits_A_topk_indices": "vb_indices_A", "vblora_logits_B_topk_indices": "vb_indices_B",
    "vblora_logits_A_topk_weights": "vb_weights_A", "vblora_logits_B_topk_weights": "vb_weights_B",
    "ln_tuning_layers.weight": "replace", "ln_tuning_layers.bias": "replace_b",
    "diff": "diff", "diff_b": "diff_b", "w_norm": "diff", "b_norm": "diff_b", "weight": "replace", "bias": "replace_b",
}

# tensors of a whole PEFT adapter, behind base_model. -> part of every module that has the other
SHARED = {"vera_A": ("vera_A", "vera_b"), "vera_B": ("vera_B", "vera_b"), "vblora_vector_bank": ("vb_bank", "vb_%s_A"),
          "randlora_A": ("randlora_A", "randlora_lambda"), "randlora_B": ("randlora_B", "randlora_lambda")}


# ---------------------------------------------------------------- formulas

def flat(t):
    return t.reshape(t.shape[0], -1)


def tucker(t, wa, wb):
    """F[p, q, ...] = sum_ij t[i, j, ...] wa[i, p] wb[j, q]"""
    return torch.einsum("ij...,ip,jq->pq...", t, wa, wb)


def cayley(q):
    eye = torch.eye(q.shape[-1], dtype=q.dtype)
    return (eye + q) @ torch.linalg.inv(eye - q)


def capped(q, limit):
    n = q.norm()
    return q * (limit / n) if limit > 0 and n > limit else q


def skew(packed):
    """PEFT's OFT: the entries above the diagonal, row by row."""
    n, e = packed.shape
    b = round((1 + math.sqrt(1 + 8 * e)) / 2)
    q = torch.zeros(n, b, b, dtype=packed.dtype)
    i, j = torch.triu_indices(b, b, 1)
    q[:, i, j] = packed
    return q - q.transpose(1, 2)


def neumann(q, terms):
    """I + 2 Q + 2 Q^2 ... with the last power once: what is left of (I + Q) (I - Q)^-1 after `terms` terms."""
    r, p = torch.eye(q.shape[-1], dtype=q.dtype).expand_as(q).clone(), q
    for k in range(1, terms):
        r = r + (1 if k == terms - 1 and terms > 2 else 2) * p
        p = p @ q
    return r


def initial(kind, w, r, s):
    """What PiSSA and OLoRA took out of a weight before training."""
    if kind == "pissa":
        u, sigma, v = torch.linalg.svd(w, full_matrices=False)
        return u[:, :r] * sigma[:r] @ v[:r]
    q, t = torch.linalg.qr(w)
    return s * q[:, :r] @ t[:r]


def low_rank(p, conf):
    a, b = p["down"], p["up"]
    r = a.shape[0]
    alpha = float(p["alpha"]) if "alpha" in p else conf.get("alpha", r)
    s = alpha / (math.sqrt(r) if conf.get("rslora") else r)
    if "mid" in p:
        return s * tucker(p["mid"], flat(b).T, flat(a)), s
    if "mixer" in p:
        return s * flat(b) @ p["mixer"] @ flat(a), s
    if "E" in p:
        s = alpha / (conf["init_r"] + 1e-5)
        return s * flat(b) @ (p["E"] * flat(a)), s
    return s * flat(b) @ flat(a), s


def hadamard(p, conf):
    w = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    r = p["hada_w1_b"].shape[0]
    s = (float(p["alpha"]) if "alpha" in p else conf.get("alpha", r)) / r
    if "hada_t1" in p:
        return s * tucker(p["hada_t1"], p[w[0]], p[w[1]]) * tucker(p["hada_t2"], p[w[2]], p[w[3]])
    return s * (p[w[0]] @ p[w[1]]) * (p[w[2]] @ p[w[3]])


def kronecker(p, conf, shape):
    k = shape[2:]
    w1 = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
    if "lokr_w2" in p:
        w2 = p["lokr_w2"]
    elif "lokr_t2" in p:
        w2 = tucker(p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"])
    else:
        w2 = p["lokr_w2_a"] @ flat(p["lokr_w2_b"])
    r = p["lokr_w1_b"].shape[0] if "lokr_w1_b" in p else p["lokr_w2_b"].shape[0] if "lokr_w2_b" in p else None
    if r is None:       # both full: no rank to see. LyCORIS: no scale; PEFT: the configuration's
        s = conf["alpha"] / conf["r"] if "r" in conf else 1.0
    else:
        s = (float(p["alpha"]) if "alpha" in p else conf.get("alpha", r)) / r
    w2 = w2.reshape((w2.shape[0], shape[1] // w1.shape[1]) + tuple(k))
    return s * torch.kron(w1.reshape(w1.shape + (1,) * len(k)), w2)


def rotate_rows(r, w):
    """Blocks of b rows of W, each R^T times them."""
    n, b, _ = r.shape
    return torch.einsum("kba,kb...->ka...", r, w.reshape(n, b, -1)).reshape(w.shape)


def rotate_columns(r, w):
    """W with its columns (input, ky, kx) in blocks of b, each times R^T."""
    n, b, _ = r.shape
    return torch.einsum("onc,nkc->onk", flat(w).reshape(w.shape[0], n, b), r).reshape(w.shape)


def butterfly(p, w):
    """LyCORIS: stage i mixes rows that lie b 2^(i-1) apart."""
    m, n, b, _ = p["oft_blocks"].shape
    q = p["oft_blocks"] - p["oft_blocks"].transpose(-1, -2)
    r = cayley(capped(q, float(p.get("alpha", 0)) * w.shape[0]))
    x = flat(w)
    for i in range(m):
        k = 2 ** i * b // 2
        y = x.reshape(-1, 2, k, x.shape[1]).transpose(1, 2).reshape(n, b, -1)
        y = r[i] @ y
        x = y.reshape(-1, k, 2, x.shape[1]).transpose(1, 2).reshape(x.shape)
    return x.reshape(w.shape)


def peft_butterfly(p, w):
    """PEFT: (I - S) (I + S)^-1 with S half the difference; stage i on chunks of b / 2, the even ones first."""
    m, n, b, _ = p["boft_R"].shape
    s = 0.5 * (p["boft_R"] - p["boft_R"].transpose(-1, -2))
    r, size = cayley(-s), n * b
    whole = torch.eye(size, dtype=w.dtype)
    for i in range(m):
        stage, perm = torch.block_diag(*r[i]), torch.arange(size)
        if m > 1:
            part, half = 2 ** i * b, b // 2
            chunks = torch.arange(part).reshape(-1, half)
            order = torch.cat([chunks[0::2], chunks[1::2]]).reshape(-1)
            perm = torch.cat([order + at for at in range(0, size, part)])
        P = torch.eye(size, dtype=w.dtype)[perm]
        whole = P @ stage @ P.T @ whole
    return (flat(w) @ whole.T * p["boft_s"].reshape(-1, 1)).reshape(w.shape)


def circulants(k, n_in):
    """Row t of a block has its kernel moved t places to the right, around the end."""
    m, n, b = k.shape
    place = (torch.arange(b)[None, :] - torch.arange(b)[:, None]) % b
    return k[:, :, place].permute(0, 2, 1, 3).reshape(m * b, n * b) / n_in


def shards(t, w, mini):
    """MiSS: one block of r rows added along the inputs, or each r x r block of W times that of its rows, and it besides."""
    o, i = w.shape
    if t.ndim == 3:
        r = t.shape[-1]
        d = torch.zeros_like(w)
        for a in range(0, o, r):
            for c in range(0, i, r):
                d[a:a + r, c:c + r] = w[a:a + r, c:c + r] @ t[a // r] + t[a // r]
        return d
    assert t.shape[1] == (mini or o)
    return t[torch.arange(i) % t.shape[0]][:, torch.arange(o) % t.shape[1]].T


def decoupled(p, w):
    a, b = p["delora_A"], p["delora_B"]
    norms = p["delora_w_norm"] if "delora_w_norm" in p else w.norm(dim=0)
    a = a / a.norm(dim=1, keepdim=True).clamp(min=1e-4)
    b = b / b.norm(dim=0, keepdim=True).clamp(min=1e-4)
    return p["delora_lambda"] / a.shape[0] * (b @ a) * norms


def granular(p, conf):
    """GraLoRA: block (j, n) of N x N has rank r / N: columns j of A[n], rows n of B[j]."""
    a, b = p["gralora_A"], p["gralora_B"]
    n, i, r = a.shape
    o, s = b.shape[2], r // n
    d = torch.zeros(n * o, n * i, dtype=a.dtype)
    for j in range(n):
        for k in range(n):
            d[j * o:(j + 1) * o, k * i:(k + 1) * i] = (a[k][:, j * s:(j + 1) * s] @ b[j][k * s:(k + 1) * s]).T
    h = 0
    if "gralora_down" in p:
        d, h = d + p["gralora_up"] @ p["gralora_down"], p["gralora_down"].shape[0]
    return conf["alpha"] / (r + h) * d


def full_rank(p, w, conf):
    """RandLoRA: the rows of one basis scaled one by one, counted by rank and base; the other's columns by base and rank."""
    lam, gam = p["randlora_lambda"], p["randlora_gamma"]
    (r, n), short = lam.shape, gam.shape[1]
    assert short == min(w.shape) and n == -(-short // r)
    rows = torch.stack([lam[i // n, i % n] * p["randlora_A"][i // n, 0, :short] * gam[i % n] for i in range(r * n)])
    columns = torch.stack([p["randlora_B"][:max(w.shape), i // r, i % r] for i in range(r * n)], 1)
    d = conf["alpha"] / r * columns @ rows
    return d if w.shape[1] <= w.shape[0] else d.T


def frequencies(p, conf, shape):
    """FourierFT: the spectrum at the first places of torch's random order."""
    g = torch.Generator("cpu").manual_seed(conf["seed"])
    at = torch.randperm(shape[0] * shape[1], generator=g)[:len(p["spectrum"])]
    s = torch.zeros(shape[0] * shape[1], dtype=torch.float64)
    s[at] = p["spectrum"]
    return conf["scaling"] * torch.fft.ifft2(s.reshape(shape)).real


def reflections(u, orthogonal):
    """I - 2 u u^T of each column in turn; of orthogonal ones that is I less twice the projector on their span."""
    eye = torch.eye(u.shape[0], dtype=u.dtype)
    if orthogonal:
        q, _ = torch.linalg.qr(u)
        return eye - 2 * q @ q.T
    r = eye
    for x in u.T:
        x = x / x.norm()
        r = r @ (eye - 2 * torch.outer(x, x))
    return r


def from_bank(p, side, topk):
    """VB-LoRA: each piece of a factor a mean of vectors, (.., .., length)."""
    if "vb_logits_" + side in p:
        best = p["vb_logits_" + side].sort(-1, descending=True)
        at, w = best.indices[..., :topk], torch.softmax(best.values[..., :topk], -1)
    else:
        at, w = p["vb_indices_" + side].long(), p["vb_weights_" + side]
        w = torch.cat([w, 1 - w.sum(-1, keepdim=True)], -1)
    return torch.einsum("ijk,ijkl->ijl", w, p["vb_bank"][at])


def bank_product(p, conf):
    a, b = from_bank(p, "A", conf["topk"]), from_bank(p, "B", conf["topk"])
    return torch.einsum("orl,ri->oli", b, a.reshape(a.shape[0], -1)).reshape(b.shape[0] * b.shape[2], -1)


def projections(seed, r, layers):
    """VeRA's A and B where the file has none: of torch's generator, as large as the largest layer."""
    g = torch.Generator("cpu").manual_seed(seed)
    most_out, most_in = (max(x.weight.shape[i] for x in layers) for i in (0, 1))
    draw = lambda rows, n: (2 * torch.rand(rows, n, generator=g).double() - 1) * math.sqrt(6 / n)
    return draw(r, most_in).float(), draw(most_out, r).float()


def change(p, w, b, conf, inside=1.0):
    """(W' - W, b' - b or None) at strength 1, everything f64."""
    db = p["diff_b"] if "diff_b" in p else None
    if "down" in p:
        d, s = low_rank(p, conf)
        if "up_bias" in p:
            db = s * p["up_bias"]
        if "initial" in conf:
            d = d - initial(conf["initial"], w, p["down"].shape[0], s)
    elif "hada_w1_a" in p:
        d = hadamard(p, conf)
    elif "lokr_w1" in p or "lokr_w1_a" in p:
        d = kronecker(p, conf, w.shape)
    elif "a1" in p:
        r = p["a2"].shape[0]
        s = (float(p["alpha"]) if "alpha" in p else r) / r
        if conf.get("old"):     # LyCORIS before 2: a1 and a2, b1 and b2 the other way round
            r = p["a1"].shape[0]
            s = (float(p["alpha"]) if "alpha" in p else r) / r
            wa = torch.einsum("oi...,ij->oj...", w, flat(p["a2"]) @ flat(p["a1"]))
            d = s * (wa + (flat(p["b2"]) @ flat(p["b1"])).reshape(w.shape))
        else:
            wa = torch.einsum("oi...,ij->oj...", w, flat(p["a1"]) @ flat(p["a2"]))
            wb = tucker(p["bm"], flat(p["b1"]).T, flat(p["b2"])) if "bm" in p else flat(p["b1"]) @ flat(p["b2"])
            d = s * (wa + wb.reshape(w.shape))
    elif "oft_blocks" in p:
        if p["oft_blocks"].ndim == 4:
            n = butterfly(p, w)
        else:
            q = p["oft_blocks"] - p["oft_blocks"].transpose(-1, -2)
            n = rotate_rows(cayley(capped(q, float(p.get("alpha", 0)) * w.shape[0])), w)
        if "rescale" in p:
            n = n * p["rescale"].reshape((-1,) + (1,) * (w.ndim - 1))
        d = n - w
    elif "oft_R" in p:
        q = skew(p["oft_R"])
        if conf.get("coft"):
            limit = conf["eps"] / math.sqrt(q.shape[0])
            q = torch.stack([capped(x, limit) for x in q])
        r = neumann(q, conf["terms"]) if conf["neumann"] else cayley(-q)
        d = rotate_columns(r.expand(flat(w).shape[1] // r.shape[1], -1, -1), w) - w
    elif "boft_R" in p:
        d = peft_butterfly(p, w) - w
    elif "on_input" in p:
        k = p["replace"].reshape(-1)
        d = w * (k.reshape((1, -1) + (1,) * (w.ndim - 2)) if int(p["on_input"]) else k.reshape((-1,) + (1,) * (w.ndim - 1)))
    elif "ia3_l" in p:
        k = p["ia3_l"].reshape(-1) - 1
        d = w * (k.reshape((1, -1) + (1,) * (w.ndim - 2)) if conf["feedforward"] else k.reshape((-1,) + (1,) * (w.ndim - 1)))
        if b is not None and not conf["feedforward"]:
            db = b * k
    elif "vera_b" in p:
        o, i = w.shape
        d = (p["vera_b"][:, None] * p["vera_B"][:o]) @ (p["vera_d"][:, None] * p["vera_A"][:, :i])
    elif "spectrum" in p:
        d = frequencies(p, conf, w.shape)
    elif "hra_u" in p:
        d = (flat(w) @ reflections(p["hra_u"], conf["apply_GS"])).reshape(w.shape) - w
    elif "shira_weight" in p:
        at = p["shira_indices"].long()
        d = torch.zeros_like(w).index_put((at[0], at[1]), p["shira_weight"], accumulate=True)
    elif "vb_bank" in p:
        d = bank_product(p, conf)
    elif "c3a_kernel" in p:
        d = circulants(p["c3a_kernel"], w.shape[1])
    elif "miss_block" in p:
        d = shards(p["miss_block"], w, conf.get("mini"))
    elif "delora_A" in p:
        d = decoupled(p, w)
    elif "gralora_A" in p:
        d = granular(p, conf)
    elif "randlora_lambda" in p:
        d = full_rank(p, w, conf)
    elif "u" in p:
        d = p["u"] @ p["v"]
    elif "diff" in p:
        d = p["diff"]
    elif "replace" in p:
        d = p["replace"].reshape(w.shape) - w
    else:
        d = torch.zeros_like(w)
    d = d.reshape(w.shape)
    if "replace_b" in p:
        db = p["replace_b"] - b
    if "magnitude" in p:
        g, v = p["magnitude"], w + inside * d
        columns = conf.get("columns", g.ndim > 1 and g.shape[0] == 1 and g.shape[1] > 1)
        axis = 1 if columns else 0
        norm = v.transpose(0, axis).reshape(v.shape[axis], -1).norm(dim=1)
        side = [1] * w.ndim
        side[axis] = -1
        d = v * (g.reshape(-1) / norm).reshape(side) - w
    return d, db


class applied:
    """with applied(pipe, (entries, weight, peft_dora), ...): the deltas of all files, each taken of the base, added in f64."""

    def __init__(self, pipe, *files):
        self.pipe, self.files = pipe, files

    def __enter__(self):
        self.keep = {}
        for entries, weight, peft_dora in self.files:
            for (c, m), e in entries.items():
                layer = lora.layer_of(self.pipe, c, m)
                w, b = layer.weight, getattr(layer, "bias", None)
                assert w.dtype == torch.float64
                w0, b0 = self.keep.setdefault((c, m), (w.data.clone(), None if b is None else b.data.clone()))
                p = {k: v.double() for k, v in e.items() if k != "conf"}
                rule = peft_dora and "magnitude" in p
                dw, db = change(p, w0, b0, e["conf"], weight if rule else 1.0)
                w.data += dw * (1.0 if rule else weight)
                if db is not None:
                    if b is None:
                        raise ValueError("%s has no bias" % m)
                    b.data += db * weight
        return self

    def __exit__(self, *a):
        for (c, m), (w0, b0) in self.keep.items():
            layer = lora.layer_of(self.pipe, c, m)
            layer.weight.data.copy_(w0)
            if b0 is not None:
                layer.bias.data.copy_(b0)


# ---------------------------------------------------------------- reading

def module_table(pipe):
    """underscore name -> (component, module), every prefix and spelling, norms too."""
    out = {}
    cfg = pipe.unet.config
    up = ["CrossAttn" in t for t in cfg.up_block_types]
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    for n, m in pipe.unet.named_modules():
        if isinstance(m, kinds):
            for spelled in (n, lora.sgm_name(n, cfg.layers_per_block, up)):
                for prefix in ("lora_unet_", "lycoris_", "oft_unet_", "lora_unet."):
                    out[prefix + spelled.replace(".", "_")] = ("unet", n)
                    out[prefix + spelled] = ("unet", n)
    xl = getattr(pipe, "text_encoder_2", None) is not None
    for c in ("text_encoder", "text_encoder_2"):
        net = getattr(pipe, c, None)
        for n, m in net.named_modules() if net is not None else ():
            if isinstance(m, kinds):
                out[lora.kohya_key(c, lora.classic(c, n), xl)] = (c, lora.classic(c, n))
                if c == "text_encoder":
                    out["lycoris_" + lora.classic(c, n).replace(".", "_")] = (c, lora.classic(c, n))
    return out


def split_key(key):
    words = key.split(".")
    for n in (3, 2, 1):
        part = PARTS.get(".".join(words[-n:]))
        if part is not None and len(words) > n:
            return ".".join(words[:-n]), part
    return None, None


def parse(tensors, pipe, component="unet", config=None):
    """Tensors of a file -> entries. `config`: PEFT's adapter_config.json, or the component's part of diffusers' metadata."""
    names, out, shared = module_table(pipe), {}, {}
    for key, t in tensors.items():
        word = re.fullmatch(r"(?:base_model\.)?(\w+)(?:\.default)?", key)
        if word and word.group(1) in SHARED:
            shared[word.group(1)] = t
            continue
        stem, part = split_key(re.sub(r"\.(default|modules_to_save|base_layer)(?=\.|$)", "", key))
        assert part is not None, key
        if stem in names:
            at = names[stem]
        else:
            stem = re.sub(r"^(base_model\.model\.|unet\.)*", "", stem)
            c = component
            for te in ("text_encoder_2", "text_encoder"):
                if stem.startswith(te + "."):
                    c, stem = te, stem[len(te) + 1:]
            at = (c, lora.classic(c, stem))
        e = out.setdefault(at, {"conf": {}})
        assert part not in e, key
        e[part] = t
    mine = [at for at, e in out.items() if "vera_b" in e]
    if mine and "vera_A" not in shared:
        shared["vera_A"], shared["vera_B"] = projections(config["projection_prng_key"], config["r"],
                                                         [lora.layer_of(pipe, *at) for at in mine])
    for e in out.values():
        for word, (part, beside) in SHARED.items():
            if word in shared and any(x in e for x in (beside, *(beside % y for y in ("logits", "indices") if "%" in beside))):
                e[part] = shared[word]
    for (c, m), e in out.items():
        if config is not None:
            e["conf"] = configured(config, m.removeprefix("text_model.") if c != "unet" else m, e)
    return out


def last_match(patterns, module, default):
    for pattern, value in (patterns or {}).items():
        if re.match(r"(.*\.)?(%s)$" % pattern, module):
            return value
    return default


def configured(config, module, e):
    kind = config.get("peft_type", "LORA")
    r = last_match(config.get("rank_pattern"), module, config.get("r"))
    alpha = last_match(config.get("alpha_pattern"), module, config.get("lora_alpha", config.get("randlora_alpha", config.get("alpha"))))
    c = {"alpha": alpha, "r": r}
    if kind == "LORA":
        c["rslora"] = bool(config.get("use_rslora"))
        c["columns"] = False
        if config.get("init_lora_weights") in ("pissa", "olora"):
            c["initial"] = config["init_lora_weights"]
    if kind == "ADALORA":
        c["init_r"] = config["init_r"]
    if kind == "OFT":
        c.update(neumann=config["use_cayley_neumann"], terms=config["num_cayley_neumann_terms"], coft=config["coft"], eps=config["eps"])
    if kind == "IA3":
        ff = config.get("feedforward_modules") or []
        c["feedforward"] = bool(re.fullmatch(ff, module)) if isinstance(ff, str) else any(module.endswith(x) for x in ff)
    if kind == "FOURIERFT":
        c.update(seed=config["random_loc_seed"], scaling=config["scaling"])
    if kind == "HRA":
        c["apply_GS"] = config["apply_GS"]
    if kind == "VBLORA":
        c["topk"] = config["topk"]
    if kind == "MISS" and config["init_weights"] == "mini":
        c["mini"] = config["mini_r"]
    return {k: v for k, v in c.items() if v is not None}
