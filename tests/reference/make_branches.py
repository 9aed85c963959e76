"""Goldens of methods that go further than turns and means, on tiny-sd1: turns in any order and length, a text for each
adapter, Composite with features kept from step to step, LoRAtorio's weights of patches, weights of frequency bands.

    python make_branches.py        writes golden/branches.json, golden/branches.safetensors
"""
import os

from common import ADAPTERS, MODELS, rel_path, store, versions, write_json
from make_compose import A, book, entry


def cases(b):
    two, three = [A("content"), A("style", 0.8)], [A("content", 0.8), A("style", 0.8), A("third", 0.8)]
    b.add("switch_order", "switch", three, {"period": 1, "order": [2, 0, 2, 1]})
    b.add("switch_shares", "switch", [A("content", share=0.9), A("style", share=0.35), A("third", share=0.5)],
          {"period": 2, "shares": True, "last": 2, "last_adapter": 1})
    b.add("switch_each", "switch", two, {"period": 2}, text="each")
    b.add("composite_each", "composite", two, text="each")
    b.add("composite_cached", "composite", two, {"cached": True})
    b.add("composite_cached_three", "composite", [A("content", share=0.7), A("style"), A("third", 0.8)], {"cached": True, "c1": 3, "c2": 2})
    b.add("loratorio", "loratorio", two, {})
    b.add("loratorio_three", "loratorio", [A("content", share=0.7), A("style"), A("third", 0.8)],
          {"patch": 5, "temperature": 0.02, "keep": 2, "base": 0.25}, keep=True)
    b.add("loratorio_unguided", "loratorio", two, {"patch": 3}, guidance=1.0)
    b.add("subbands", "subbands", two, {})
    b.add("subbands_three", "subbands", [A("content", share=0.7), A("style"), A("third", 0.8)],
          {"levels": 3, "sharpness": 2.0, "keep": 2}, keep=True)
    b.add("subbands_unguided", "subbands", two, {"levels": 5}, guidance=1.0)


def main():
    folder = os.path.join(MODELS, "tiny-sd1")
    paths = {n: os.path.join(ADAPTERS, n + ("" if n == "third" else ".safetensors")) for n in ("content", "style", "third")}
    b = book(folder, paths, (1, 4, 12, 16), 83, "a photo of a red cat on the mat", "", 8, 3.0)
    cases(b)
    store("branches.safetensors", b.t)
    write_json("branches.json", {"versions": versions(), "models": [entry(b, "models/tiny-sd1", {n: rel_path(p) for n, p in paths.items()})]})


if __name__ == "__main__":
    main()
