"""Gradients of what words, Custom Diffusion, ED-LoRA and ZipLoRA train, by PyTorch's autograd on the tiny models.

    python make_train_words.py      golden/train_words.safetensors, golden/train_zip_content.safetensors, .._style..

Each case is one evaluation: noisy latents, times, targets, captions, the values of what is trained, the loss and its
gradients. Networks are diffusers' and transformers'; what is trained is put into them by hand (rows behind the embedding
table, weights of layers as functions of coefficients), so that no trainer of theirs is in the way. `f64_rel` in the
metadata is the error of float32 itself; the gradients stored are those of float64.
"""
import os

import common
import torch
import torch.nn.functional as F
from common import GOLDEN, MODELS, in_f64, max_rel, noise, pipeline, store, versions
from make_words import attn2
from prompts import wrap
from safetensors.torch import save_file

WORD = "<new1>"


def grown(pipe, net, tok, rows):
    """The text encoder as a function of rows behind its table: ids -> (hidden states for the UNet, pooled)."""
    table = net.get_input_embeddings().weight.detach()
    base = table.shape[0]

    def run(ids, rows, xl):
        x = torch.cat([table.to(rows.dtype), rows])[torch.tensor([ids])]
        inner = getattr(net, "text_model", net)
        n = x.shape[1]
        x = x + inner.embeddings.position_embedding.weight[:n][None].to(x.dtype)
        mask = torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1)[None, None]
        states = [x]
        for layer in inner.encoder.layers:
            y = layer(states[-1], attention_mask=mask)
            states.append(y[0] if isinstance(y, tuple) else y)
        last = inner.final_layer_norm(states[-1])
        text = states[-2] if xl else last
        eos = ids.index(tok.eos_token_id)
        pooled = net.text_projection(last[:, eos]) if hasattr(net, "text_projection") else None
        return text[0], pooled
    return run, base


def read(tok, base, caption, vectors):
    """Ids of a caption in which the word stands for `vectors` rows behind the vocabulary."""
    ids = []
    for i, part in enumerate(caption.split(WORD)):
        if i > 0:
            ids += list(range(base, base + vectors))
        if part.strip():
            ids += tok(part, add_special_tokens=False)["input_ids"]
    return wrap(tok, [(i, 1.0) for i in ids])[0]


def encoders(pipe):
    out = [(pipe.text_encoder, pipe.tokenizer)]
    if getattr(pipe, "text_encoder_2", None) is not None:
        out.append((pipe.text_encoder_2, pipe.tokenizer_2))
    return out


def texts(pipe, captions, rows, xl):
    """(n, 77, d) and (n, pooled) of captions, rows [encoder] (vectors, width)."""
    hidden, pooled = [], []
    for c in captions:
        parts, p = [], None
        for (net, tok), r in zip(encoders(pipe), rows):
            run, base = grown(pipe, net, tok, r)
            h, p = run(read(tok, base, c, r.shape[0]), r, xl)
            parts.append(h)
        hidden.append(torch.cat(parts, -1))
        pooled.append(p)
    return torch.stack(hidden), torch.cat(pooled) if xl else None


def unet(pipe, x, t, text, pooled=None, ids=None):
    more = {"text_embeds": pooled, "time_ids": ids} if pooled is not None else None
    return pipe.unet(x, t, text, added_cond_kwargs=more).sample


def of_words(model, captions, vectors, seed):
    """Textual Inversion: the rows alone."""
    pipe = pipeline(os.path.join(MODELS, model))
    xl = "xl" in model
    n = len(captions)
    x, target = noise(seed, n, 4, 8, 8), noise(seed + 1, n, 4, 8, 8)
    t = torch.tensor([301.0, 77.0][:n])
    ids = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]] * n) if xl else None
    start = [0.6 * noise(seed + 2 + i, vectors, net.config.hidden_size) for i, (net, _) in enumerate(encoders(pipe))]

    def run():
        dt = pipe.unet.dtype
        rows = [s.to(dt).requires_grad_() for s in start]
        text, pooled = texts(pipe, captions, rows, xl)
        out = unet(pipe, x.to(dt), t.to(dt), text, pooled, ids.to(dt) if xl else None)
        loss = ((out - target.to(dt)) ** 2).mean()
        return [loss] + list(torch.autograd.grad(loss, rows))
    with torch.enable_grad():
        f32 = run()
        f64 = in_f64(run, pipe.unet, *(net for net, _ in encoders(pipe)))
    key = "ti/%s/" % model
    out = {key + "latent": x, key + "target": target, key + "t": t, key + "loss": f64[0][None].float()}
    if xl:
        out[key + "time_ids"] = ids
    for i, s in enumerate(start):
        out[key + "rows%d" % i], out[key + "grad%d" % i] = s, f64[1 + i].float()
    return out, max(max_rel(a, b) for a, b in zip(f32[1:], f64[1:]))


