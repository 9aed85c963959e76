"""Outputs of every net of the tiny models: tokenizer, text encoders, UNet, VAE.

    python make_nets.py [MODEL ...]          writes golden/tokenizers.json, golden/nets.json, golden/nets_<model>.safetensors
    make_nets.nets(pipe, ...) is used by make_bundled.py for the bundled model.
"""
import json
import os
import sys

import common
import torch
from common import MODELS, SHARED, in_f64, l2_rel, max_rel, noise, pipeline, store, versions, write_json

PROMPTS = ["a photo of a red cat on the mat", "", "Caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \u00bd it's 2024",
           "one two three four five six seven eight nine ten " * 9]

TEXTS = [
    "a photo of a cat", "", "   ", "A  RED\tCube\n on blue", "caf\u00e9", "cafe\u0301", "\u00dcn\u00efc\u00f6d\u00e9 \u0130stanbul STRASSE stra\u00dfe",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\u0f00\u0939\u093f\u0928\u094d\u0926\u0940 combining marks", "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 test",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero", "it's they're we've i'm you'll he'd don't 'quoted' ''s", "12345 3.14 1\u00bd \u00b2 \u2167 \u0663",
    "a_b-c/d\\e {x} [y] (z:1.3) <w> #1 $2 %3 ^&*", "<|startoftext|> inside <|endoftext|> end", "<|STARTOFTEXT|> upper", "\ufb01ligree \u212bngstr\u00f6m",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u0395\u039b\u039b\u0397\u039d\u0399\u039a\u0391 \u03a3\u03a3",
    "x" * 300, "word " * 75, "word " * 76, "one two three four five six seven eight nine ten " * 9]
PAD_TEXTS = ["stop!", "a !b", "wow!!! really?!", "!"]


def tokenize(tok, texts):
    out = []
    for text in texts:
        ids = tok(text, add_special_tokens=False)["input_ids"]
        cut = tok(text, padding="max_length", max_length=tok.model_max_length, truncation=True)["input_ids"]
        out.append({"text": text, "ids": ids, "ids77": cut, "cut": len(ids) > tok.model_max_length - 2})
    return out


def tokenizer_entry(folder, tok):
    cases = tokenize(tok, TEXTS)
    for c in cases:
        if "<|START" in c["text"]:
            c["note"] = "upper case special: transformers spells it out, OpenAI's tokenizer gives BOS"
    for c in tokenize(tok, PAD_TEXTS):
        if tok.pad_token == "!":
            c["note"] = "pad token in text"
        cases.append(c)
    return {"folder": folder, "bos": tok.bos_token_id, "eos": tok.eos_token_id, "pad": tok.pad_token_id,
            "length": tok.model_max_length, "vocab": len(tok), "cases": cases}


def text(pipe, which, prompts, tensors, cases, hidden=True):
    tok = getattr(pipe, "tokenizer" + which)
    net = getattr(pipe, "text_encoder" + which)
    ids = torch.tensor([c["ids77"] for c in tokenize(tok, prompts)])
    key = "te" + which.replace("_", "")

    def run():
        o = net(ids, output_hidden_states=True, return_dict=True)
        r = {"penultimate": o.hidden_states[-2]}
        if which:
            r["text_embeds"] = o.text_embeds
            r["last"] = net.text_model.final_layer_norm(o.hidden_states[-1])
            assert torch.equal(r["last"], o.last_hidden_state)
        else:
            r["last"], r["pooled"] = o.last_hidden_state, o.pooler_output
        if hidden:
            r["hidden"] = torch.stack([h[0] for h in o.hidden_states])
        return r
    ref, exact = run(), in_f64(run, net)
    tensors[key + "/ids"] = ids.int()
    for k, v in ref.items():
        tensors["%s/%s" % (key, k)] = v
        cases.append({"net": key, "name": k, "f64_rel": round_(max_rel(v, exact[k]))})
    return ref


def round_(x):
    return float("%.2g" % x)


def unet_case(pipe, name, shape, timesteps, context, tensors, cases, seed, extra=None):
    x = noise(seed, *shape)
    t = torch.tensor(timesteps, dtype=torch.float32)
    t = t if len(t) == shape[0] else t.expand(shape[0])

    def run(dtype=torch.float32):
        add = {k: v.to(dtype) for k, v in extra.items()} if extra else None
        return pipe.unet(x.to(dtype), t.to(dtype), context.to(dtype), added_cond_kwargs=add).sample
    out, exact = run(), in_f64(lambda: run(torch.float64), pipe.unet)
    p = "unet/%s/" % name
    tensors.update({p + "sample": x, p + "timestep": t, p + "context": context, p + "out": out})
    for k, v in (extra or {}).items():
        tensors[p + k] = v
    cases.append({"net": "unet", "name": name, "f64_rel": round_(max_rel(out, exact))})


