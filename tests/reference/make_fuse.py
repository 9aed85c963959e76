"""Concepts fused by least squares, on tiny-sd1: Custom Diffusion's closed form, Mix-of-Show's gradient fusion, SSR-Merge.

    python make_fuse.py        writes golden/fuse.json, golden/fuse.safetensors

Everything is f64. What layers read is recorded by hooks on transformers' text encoder and diffusers' UNet; the constrained
problem is solved as its Lagrange system, the ridge by torch.linalg.lstsq on rows with the ridge's own rows below them,
routing by the same on what the adapters see of the rows. So no formula of lib/fuse/solve.c stands here. Of each layer the mean squares before and after and the norm of the
difference are stored of every fifth layer, of some the difference itself.
"""
import os

import lora
import torch
from common import ADAPTERS, DATA, MODELS, noise, pipeline, store, versions, write_json
from diffusers import DPMSolverMultistepScheduler
from make_words import attn2
from safetensors.torch import load_file

MODEL, SIZE, STEPS, RIDGE = "tiny-sd1", 8, 3, 1e-2
CONCEPTS = os.path.join(DATA, "concepts")
CAPTIONS = ["two people in the street", "a red car", "photo of a house near the sea", "the sun over green hills", "an old man reads",
            "dog and cat", "night", "children play with a ball in the garden", "what a big tree", "snow", "a cup of tea on the table",
            "boats at sunset, wide angle", "black and white portrait"]
SHOWN = ["text_encoder.text_model.encoder.layers.0.self_attn.q_proj", "text_encoder.text_model.encoder.layers.1.self_attn.out_proj",
         "text_encoder.text_model.encoder.layers.2.self_attn.v_proj",
         "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v",
         "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
         "unet.up_blocks.2.attentions.2.transformer_blocks.0.attn2.to_q", "unet.down_blocks.0.attentions.0.proj_in",
         "unet.down_blocks.0.resnets.0.conv1"]


class Concept:
    """words: name -> (n, d), or (layers, d) with `layered`. differences: canonical name -> D, in the weight's shape."""

    def __init__(self, name, words, differences, layered=False, prompts=None, seed=0, images=1):
        self.name, self.words, self.differences, self.layered = name, words, differences, layered
        self.prompts, self.seed, self.images = prompts, seed, images


# ---------------------------------------------------------------- the pipeline

def weight(pipe, name):
    component, module = name.split(".", 1)
    return lora.layer_of(pipe, component, module).weight


class with_differences:
    def __init__(self, pipe, *tables):
        self.pipe, self.tables = pipe, tables

    def __enter__(self):
        self.kept = []
        for table in self.tables:
            for name, d in table.items():
                w = weight(self.pipe, name)
                self.kept.append((w, w.data.clone()))
                w.data = w.data + d.reshape(w.shape)

    def __exit__(self, *a):
        for w, old in reversed(self.kept):
            w.data = old


class record:
    """with record(pipe, names) as rows: rows[name] is a list of (rows, K), K ordered as the weight's own rows."""

    def __init__(self, pipe, names):
        self.pipe, self.names = pipe, names

    def __enter__(self):
        rows, self.hooks = {n: [] for n in self.names}, []
        for n in self.names:
            def hook(m, args, out, to=rows[n]):
                x = args[0]
                if isinstance(m, torch.nn.Conv2d):
                    x = torch.nn.functional.unfold(x, m.kernel_size, padding=m.padding, stride=m.stride).transpose(1, 2)
                to.append(x.reshape(-1, x.shape[-1]))
            self.hooks.append(lora.layer_of(self.pipe, *n.split(".", 1)).register_forward_hook(hook))
        return rows

    def __exit__(self, *a):
        for h in self.hooks:
            h.remove()


def ids_of(pipe, concept, prompt):
    """BOS .. EOS; words are ids past the vocabulary. And which positions are words."""
    tok, base = pipe.tokenizer, pipe.vocabulary
    row, at = {}, base
    for w, v in concept.words.items():
        n = 1 if concept.layered else len(v)
        row[w] = list(range(at, at + n))
        at += n
    ids = [tok.bos_token_id]
    for part in prompt.split(" "):
        ids += row[part] if part in row else tok(part, add_special_tokens=False)["input_ids"]
    return ids + [tok.eos_token_id]


def fill(pipe, concept, layer):
    table, at = pipe.text_encoder.get_input_embeddings().weight.data, pipe.vocabulary
    for v in concept.words.values():
        mine = v[layer:layer + 1] if concept.layered else v
        table[at:at + len(mine)] = mine.double()
        at += len(mine)