def hooked(pipe, each):
    """Cross-attention j of the UNet sees each[j] (n, 77, d)."""
    order = []
    for n, _ in attn2(pipe.unet):
        if n.rsplit(".", 1)[0] not in order:
            order.append(n.rsplit(".", 1)[0])
    mods, hooks = dict(pipe.unet.named_modules()), []
    for j, n in enumerate(order):
        def swap(module, args, kw, mine=each[j]):
            kw["encoder_hidden_states"] = mine
            return args, kw
        hooks.append(mods[n].register_forward_pre_hook(swap, with_kwargs=True))
    return hooks


def of_layers(model, captions, seed):
    """ED-LoRA's words: a row for each cross-attention layer."""
    pipe = pipeline(os.path.join(MODELS, model))
    n, layers = len(captions), len(attn2(pipe.unet)) // 2
    x, target, t = noise(seed, n, 4, 8, 8), noise(seed + 1, n, 4, 8, 8), torch.tensor([301.0, 77.0][:n])
    start = 0.6 * noise(seed + 2, layers, 1, pipe.text_encoder.config.hidden_size)

    def run():
        dt = pipe.unet.dtype
        rows = start.to(dt).requires_grad_()
        each = [texts(pipe, captions, [rows[j]], False)[0] for j in range(layers)]
        hooks = hooked(pipe, each)
        out = unet(pipe, x.to(dt), t.to(dt), each[0])
        for h in hooks:
            h.remove()
        loss = ((out - target.to(dt)) ** 2).mean()
        return loss, torch.autograd.grad(loss, rows)[0]
    with torch.enable_grad():
        f32 = run()
        f64 = in_f64(run, pipe.unet, pipe.text_encoder)
    key = "ed/%s/" % model
    return {key + "latent": x, key + "target": target, key + "t": t, key + "loss": f64[0][None].float(), key + "rows0": start,
            key + "grad0": f64[1].float()}, max_rel(f32[1], f64[1])


def of_keys(model, captions, seed):
    """Custom Diffusion: keys, values and a word; the first picture under a mask, the second of the class."""
    pipe = pipeline(os.path.join(MODELS, model))
    n = len(captions)
    x, target, t = noise(seed, n, 4, 8, 8), noise(seed + 1, n, 4, 8, 8), torch.tensor([301.0, 77.0][:n])
    start = 0.6 * noise(seed + 2, 1, pipe.text_encoder.config.hidden_size)
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:7, 1:6] = 1
    names = [k for k, _ in attn2(pipe.unet)]

    def run():
        dt = pipe.unet.dtype
        rows = start.to(dt).requires_grad_()
        mods = dict(pipe.unet.named_modules())
        weights = [mods[k].weight.requires_grad_() for k in names]
        text, _ = texts(pipe, captions, [rows], False)
        out = unet(pipe, x.to(dt), t.to(dt), text)
        sq = (out - target.to(dt)) ** 2
        loss = (sq[0] * mask.to(dt)).sum() / (mask.sum() * 4) + sq[1].mean()
        g = torch.autograd.grad(loss, [rows] + weights)
        for w in weights:
            w.requires_grad_(False)
        return [loss] + list(g)
    with torch.enable_grad():
        f32 = run()
        f64 = in_f64(run, pipe.unet, pipe.text_encoder)
    key = "cd/%s/" % model
    out = {key + "latent": x, key + "target": target, key + "t": t, key + "loss": f64[0][None].float(), key + "rows0": start,
           key + "grad0": f64[1].float(), key + "mask": mask}
    for k, g in zip(names, f64[2:]):
        out[key + "w/unet." + k] = g.float()
    return out, max(max_rel(a, b) for a, b in zip(f32[1:], f64[1:]))