def to_u8(image):
    """diffusers' VaeImageProcessor: (x/2+0.5).clamp(0,1), then numpy round of 255 x, half to even."""
    v = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    return torch.from_numpy((v.numpy() * 255).round().astype("uint8"))


def vae_cases(pipe, tensors, cases, decode=(("decode", 2, 10, 14), ("decode_odd", 1, 5, 7)), seed=400):
    vae = pipe.vae
    s = vae.config.scaling_factor
    for name, b, h, w in decode:
        z = noise(seed, b, 4, h, w)
        run = lambda dtype=torch.float32: vae.decode(z.to(dtype) / s).sample
        img, exact = run(), in_f64(lambda: run(torch.float64), vae)
        tensors.update({"vae/%s/latent" % name: z, "vae/%s/image" % name: img, "vae/%s/u8" % name: to_u8(img)})
        cases.append({"net": "vae_decode", "name": name, "f64_rel": round_(max_rel(img, exact))})
    f = 2 ** (len(vae.config.block_out_channels) - 1)
    x = torch.tanh(noise(seed + 1, 1, 3, 6 * f, 5 * f))
    run = lambda dtype=torch.float32: vae.encode(x.to(dtype)).latent_dist
    d, exact = run(), in_f64(lambda: run(torch.float64), vae)
    tensors.update({"vae/encode/image": x, "vae/encode/mean": d.mean, "vae/encode/logvar": d.logvar})
    cases.append({"net": "vae_encode", "name": "encode", "f64_rel": round_(max_rel(d.mean, exact.mean))})


def tiny(name):
    pipe = pipeline(os.path.join(MODELS, name))
    tensors, cases = {}, []
    xl = getattr(pipe, "text_encoder_2", None) is not None
    r = text(pipe, "", PROMPTS, tensors, cases)
    if xl:
        r2 = text(pipe, "_2", PROMPTS, tensors, cases)
        ctx, pooled = torch.cat([r["penultimate"], r2["penultimate"]], -1), r2["text_embeds"]
        tensors["ctx"] = ctx
        # the pipeline's own path must agree with what we say it does
        for i, p in enumerate(PROMPTS):
            a, _, b, _ = pipe.encode_prompt(p, do_classifier_free_guidance=False, device="cpu")
            assert max(max_rel(a[0], ctx[i]), max_rel(b[0], pooled[i])) < 1e-6, p
    else:
        ctx = r["last"]
        for i, p in enumerate(PROMPTS):
            assert max_rel(pipe.encode_prompt(p, "cpu", 1, False)[0][0], ctx[i]) < 1e-6, p
    assert {"tiny-sd1": 24, "tiny-sd2": 20, "tiny-sdxl": 40}[name] == ctx.shape[-1]
    two, four = ctx[:1], ctx[[1, 0]]

    def extra(b):
        if not xl:
            return None
        ids = torch.tensor([[32., 24., 0., 0., 32., 24.], [64., 48., 8., 4., 32., 32.]])[:b]
        return {"text_embeds": pooled[[0, 1]][:b], "time_ids": ids}
    U = lambda *a: unet_case(pipe, *a[:4], tensors, cases, *a[4:])
    U("one", (1, 4, 12, 16), [981.0], two, 301, extra(1))
    U("two", (2, 4, 16, 16), [501.0], four, 302, extra(2))
    U("times", (2, 4, 12, 8), [999.0, 20.0], four, 303, extra(2))
    U("frac", (1, 4, 8, 8), [815.0175170898438], two, 304, extra(1))
    U("odd", (1, 4, 10, 14), [341.0], two, 305, extra(1))
    U("odd2", (2, 4, 11, 13), [1.0], four, 306, extra(2))
    U("short", (1, 4, 8, 8), [661.0], two[:, :7], 307, extra(1))
    U("long", (1, 4, 8, 8), [661.0], torch.cat([ctx[:1], ctx[3:4]], 1), 308, extra(1))
    vae_cases(pipe, tensors, cases)
    file = "nets_%s.safetensors" % name
    store(file, tensors)
    print(name, {"%s %s" % (c["net"], c["name"]): c["f64_rel"] for c in cases},
          {k: "%.2g" % v.float().std() for k, v in tensors.items() if k.endswith(("out", "image", "last"))})
    toks = [tokenizer_entry("models/%s/tokenizer%s" % (name, w), getattr(pipe, "tokenizer" + w)) for w in (("", "_2") if xl else ("",))]
    return {"name": name, "path": "models/" + name, "file": file, "prompts": PROMPTS, "cases": cases}, toks


def main():
    models, toks = [], []
    for name in ("tiny-sd1", "tiny-sd2", "tiny-sdxl"):
        m, t = tiny(name)
        models.append(m)
        toks += t
    write_json("nets.json", {"versions": versions(), "models": models})
    write_json("tokenizers.json", {"versions": versions(), "tokenizers": toks})


if __name__ == "__main__":
    main()