def hidden(pipe, ids):
    net = pipe.text_encoder
    o = net(torch.tensor([ids]), output_hidden_states=True)
    return getattr(net, "text_model", net).final_layer_norm(o.hidden_states[-1])[0]


def texts(pipe, concept, ids):
    """The encoded ids for each cross-attention, or once for all."""
    out = []
    for j in range(len(attn2(pipe.unet)) // 2 if concept.layered else 1):
        fill(pipe, concept, j)
        out.append(hidden(pipe, ids))
    return out


def draw(pipe, concept, prompt, steps, seed, calls=None):
    pad = lambda ids: ids + [pipe.tokenizer.pad_token_id] * (77 - len(ids))
    mine = texts(pipe, concept, pad(ids_of(pipe, concept, prompt)))
    blocks, hooks = [], []
    for n, _ in attn2(pipe.unet, ("to_k",)):
        blocks.append(n.rsplit(".", 1)[0])
    for j, n in enumerate(blocks):
        def swap(m, args, kw, text=mine[j % len(mine)]):
            kw["encoder_hidden_states"] = text[None]
            return args, kw
        hooks.append(dict(pipe.unet.named_modules())[n].register_forward_pre_hook(swap, with_kwargs=True))
    s = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    s.set_timesteps(steps)
    x = noise(seed, 1, 4, SIZE, SIZE).double() * s.init_noise_sigma
    for t in s.timesteps[:calls]:
        e = pipe.unet(s.scale_model_input(x, t), t, mine[0][None]).sample
        x = s.step(e, t, x).prev_sample.double()
    for h in hooks:
        h.remove()


# ---------------------------------------------------------------- the problems

def constrained(X, R, C):
    """min |D C^T| with D X^T = R^T: [H X^T; X 0] [D^T; L] = [0; R]."""
    K, m = X.shape[1], len(X)
    A = torch.zeros(K + m, K + m, dtype=torch.float64)
    A[:K, :K], A[:K, K:], A[K:, :K] = C.T @ C, X.T, X
    b = torch.cat([torch.zeros(K, R.shape[1], dtype=torch.float64), R])
    return torch.linalg.solve(A, b)[:K].T


def ridge(X, R, share):
    K = X.shape[1]
    l = share * (X ** 2).sum() / K
    A = torch.cat([X, l.sqrt() * torch.eye(K, dtype=torch.float64)])
    b = torch.cat([R, torch.zeros(K, R.shape[1], dtype=torch.float64)])
    return torch.linalg.lstsq(A, b, driver="gelsd").solution.T


def flat(D):
    return D.reshape(len(D), -1).double()


def solved(name, rows, concepts, solve, out, book):
    """rows: of each concept (m, K)."""
    X = torch.cat(rows)
    zero = torch.zeros(len(flat(next(c.differences[name] for c in concepts if name in c.differences))), X.shape[1], dtype=torch.float64)
    R = torch.cat([x @ (flat(c.differences[name]) if name in c.differences else zero).T for x, c in zip(rows, concepts)])
    D = solve(X, R)
    out[name] = D
    book[name] = {"rows": len(X), "before": (R ** 2).mean().item(), "after": ((X @ D.T - R) ** 2).mean().item(), "norm": D.norm().item()}


def distinct(rows):
    """Exact duplicates go; the first counts."""
    seen, out = [], []
    for x in rows:
        keep = []
        for r in x:
            if not any(torch.equal(r, s) for s in seen):
                seen.append(r)
                keep.append(r)
        out.append(torch.stack(keep) if keep else x[:0])
    return out


def is_keys(n):
    return n.endswith((".attn2.to_k", ".attn2.to_v"))


def fuse_constrained(pipe, concepts, skip):
    first = lambda p: 4 if skip and "photo of a" in p[:15] else 1
    base = Concept("", {}, {})
    C = torch.cat([hidden(pipe, ids_of(pipe, base, p))[first(p):] for p in CAPTIONS])
    rows = []
    for c in concepts:
        fill(pipe, c, 0)
        rows.append(torch.cat([hidden(pipe, ids_of(pipe, c, p))[first(p):] for p in c.prompts]))
    rows, out, book = distinct(rows), {}, {}
    for name in sorted({n for c in concepts for n in c.differences}):
        solved(name, rows, concepts, lambda X, R: constrained(X, R, C), out, book)
        book[name]["drift"] = ((C @ out[name].T) ** 2).sum().item()
    return out, book, torch.cat([C] + rows)


def fuse_gradient(pipe, concepts):
    names = sorted({n for c in concepts for n in c.differences})
    stage = {"text": [n for n in names if n.startswith("text")], "keys": [n for n in names if is_keys(n)]}
    stage["images"] = [n for n in names if n not in stage["text"] + stage["keys"]]
    solve, out, book = lambda X, R: ridge(X, R, RIDGE), {}, {}

    seen = []
    for c in concepts:
        with with_differences(pipe, {n: d for n, d in c.differences.items() if n.startswith("text")}), record(pipe, stage["text"]) as rows:
            for p in c.prompts:
                texts(pipe, c, ids_of(pipe, c, p))
        seen.append(rows)
    for n in stage["text"]:
        solved(n, [torch.cat(r[n]) for r in seen], concepts, solve, out, book)

    order, seen = [n for n, _ in attn2(pipe.unet)], []
    with with_differences(pipe, dict(out)):
        for c in concepts:
            mine = []
            for p in c.prompts:
                ids = ids_of(pipe, c, p)
                keep = [i for i, t in enumerate(ids) if t >= pipe.vocabulary or i == len(ids) - 1]
                mine.append([t[keep] for t in texts(pipe, c, ids)])
            seen.append(mine)
    for n in stage["keys"]:
        j = order.index(n.removeprefix("unet.")) // 2
        solved(n, [torch.cat([t[j % len(t)] for t in mine]) for mine in seen], concepts, solve, out, book)

    seen, before = [], dict(out)
    for c in concepts:
        own = {n: d for n, d in c.differences.items() if n in stage["images"]}
        with with_differences(pipe, before, own), record(pipe, stage["images"]) as rows:
            for i in range(c.images):
                draw(pipe, c, c.prompts[i % len(c.prompts)], STEPS, c.seed + i)
        seen.append(rows)
    for n in stage["images"]:
        solved(n, [torch.cat(r[n]) for r in seen], concepts, solve, out, book)
    return out, book


def fuse_routed(pipe, concepts, share, calls):
    """Concepts have .pairs: name -> A (r, K), B (out, r). The merged product of each layer."""
    names, seen, out, book = sorted({n for c in concepts for n in c.pairs}), [], {}, {}
    for c in concepts:
        c.differences = {n: b @ a for n, (a, b) in c.pairs.items()}
        with with_differences(pipe, c.differences), record(pipe, names) as rows:
            for i in range(c.images):
                draw(pipe, c, c.prompts[i % len(c.prompts)], 20, c.seed + i, calls)
        seen.append(rows)
    for n in names:
        here = [(c.pairs[n], torch.cat(rows[n])) for c, rows in zip(concepts, seen) if n in c.pairs]
        A, B = torch.cat([a for (a, _), _ in here]), torch.cat([b for (_, b), _ in here], 1)
        if len(here) == 1:
            out[n] = B @ A
            book[n] = {"rows": 0, "before": 0.0, "after": 0.0, "norm": out[n].norm().item()}
            continue
        Z, T, at = [], [], 0
        for (a, b), x in here:
            z = x @ A.T
            own = torch.zeros_like(z)
            own[:, at:at + len(a)] = z[:, at:at + len(a)]
            at += len(a)
            Z.append(z), T.append(own)
        Z, T = torch.cat(Z), torch.cat(T)
        M = ridge(Z, T, share)
        out[n] = B @ M @ A
        want = T @ B.T
        book[n] = {"rows": len(Z), "before": (want ** 2).mean().item(), "after": ((Z @ (B @ M).T - want) ** 2).mean().item(),
                   "norm": out[n].norm().item()}
    return out, book


# ---------------------------------------------------------------- the concepts

def of_file(pipe, name, only=lambda n: True, weight=1.0):
    entries = lora.read(os.path.join(ADAPTERS, name), pipe)
    names = {"%s.%s" % (c, m): e for (c, m), e in entries.items()}
    return {n: weight * lora.delta(e, globals()["weight"](pipe, n).shape) for n, e in names.items() if only(n)}


def pairs_of(pipe, name, weight=1.0):
    entries = lora.read(os.path.join(ADAPTERS, name), pipe)
    return {"%s.%s" % k: (e["A"].double().flatten(1), weight * lora.scale(e) * e["B"].double().flatten(1)) for k, e in entries.items()}


def routed_concepts(pipe, images):
    a = Concept("<cat-toy>", word("<cat-toy>", "cat_toy.safetensors"), {}, prompts=["photo of a <cat-toy>", "<cat-toy>"], seed=5, images=images)
    a.pairs = pairs_of(pipe, "content.safetensors", 0.75)
    b = Concept("<multi>", word("<multi>", "multi.bin"), {}, prompts=["a house <multi>"], seed=6, images=images)
    b.pairs = pairs_of(pipe, "style.safetensors")
    c = Concept("boat", {}, {}, prompts=["a boat at night"], seed=7)
    c.pairs = pairs_of(pipe, "sd1_kohya_conv.safetensors", -0.5)
    d = Concept("tree", {}, {}, prompts=["a tree"], seed=8)
    d.pairs = pairs_of(pipe, "sd1_new_conv.safetensors")
    return [a, b, c] if images == 1 else [a, b, c, d]


def custom_diffusion(pipe):
    d = torch.load(os.path.join(CONCEPTS, "delta.bin"), weights_only=True)
    new = {"unet." + k.removesuffix(".weight"): v.double() - weight(pipe, "unet." + k.removesuffix(".weight")) for k, v in d["unet"].items()}
    return {w: v.reshape(-1, v.shape[-1]) for w, v in d["modifier_token"].items()}, new


def edlora(pipe):
    d, out = torch.load(os.path.join(CONCEPTS, "edlora.pth"), weights_only=True)["params"], {}
    for component in ("text_encoder", "unet"):
        for k, a in d[component].items():
            if k.endswith("lora_down.weight"):
                n = k.removesuffix(".lora_down.weight")
                out[component + "." + n] = d[component][n + ".lora_up.weight"].double() @ a.double()
    return d["new_concept_embedding"], out


def word(name, file):
    v = load_file(os.path.join(CONCEPTS, file)) if file.endswith("safetensors") else torch.load(os.path.join(CONCEPTS, file), weights_only=True)
    v = v[name].float()
    return {name: v.reshape(-1, v.shape[-1])}


def main():
    pipe = pipeline(os.path.join(MODELS, MODEL), torch.float64)
    pipe.vocabulary = pipe.text_encoder.get_input_embeddings().weight.shape[0]
    pipe.text_encoder.resize_token_embeddings(pipe.vocabulary + 16)
    pipe.text_encoder.double()
    new, custom = custom_diffusion(pipe)
    tensors, cases = {}, []

    def keep(case, out, book, **more):
        book = {n: v for i, (n, v) in enumerate(book.items()) if i % 5 == 0 or n in SHOWN}
        for n in SHOWN:
            if n in out:
                tensors["%s/%s" % (case, n)] = out[n].reshape(weight(pipe, n).shape).float()
        cases.append(dict({"name": case, "layers": book}, **more))

    for case, skip, prompts in (("constrained", False, (["<new1> cat"], ["a <multi>"])),
                                ("skip_photo", True, (["photo of a <new1>"], ["<multi>", "photo of a <multi>"]))):
        a = Concept("a", new, custom, prompts=prompts[0])
        b = Concept("b", word("<multi>", "multi.bin"), of_file(pipe, "style.safetensors", is_keys), prompts=prompts[1])
        out, book, rows = fuse_constrained(pipe, [a, b], skip)
        keep(case, out, book, captions=CAPTIONS, prompts=prompts)
        if skip:
            tensors["skip_photo rows"] = rows.float()

    words, ed = edlora(pipe)
    a = Concept("<dog1> <dog2>", words, ed, layered=True, prompts=["photo of a <dog1> <dog2>", "<dog1> <dog2>"], seed=5)
    b = Concept("<cat-toy>", word("<cat-toy>", "cat_toy.safetensors"), of_file(pipe, "content.safetensors", weight=0.75),
                prompts=["photo of a <cat-toy>", "<cat-toy>"], seed=6)
    out, book = fuse_gradient(pipe, [a, b])
    keep("gradient", out, book)
    c = Concept("<cat-toy>", word("<cat-toy>", "cat_toy.safetensors"), of_file(pipe, "sd1_kohya_conv.safetensors"), prompts=["a <cat-toy>", "<cat-toy>"],
                seed=7, images=3)
    d = Concept("<multi>", word("<multi>", "multi.bin"), of_file(pipe, "sd1_new_conv.safetensors"), prompts=["a <multi>"], seed=8)
    out, book = fuse_gradient(pipe, [c, d])
    keep("conv", out, book)
    for case, share, calls, images in (("routed", 1e-4, 1, 1), ("routed_more", 1e-2, 2, 2)):
        out, book = fuse_routed(pipe, routed_concepts(pipe, images), share, calls)
        keep(case, out, book)
    store("fuse.safetensors", tensors)
    write_json("fuse.json", {"versions": versions(), "model": MODEL, "size": SIZE, "steps": STEPS, "ridge": RIDGE, "cases": cases})


if __name__ == "__main__":
    main()