def zip_adapters(pipe):
    """Two adapters of pairs: attentions, and for one of them more than for the other; a scale that is not 1."""
    picked = [k for k, m in pipe.unet.named_modules()
              if k.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")) and isinstance(m, torch.nn.Linear)]
    only = {"content": ["down_blocks.0.attentions.0.proj_in", "down_blocks.0.resnets.0.conv1"],
            "style": ["up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2", "down_blocks.0.resnets.0.conv1"]}
    mods, out = dict(pipe.unet.named_modules()), {}
    for part, (rank, alpha, seed) in {"content": (3, 6.0, 50000), "style": (2, 1.0, 60000)}.items():
        file = {}
        for i, k in enumerate(picked + only[part]):
            w = mods[k].weight
            kk = list(w.shape[2:])
            key = "lora_unet_" + k.replace(".", "_")
            file[key + ".lora_down.weight"] = 0.3 * noise(seed + 2 * i, rank, w.shape[1], *kk)
            file[key + ".lora_up.weight"] = 0.3 * noise(seed + 2 * i + 1, w.shape[0], rank, *([1] * len(kk)))
            file[key + ".alpha"] = torch.tensor(alpha)
        path = os.path.join(GOLDEN, "train_zip_%s.safetensors" % part)
        save_file({k: v.contiguous() for k, v in file.items()}, path)
        os.chmod(path, 0o644)
        out[part] = file
    return picked, only, out


def delta(file, k, dt, shape):
    key = "lora_unet_" + k.replace(".", "_")
    if key + ".alpha" not in file:
        return None
    a, b = file[key + ".lora_down.weight"].to(dt), file[key + ".lora_up.weight"].to(dt)
    return (file[key + ".alpha"].to(dt) / a.shape[0]) * (b.flatten(1) @ a.flatten(1)).reshape(shape)


def of_zip(code, seed):
    """ZipLoRA: Delta W_c diag(m_c) + Delta W_s diag(m_s), dense, in the place of weights."""
    pipe = pipeline(os.path.join(MODELS, "tiny-sd1"))
    picked, only, files = zip_adapters(pipe)
    names = sorted(set(picked + only["content"] + only["style"]))
    mods = dict(pipe.unet.named_modules())
    x, t = noise(seed, 2, 4, 8, 8), torch.tensor([301.0, 301.0])
    captions, lam = ["a photo of a cat", "a house in the rain"], 0.01
    m0 = {}
    for i, k in enumerate(names):
        columns = mods[k].weight[0].numel()
        for part in ("content", "style"):
            if delta(files[part], k, torch.float32, mods[k].weight.shape) is not None:
                m0[part, k] = 1 + 0.5 * noise(seed + 100 + 2 * i + (part == "style"), columns)

    def network(dt, pick, xs, text):
        new = {}
        for k in names:
            w = mods[k].weight.detach()
            v = w
            for part in ("content", "style"):
                d = delta(files[part], k, dt, w.shape)
                if d is not None and part in pick:
                    v = v + (d if pick[part] is None else d * pick[part][k].reshape(w.shape[1:]))
            new[k + ".weight"] = v
        return torch.func.functional_call(pipe.unet, new, (xs, t.to(dt)[:1], text)).sample

    def run():
        dt = pipe.unet.dtype
        m = {k: v.to(dt).requires_grad_() for k, v in m0.items()}
        rows = torch.zeros(1, pipe.text_encoder.config.hidden_size, dtype=dt)
        text, _ = texts(pipe, captions, [rows], False)
        merged = {p: {k: v for (q, k), v in m.items() if q == p} for p in ("content", "style")}
        loss = 0
        for s, part in enumerate(("content", "style")):
            xs, tx = x[s:s + 1].to(dt), text[s:s + 1]
            wanted = network(dt, {part: None}, xs, tx).detach()
            d = network(dt, merged, xs, tx) - wanted
            loss = loss + ((d ** 2).mean() if code else d.norm())
        third = 0
        for k in names:
            if ("content", k) in m and ("style", k) in m:
                a, b = m["content", k], m["style", k]
                third = third + ((a * b).abs().mean() if code else (a * b).sum().abs())
        loss = loss + lam * third
        return [loss, third] + list(torch.autograd.grad(loss, list(m.values())))
    with torch.enable_grad():
        f32 = run()
        f64 = in_f64(run, pipe.unet, pipe.text_encoder)
    key = "zip%d/" % code
    out = {key + "latent": x, key + "t": t, key + "loss": f64[0][None].float(), key + "third": f64[1][None].float()}
    for (part, k), v, g in zip(m0, m0.values(), f64[2:]):
        out[key + "m/%s/unet.%s" % (part, k)], out[key + "g/%s/unet.%s" % (part, k)] = v, g.float()
    return out, max(max_rel(a, b) for a, b in zip(f32[2:], f64[2:]))


if __name__ == "__main__":
    tensors, meta = {}, dict(versions())
    two = ["a photo of %s on the mat" % WORD, "%s, and a red %s" % (WORD, WORD)]
    for i, model in enumerate(("tiny-sd1", "tiny-sd2", "tiny-sdxl")):
        got, rel = of_words(model, two, 2, 100 * (i + 1))
        tensors.update(got)
        meta["ti/%s f64_rel" % model] = "%.2g" % rel
    for name, (got, rel) in {"ed": of_layers("tiny-sd1", two, 400), "cd": of_keys("tiny-sd1", ["a photo of a %s cat" % WORD, "a photo of a cat"], 500),
                             "zip0": of_zip(0, 600), "zip1": of_zip(1, 700)}.items():
        tensors.update(got)
        meta[name + " f64_rel"] = "%.2g" % rel
    print(store("train_words.safetensors", tensors, meta), {k: v for k, v in meta.items() if "rel" in k})
