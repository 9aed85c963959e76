"""Trains the CLIP byte-pair tokenizer of the bundled model on captions.

    python train_tokenizer.py WORKDIR

Writes WORKDIR/tokenizer (vocab.json, merges.txt, tokenizer_config.json,
special_tokens_map.json) in the layout of SD1.x.
"""
import collections
import json
import os
import random
import re
import sys

import world

MERGES = 320
SEED = 3
# Words that base captions lack but prompts for the adapters and everyday prompts use.
EXTRA = ("monster rocket zib vok hatched hatching mosaic tiles style art photo drawing painting of in the and "
         "with eyes horns one-eyed grey pink brown gold beautiful blurry sharp bright dark light sky grass "
         "beach water stars moon sun house tree cat dog hand drawn made by quality picture simple two three").split()


def bytes_to_unicode():
    """CLIP's reversible map of bytes to printable characters."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, n = {b: chr(b) for b in printable}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + n)
            n += 1
    order = printable + [b for b in range(256) if b not in printable]
    return [table[b] for b in order], table


def main():
    rng = random.Random(SEED)
    symbols, table = bytes_to_unicode()
    words = collections.Counter()
    pattern = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")
    for _ in range(20000):
        words.update(pattern.findall(world.caption(world.random_spec(rng), rng).lower()))
    words = collections.Counter({w: n for w, n in words.items() if n > 40})
    for w in EXTRA:
        for piece in pattern.findall(w):
            words[piece] += 60
    split = {w: [table[b] for b in w.encode()] for w in words}
    for s in split.values():
        s[-1] += "</w>"
    merges = []
    while len(merges) < MERGES:
        pairs = collections.Counter()
        for w, s in split.items():
            for p in zip(s, s[1:]):
                pairs[p] += words[w]
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for w, s in split.items():
            out, i = [], 0
            while i < len(s):
                if i + 1 < len(s) and (s[i], s[i + 1]) == best:
                    out.append(s[i] + s[i + 1])
                    i += 2
                else:
                    out.append(s[i])
                    i += 1
            split[w] = out
    vocab = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(vocab)) == len(vocab)
    out = os.path.join(sys.argv[1], "tokenizer")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({v: i for i, v in enumerate(vocab)}, f, ensure_ascii=True)
    with open(os.path.join(out, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join("%s %s\n" % m for m in merges))

    def special(text):
        return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    start, end = special("<|startoftext|>"), special("<|endoftext|>")
    with open(os.path.join(out, "special_tokens_map.json"), "w") as f:
        json.dump({"bos_token": start, "eos_token": end, "pad_token": "<|endoftext|>", "unk_token": end}, f, indent=2)
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
        json.dump({"add_prefix_space": False, "bos_token": dict(__type="AddedToken", **start),
                   "do_lower_case": True, "eos_token": dict(__type="AddedToken", **end), "errors": "replace",
                   "model_max_length": 77, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer",
                   "unk_token": dict(__type="AddedToken", **end)}, f, indent=2)
    print("vocabulary", len(vocab), "merges", len(merges), "distinct words", len(words))


if __name__ == "__main__":
    main()
