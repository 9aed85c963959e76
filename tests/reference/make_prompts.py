"""Weighted, long and shortened prompts: what prompts.py makes of them on the tiny models' text encoders.

    python make_prompts.py       golden/prompts.json, golden/prompts.safetensors

Prompts without weights that fit one chunk go through diffusers' own encode_prompt with its clip_skip, which must agree.
"""
import os

import common
import torch
from common import MODELS, in_f64, max_rel, pipeline, store, versions, write_json
from prompts import encode, pieces

PARSE = [
    "(calm)(sea)", "red ((fox:1.2) [in] snow (moon:0.5), owl", "normal text", "an (important) word", "(unbalanced",
    r"\(literal\]", "(unnecessary)(parens)", "", "()", "[]", "((()))", "a [b] (c)", "[[deep]] (((high)))",
    "( x :1.5 ) y", "(x: 1.3 )", "(x:1.3)", "(x:.5)", "(x:2.)", "(x:+1.25)", "(x:-1)", "(x:0)", "[x:1.3]", "[(x:1.3)]", "x:1.3)", "a:b (c:d:1.2)",
    "stray) bracket] here", r"back\slash and \\ double \( \) \[", "(over[lap)ping]", "(never [closed at all",
    "one BREAK two", "BREAK", "BREAK a", "a BREAK", "a BREAK BREAK b", "BREAKFAST unBREAKable _BREAK BREAK_ BREAK1", "(x BREAK y:1.2) z",
    "a,BREAK,b", "caf\u00e9BREAK \u00e9 BREAK", "(\u65e5\u672c:1.4)\u8a9e", "(a:1.1) (b) (c:1.1)", "trailing backslash\\", "(a\n:\t1.5\n)", "::(:1)::",
]
LONG = "a photo of a cat, sitting on the mat, in the sun, " * 4
CASES = [
    ("plain", "a photo of a red cat on the mat", {}),
    ("literal", "a (photo:1.4) of a [red] cat", {}),
    ("skip1", "a photo of a red cat on the mat", {"skip": 1}),
    ("skip2", "a photo of a red cat on the mat", {"skip": 2}),
    ("up", "a photo of a (red:1.4) cat on the ((mat))", {"weights": True}),
    ("down", "a (photo) of a [red] cat [[on the mat]] (x:-0.3)", {"weights": True}),
    ("no_mean", "a photo of a (red:1.4) cat on the ((mat))", {"weights": True, "mode": "no_mean"}),
    ("empty", "a photo of a (red:1.4) cat on [the mat]", {"weights": True, "mode": "from_empty"}),
    ("zero", "a (red:0) cat", {"weights": True, "mode": "from_empty"}),
    ("long", LONG, {}),
    ("long_comma", LONG, {"comma": True}),
    ("long_weights", LONG + "(in the (rain:1.5) [and snow])" + LONG, {"weights": True, "comma": True}),
    ("long_empty", "(" + LONG + ":1.2) in the rain", {"weights": True, "mode": "from_empty", "skip": 1}),
    ("break", "a cat BREAK (a dog:1.3) in the sun BREAK BREAK rain", {"weights": True}),
    ("breaks", "BREAK a cat BREAK", {"weights": True}),
]
FLAGS = {"mean": [], "no_mean": ["no_mean"], "from_empty": ["from_empty"]}


def diffusers_says(pipe, prompt, skip, xl):
    if not hasattr(pipe.text_encoder, "text_model"):    # transformers 5 dropped the name, diffusers 0.42's clip_skip still asks for it
        type(pipe.text_encoder).text_model = property(lambda self: self)
    kw = dict(prompt=prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=skip or None)
    out = pipe.encode_prompt(**kw)
    return (out[0][0], out[2]) if xl else (out[0][0], None)


def main():
    tensors, models = {}, []
    for name in ("tiny-sd1", "tiny-sd2", "tiny-sdxl"):
        pipe = pipeline(os.path.join(MODELS, name))
        xl = hasattr(pipe, "text_encoder_2")
        cases = []
        for case, prompt, opts in CASES:
            opts = dict(opts)
            skip = opts.get("skip", 0)
            if skip > (1 if xl else 2):
                continue
            opts.setdefault("weights", False)
            run = lambda: encode(pipe, prompt, **opts)
            nets = [pipe.text_encoder] + ([pipe.text_encoder_2] if xl else [])
            r, exact = run(), in_f64(run, *nets)
            if not opts["weights"] and r["chunks"] == 1:
                text, pooled = diffusers_says(pipe, prompt, skip, xl)
                assert max_rel(text, r["text"]) < 1e-6, (name, case, max_rel(text, r["text"]))
                assert pooled is None or max_rel(pooled, r["pooled"]) < 1e-6
            p = "%s/%s/" % (name, case)
            tensors[p + "text"] = r["text"]
            for i, (ids, w) in enumerate(zip(r["ids"], r["weights"])):
                tensors[p + "ids" + ("_2" if i else "")] = ids
                tensors[p + "weights" + ("_2" if i else "")] = w
            if xl:
                tensors[p + "pooled"] = r["pooled"]
            flags = (["weights"] if opts["weights"] else []) + (["comma"] if opts.get("comma") else []) + FLAGS[opts.get("mode", "mean")]
            cases.append({"name": case, "prompt": prompt, "flags": flags, "clip_skip": skip, "chunks": r["chunks"], "tokens": r["tokens"],
                          "f64_rel": float("%.2g" % max_rel(r["text"], exact["text"]))})
        models.append({"name": name, "cases": cases})
    parse = [{"prompt": t, "pieces": [["BREAK"] if text is None else [text, w] for text, w in pieces(t)]} for t in PARSE]
    store("prompts.safetensors", tensors)
    write_json("prompts.json", {"versions": versions(), "parse": parse, "models": models})


if __name__ == "__main__":
    main()
