"""Tokenizer folders as older and newer programs leave them, and the ids that transformers gives: golden/vocabularies.json.

Each case is tests/data/models/tiny-sd1/tokenizer with some files changed: `json` has keys to set in a file, `files`
whole texts, `mark` the files that get a byte order mark. transformers reads no byte order mark: for those cases it reads
the folder without.
"""
import json
import os
import shutil
import tempfile

from transformers import CLIPTokenizer

from common import MODELS, versions, write_json

SOURCE = os.path.join(MODELS, "tiny-sd1", "tokenizer")
FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
TEXTS = ["a red <cat-toy> circle", "<Dog> <DOG> <dog>s", "<CAT-TOY><cat-toy>", "no such token"]


def text(name):
    with open(os.path.join(SOURCE, name), encoding="utf-8") as f:
        return f.read()


def special(content, normalized=False):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False,
            "special": not normalized}


def cases():
    vocab = json.loads(text("vocab.json"))
    n, bos, eos = len(vocab), vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    decoder = {str(bos): special("<|startoftext|>"), str(eos): special("<|endoftext|>")}
    added = json.dumps({"<cat-toy>": n, "<Dog>": n + 1})
    yield "plain", {}, {}, []
    yield "length", {"tokenizer_config.json": {"model_max_length": 1000000000000000019884624838656}}, {}, []
    yield "marks", {}, {}, list(FILES)
    yield "crlf", {}, {"merges.txt": text("merges.txt").replace("\n", "\r\n")}, []
    yield "added_tokens.json", {}, {"added_tokens.json": added}, []
    yield "added_tokens.json is old", {"tokenizer_config.json": {"added_tokens_decoder": decoder}}, {"added_tokens.json": added}, []
    more = dict(decoder)
    more[str(n)] = special("<cat-toy>", True)
    more[str(n + 1)] = special("<Dog>", True)
    yield "added_tokens_decoder", {"tokenizer_config.json": {"added_tokens_decoder": more}}, {}, []


def main():
    out = []
    for name, changes, files, mark in cases():
        with tempfile.TemporaryDirectory() as folder:
            for f in FILES:
                if os.path.exists(os.path.join(SOURCE, f)):
                    shutil.copy(os.path.join(SOURCE, f), folder)
            for f, body in files.items():
                with open(os.path.join(folder, f), "w", encoding="utf-8", newline="") as o:
                    o.write(body)
            for f, keys in changes.items():
                path = os.path.join(folder, f)
                with open(path, encoding="utf-8") as i:
                    body = json.load(i)
                body.update(keys)
                with open(path, "w", encoding="utf-8") as o:
                    json.dump(body, o)
                files = dict(files, **{f: json.dumps(body)})
            tok = CLIPTokenizer.from_pretrained(folder)
            out.append({"name": name, "files": files, "mark": mark, "size": len(tok),
                        "cases": [{"text": t, "ids": tok(t, add_special_tokens=False)["input_ids"]} for t in TEXTS]})
    write_json("vocabularies.json", {"versions": versions(), "folders": out})


if __name__ == "__main__":
    main()
