"""Words that a model learns: files in every form, and what prompts with them become on the tiny models.

    python make_words.py       tests/data/concepts, golden/words.json, golden/words.safetensors

Textual inversions are loaded by diffusers' own load_textual_inversion and encoded by its encode_prompt, weighted prompts by
prompts.py on top of that. Words with a vector for each layer, and whole Custom Diffusion and ED-LoRA files, follow the
formulas: a replaced weight, a low-rank sum, one encoding for each cross-attention layer.
"""
import os
from collections import OrderedDict

import common
import torch
from common import DATA, MODELS, in_f64, max_rel, noise, pipeline, store, versions, write_json
from prompts import chunks, encode, hidden, pieces, wrap
from safetensors.torch import save_file

CONCEPTS = os.path.join(DATA, "concepts")
SD1, XL1, XL2 = 24, 16, 24


def vectors(seed, *shape):
    """As lively as the token table of the tiny models, and exact in f16."""
    return (0.6 * torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed))).half().float()


def put(name, obj, meta=None):
    path = os.path.join(CONCEPTS, name)
    if name.endswith(".safetensors"):
        save_file({k: v.contiguous() for k, v in obj.items()}, path, metadata=meta)
    else:
        torch.save(obj, path)
    os.chmod(path, 0o644)


def attn2(unet, kinds=("to_k", "to_v")):
    """(name, layer) of the cross-attentions' projections in order of execution: down, middle, up."""
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    found = [(n, m) for n, m in unet.named_modules() if ".attn2." in n and n.split(".")[-1] in kinds]
    return sorted(found, key=lambda nm: order[nm[0].split(".")[0]])


def ldm_name(name):
    """LDM's path of a cross-attention of tiny-sd1 (2 layers in a block, 3 levels)."""
    parts = name.split(".")
    rest = ".".join(parts[parts.index("transformer_blocks"):])
    if parts[0] == "mid_block":
        return "middle_block.1." + rest
    block, at = int(parts[1]), int(parts[3])
    n = 1 + 3 * block + at if parts[0] == "down_blocks" else 3 * block + at
    return "%s.%d.1.%s" % ("input_blocks" if parts[0] == "down_blocks" else "output_blocks", n, rest)


