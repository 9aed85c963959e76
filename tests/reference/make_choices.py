"""Goldens of K-LoRA with more than two adapters, by energy, switched at a fixed call, and of balanced weights, on tiny-sd1.

    python make_choices.py         writes golden/choices.json, golden/choices.safetensors
"""
import os

import compose
from common import ADAPTERS, MODELS, rel_path, store, versions, write_json
from make_compose import A, book, entry


def cases(b):
    C = lambda name, weight=1.0: A(name, weight, role="content")
    S = lambda name, weight=1.0: A(name, weight, role="style")
    two, four = [C("content"), S("style")], [C("content"), S("style"), S("third"), C("sd1_kohya_conv")]
    b.add("many_four", "klora", four)
    b.add("many_four_s", "klora", four, {"pattern": "s", "gamma": "paper", "granularity": "step"})
    b.add("many_turned", "klora", [S("third"), C("sd1_kohya_conv", 0.8), S("style", 0.7), C("content")], {"pattern": "s"})
    b.add("many_styles", "klora", [S("style"), C("content"), S("third")], {"gamma": "none"}, run=False)
    b.add("energy_two", "klora", two, {"pattern": "s", "score": "energy"})
    b.add("energy_four", "klora", four, {"score": "energy"})
    b.add("energy_paper", "klora", two, {"score": "energy", "gamma": "paper"}, run=False)
    b.add("fixed", "klora", two, {"pattern": "fixed"})
    b.add("fixed_share", "klora", two[::-1], {"pattern": "fixed", "share": 0.6}, run=False)
    b.add("balance_merge", "merge", [A("content", 0.8), A("style", 0.6), A("sd1_kohya_conv", -0.5)], balance={})
    b.add("balance_paper", "merge", [A("content", 0.8), A("style", 0.6)], balance={"gamma": "paper", "reference": 1})
    b.add("balance_composite", "composite", [A("content"), A("style", 0.5)], balance={"reference": 1})
    b.add("balance_klora", "klora", [A("content"), A("style", 0.5)], {"pattern": "s"}, balance={}, run=False)


def main():
    folder = os.path.join(MODELS, "tiny-sd1")
    paths = {n: os.path.join(ADAPTERS, n + ("" if n == "third" else ".safetensors")) for n in ("content", "style", "third", "sd1_kohya_conv")}
    b = book(folder, paths, (1, 4, 12, 16), 80, "a photo of a red cat on the mat", "", 8, 3.0)
    cases(b)
    for c in b.cases:
        if "balance" in c:
            ads = [compose.Adapter(a["name"], b.entries[a["name"]]) for a in c["adapters"]]
            c["factors"] = compose.balanced(ads, **c["balance"])
    store("choices.safetensors", b.t)
    write_json("choices.json", {"versions": versions(), "models": [entry(b, "models/tiny-sd1", {n: rel_path(p) for n, p in paths.items()})]})


if __name__ == "__main__":
    main()