def write_files(pipe):
    """Every form, for tiny-sd1 and tiny-sdxl. Returns what the goldens need of their contents."""
    os.makedirs(CONCEPTS, exist_ok=True)
    one, multi, bad = vectors(1, SD1), vectors(2, 3, SD1), vectors(3, 2, SD1)
    put("cat_toy.safetensors", {"<cat-toy>": one.half()})
    put("multi.bin", {"<multi>": multi})
    put("a1111.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.nn.Parameter(bad)}, "name": "bad-hands",
                     "step": 1500, "sd_checkpoint": "0badc0de", "sd_checkpoint_name": "tiny"})
    p = torch.nn.ParameterDict()
    p["*"] = torch.nn.Parameter(bad)
    put("compvis.pt", {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": p})
    put("kohya.safetensors", {"emb_params": bad.bfloat16()}, {"ss_sd_model_name": "tiny", "modelspec.title": "kohya"})
    put("bare.pt", bad)
    put("simo.safetensors", {"<s1>": one, "<s2>": multi[0]}, {"<s1>": "<embed>", "<s2>": "<embed>"})
    table = pipe.text_encoder.get_input_embeddings().weight
    same = pipe.tokenizer("the", add_special_tokens=False)["input_ids"]
    assert len(same) == 1
    put("same.safetensors", {"<same>": table[same[0]].half()})
    assert torch.equal(table[same[0]].half().float(), table[same[0]])
    g, l = vectors(5, 2, XL2), vectors(4, 2, XL1)
    put("pair.safetensors", {"clip_l": l, "clip_g": g})
    put("pair_1.safetensors", {"<pair>": l})
    put("pair_2.bin", {"<pair>": g})
    # Custom Diffusion: weights that replace, in its three forms
    new = OrderedDict((n, (m.weight + 0.4 * vectors(100 + i, *m.weight.shape) * m.weight.std()).half())
                      for i, (n, m) in enumerate(attn2(pipe.unet)))
    put("delta.bin", {"unet": {n + ".weight": w for n, w in new.items()}, "modifier_token": {"<new1>": one}})
    put("delta_ldm.ckpt", {"state_dict": dict({"model.diffusion_model.%s.weight" % ldm_name(n): w for n, w in new.items()},
                                              embed=torch.stack([one, multi[0]]))})
    put("custom_diffusion.safetensors", {n.replace(".attn2.to_", ".attn2.processor.to_") + "_custom_diffusion.weight": w for n, w in new.items()})
    put("new1.bin", {"<new1>": one})
    # ED-LoRA: a vector for each cross-attention layer, and factors that are added as they are
    layers = len(new) // 2
    words = {"<dog1>": vectors(200, layers, SD1), "<dog2>": vectors(201, layers, SD1)}
    unet, text = OrderedDict(), OrderedDict()
    for i, (n, m) in enumerate(attn2(pipe.unet)):
        unet[n + ".lora_down.weight"] = vectors(300 + i, 4, m.in_features).half() * 0.3
        unet[n + ".lora_up.weight"] = vectors(400 + i, m.out_features, 4).half() * 0.3
    for i, (n, m) in enumerate((n, m) for n, m in pipe.text_encoder.named_modules() if n.endswith(("q_proj", "v_proj"))):
        k = n if n.startswith("text_model") else "text_model." + n
        text[k + ".lora_down.weight"] = vectors(500 + i, 4, m.in_features).half() * 0.3
        text[k + ".lora_up.weight"] = vectors(600 + i, m.out_features, 4).half() * 0.3
    put("edlora.pth", {"params": {"new_concept_embedding": words, "text_encoder": text, "unet": unet}})
    put("layers.safetensors", {"new_concept_embedding." + k: v for k, v in words.items()})
    # a LoRA with its word, as kohya's and other trainers bundle them
    lora = {}
    for i, (n, m) in enumerate(attn2(pipe.unet, ("to_k",))):
        k = "lora_unet_" + n.replace(".", "_")
        lora[k + ".lora_down.weight"] = vectors(700 + i, 2, m.in_features).half()
        lora[k + ".lora_up.weight"] = vectors(800 + i, m.out_features, 2).half()
        lora[k + ".alpha"] = torch.tensor(1.0)
    lora["bundle_emb.ohwx.string_to_param.*"] = bad
    put("bundle.safetensors", lora)
    return {"new": new, "words": words, "unet": unet, "text": text, "layers": layers}


def groups(tok, *names):
    """Ids that a prompt's one id for a word of several vectors stands for."""
    out = {}
    for name in names:
        ids, i = [tok.convert_tokens_to_ids(name)], 1
        while "%s_%d" % (name, i) in tok.get_vocab():
            ids.append(tok.convert_tokens_to_ids("%s_%d" % (name, i)))
            i += 1
        out[ids[0]] = ids
    return out


def plain(pipe, prompt, negative, xl):
    out = pipe.encode_prompt(prompt=prompt, negative_prompt=negative, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    if xl:
        return {"text": out[0][0], "negative": out[1][0], "pooled": out[2], "negative_pooled": out[3]}
    return {"text": out[0][0], "negative": out[1][0]}


def textual_inversion(tensors, cases):
    pipe = pipeline(os.path.join(MODELS, "tiny-sd1"))
    files = [("cat_toy.safetensors", "<cat-toy>"), ("multi.bin", "<multi>"), ("a1111.pt", "bad-hands")]
    for f, name in files:
        pipe.load_textual_inversion(CONCEPTS, weight_name=f, token=name)
    # (a word of several vectors in capitals keeps only its first in diffusers, which replaces the text as it was written)
    prompts = [("one", "a photo of a <cat-toy> on the mat", ""), ("multi", "a <multi>, and <cat-toy>", "bad-hands, ugly"),
               ("touching", "(<multi>)<cat-toy><multi> bad-hands.", "a bad-hands-<multi>"), ("capitals", "A <CAT-TOY> on the <Cat-Toy>", "")]
    for name, prompt, negative in prompts:
        r = plain(pipe, prompt, negative, False)
        exact = in_f64(lambda: plain(pipe, prompt, negative, False), pipe.text_encoder)
        for k, v in r.items():
            tensors["%s/%s" % (name, k)] = v
        cases.append({"name": name, "model": "tiny-sd1", "files": [f for f, _ in files], "prompt": prompt, "negative": negative,
                      "flags": [], "f64_rel": float("%.2g" % max_rel(r["text"], exact["text"]))})
    words = groups(pipe.tokenizer, *(n for _, n in files))
    long = "a <multi> in the sun, " * 9 + "(<cat-toy>:1.3) and [bad-hands] BREAK <multi>"
    for name, prompt, flags, kw in [("weights", "a (<multi>:1.4) [<cat-toy>]", ["weights"], {}), ("long", long, ["weights"], {}),
                                    ("long_comma", long, ["weights", "comma"], {"comma": True})]:
        r = encode(pipe, prompt, words=(words, {}), **kw)
        tensors[name + "/text"] = r["text"]
        cases.append({"name": name, "model": "tiny-sd1", "files": [f for f, _ in files], "prompt": prompt, "flags": flags,
                      "chunks": r["chunks"], "tokens": r["tokens"]})


def pairs(tensors, cases):
    pipe = pipeline(os.path.join(MODELS, "tiny-sdxl"))
    pipe.load_textual_inversion(CONCEPTS, weight_name="pair_1.safetensors", tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder)
    pipe.load_textual_inversion(CONCEPTS, weight_name="pair_2.bin", tokenizer=pipe.tokenizer_2, text_encoder=pipe.text_encoder_2)
    prompt, negative = "a photo of <pair> on the mat", "<pair>, <pair>"
    r = plain(pipe, prompt, negative, True)
    exact = in_f64(lambda: plain(pipe, prompt, negative, True), pipe.text_encoder, pipe.text_encoder_2)
    for k, v in r.items():
        tensors["pair/" + k] = v
    cases.append({"name": "pair", "model": "tiny-sdxl", "files": ["pair_1.safetensors", "pair_2.bin"], "prompt": prompt, "negative": negative,
                  "flags": [], "f64_rel": float("%.2g" % max_rel(r["text"], exact["text"]))})
    w = (groups(pipe.tokenizer, "<pair>"), groups(pipe.tokenizer_2, "<pair>"))
    r = encode(pipe, "a (<pair>:1.3) cat", words=w)
    tensors["pair_weights/text"], tensors["pair_weights/pooled"] = r["text"], r["pooled"]
    cases.append({"name": "pair_weights", "model": "tiny-sdxl", "files": ["pair_1.safetensors", "pair_2.bin"], "prompt": "a (<pair>:1.3) cat",
                  "flags": ["weights"], "chunks": 1, "tokens": r["tokens"]})


def predict(pipe, texts):
    """The UNet's prediction where each cross-attention sees its own text; texts (77, d) or a list of them."""
    x, t = noise(900, 1, 4, 8, 8).to(pipe.unet.dtype), 501.0
    hooks = []
    if isinstance(texts, list):
        seen = sorted({n.rsplit(".", 1)[0] for n, _ in attn2(pipe.unet)}, key=[n.rsplit(".", 1)[0] for n, _ in attn2(pipe.unet)].index)
        mods = dict(pipe.unet.named_modules())
        for j, n in enumerate(seen):
            def swap(module, args, kw, mine=texts[j]):
                kw["encoder_hidden_states"] = mine[None].to(x.dtype)
                return args, kw
            hooks.append(mods[n].register_forward_pre_hook(swap, with_kwargs=True))
        texts = texts[0]
    out = pipe.unet(x, t, texts[None].to(x.dtype)).sample
    for h in hooks:
        h.remove()
    return out


def layered(pipe, prompt, words, layers):
    """One encoding for each layer, the words' rows put in turn behind the table."""
    tok, net = pipe.tokenizer, pipe.text_encoder
    tok.add_tokens(list(words))
    net.resize_token_embeddings(len(tok))
    ids = wrap(tok, chunks(tok, pieces(prompt), False)[0])[0]
    out = []
    for j in range(layers):
        for name, v in words.items():
            net.get_input_embeddings().weight.data[tok.convert_tokens_to_ids(name)] = v[j].to(net.dtype)
        out.append(hidden(net, ids, 0, False)[0])
    return out


def whole_files(made, tensors, cases):
    """Custom Diffusion and ED-LoRA with their adapters, at full weight."""
    pipe = pipeline(os.path.join(MODELS, "tiny-sd1"))
    pipe.load_textual_inversion(CONCEPTS, weight_name="new1.bin")
    text = plain(pipe, "a photo of a <new1> cat", "", False)["text"]
    base = {n: m.weight.data.clone() for n, m in attn2(pipe.unet)}
    for n, m in attn2(pipe.unet):
        m.weight.data = made["new"][n].float()
    tensors["custom/text"], tensors["custom/out"] = text, predict(pipe, text)
    for n, m in attn2(pipe.unet):
        m.weight.data = base[n] + 0.5 * (made["new"][n].float() - base[n])
    tensors["custom/half"] = predict(pipe, text)
    cases.append({"name": "custom", "model": "tiny-sd1", "files": ["delta.bin", "delta_ldm.ckpt", "custom_diffusion.safetensors"],
                  "prompt": "a photo of a <new1> cat", "flags": []})

    pipe = pipeline(os.path.join(MODELS, "tiny-sd1"))
    prompt = "a <dog1> <dog2> in the sun"
    tensors["layers/text"] = torch.stack(layered(pipe, prompt, made["words"], made["layers"]))
    cases.append({"name": "layers", "model": "tiny-sd1", "files": ["layers.safetensors"], "prompt": prompt, "flags": [], "layers": made["layers"]})
    for net, part in ((pipe.unet, made["unet"]), (pipe.text_encoder, made["text"])):
        mods = dict(net.named_modules())
        for k in (k for k in part if k.endswith("lora_down.weight")):
            n = k.removesuffix(".lora_down.weight")
            m = mods[n] if n in mods else mods[n.removeprefix("text_model.")]
            m.weight.data = m.weight.data + part[n + ".lora_up.weight"].float() @ part[k].float()
    texts = layered(pipe, prompt, made["words"], made["layers"])
    tensors["edlora/text"], tensors["edlora/out"] = torch.stack(texts), predict(pipe, texts)
    cases.append({"name": "edlora", "model": "tiny-sd1", "files": ["edlora.pth"], "prompt": prompt, "flags": [], "layers": made["layers"]})


def main():
    tensors, cases = {}, []
    made = write_files(pipeline(os.path.join(MODELS, "tiny-sd1")))
    textual_inversion(tensors, cases)
    pairs(tensors, cases)
    whole_files(made, tensors, cases)
    store("words.safetensors", tensors)
    write_json("words.json", {"versions": versions(), "cases": cases})


if __name__ == "__main__":
    main()
