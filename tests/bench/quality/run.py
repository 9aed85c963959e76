"""What each way of composing does to subject and style, in numbers, on the bundled world.

    make programs && python tests/bench/quality/run.py [OPTIONS]

    --build DIR       where weft lies and where results go (build): DIR/examples/weft, DIR/quality
    --only A,B        these methods only (names of the first column of --list)
    --quick           one prompt, two seeds: does it run?
    --jobs N          pictures of so many methods at once, each with one thread (2)
    --list            say the methods, and which cannot run and why
    --docs            write docs/quality.png, and the tables into docs/quality.md

Each method draws every pair of subject and style, with every prompt and seed; the judge (judge.py) says what it sees. A
picture's subject and style scores are the probabilities that the judge gives to what was asked for; "both" is their
harmonic mean, picture by picture, so that half of the pictures with the subject and half with the style is not both.
"Ground" is the share of pictures whose ground has the prompt's colour. All methods draw the same prompts from the same
noise, so a method is compared with the reference, the exact merge at 1 and 1, seed by seed: a difference within the spread
of these differences (two-sided, 95 %, Student's t over the seeds) is called none.

Pictures are kept in DIR/quality/pictures under a hash of their command line and of the files it reads: a second run draws
what is missing. Results: DIR/quality/results.jsonl, table.md, sheet.png, doubts.png. Needs numpy, Pillow, torch, safetensors.
"""
import argparse
import concurrent.futures
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import threading

import numpy as np
from PIL import Image, ImageDraw

import judge as judges
import methods

ROOT = judges.ROOT
MODEL = os.path.relpath(judges.MODEL)
T95 = [0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26]     # Student's t by degrees of freedom


# ---------------------------------------------------------------------------------------------------------- one drawing
def sha(path):
    """Of a file, or of all files of a folder."""
    h = hashlib.sha256()
    for d, _, names in sorted(os.walk(path)) if os.path.isdir(path) else [(os.path.dirname(path), [], [os.path.basename(path)])]:
        for n in sorted(names):
            with open(os.path.join(d, n), "rb") as f:
                h.update(f.read())
    return h.hexdigest()


class Drawer:
    def __init__(self, build, seeds):
        self.weft = os.path.join(build, "examples", "weft")
        self.out = os.path.join(build, "quality")
        self.seeds, self.hashes, self.making = seeds, {}, threading.Lock()
        for d in ("pictures", "adapters"):
            os.makedirs(os.path.join(self.out, d), exist_ok=True)
        self.model = sha(MODEL)

    def content(self, args):
        """The arguments, a file in them (before a colon or not) as its content."""
        text = []
        for a in args:
            path = re.match(r"(.*?)(:[^/]*)?$", a).group(1)
            if os.path.sep in path and os.path.exists(path):
                if path not in self.hashes:
                    self.hashes[path] = sha(path)
                a = self.hashes[path] + a[len(path):]
            text.append(a)
        return "\0".join([self.model] + text)

    def tool(self, args):
        r = subprocess.run(["nice", "-n", "5", self.weft] + args, capture_output=True, text=True)
        if r.returncode != 0:
            raise SystemExit("quality: weft %s: %s" % (" ".join(args), r.stderr.strip()))
        return r.stdout

    def made(self, args):
        """The path of an adapter that `weft merge` or `weft fuse` makes of others, made if it is not there."""
        path = os.path.join(self.out, "adapters", hashlib.sha256(self.content(args).encode()).hexdigest()[:20] + ".safetensors")
        with self.making:
            if not os.path.exists(path):
                new = path[:-len(".safetensors")] + "-new.safetensors"
                self.tool(args + ["-q", "-o", new])
                os.replace(new, path)
        return path

    def pictures(self, prompt, options, model=MODEL, seeds=None):
        """The pictures of all seeds, uint8 (seeds,h,w,3)."""
        seeds = seeds or self.seeds
        args = [model, "-p", prompt, "--seed", str(seeds[0]), "--batch", str(len(seeds)), "-s", "20", "-g", "5"] + options
        key = hashlib.sha256(self.content(args).encode()).hexdigest()[:20]
        path = os.path.join(self.out, "pictures", key + ".npy")
        if not os.path.exists(path):
            folder = path + ".d"
            os.makedirs(folder, exist_ok=True)
            self.tool(["generate"] + args + ["--threads", "1", "-q", "--no-parameters", "-o", os.path.join(folder, "p.png")])
            names = ["p-%d.png" % (i + 1) for i in range(len(seeds))] if len(seeds) > 1 else ["p.png"]
            x = np.stack([np.asarray(Image.open(os.path.join(folder, n)).convert("RGB")) for n in names])
            for n in names:
                os.remove(os.path.join(folder, n))
            os.rmdir(folder)
            with open(path + ".new", "wb") as f:
                np.save(f, x)
            os.replace(path + ".new", path)
        return np.load(path)

    def cost(self, options, model=MODEL):
        """Evaluations of a picture, and its operations in those of the base model."""
        def sums(o):
            d = json.loads(self.tool(["explain", model, "-s", "20", "-g", "5", "--json"] + o))
            return sum(c["evaluations"] for c in d["calls"]), sum(c["flops"] for c in d["calls"])
        if not hasattr(self, "base"):
            self.base = sums([])[1]
        size = 2 if "128x64" in options else 1
        n, flops = sums(options)
        return n, flops / self.base / size


# --------------------------------------------------------------------------------------------------------------- scores
def harmonic(a, b):
    return 2 * a * b / np.maximum(a + b, 1e-9)


def mean_and_error(x):
    """x has a column for each seed: the mean, and its standard error over the seeds."""
    s = x.reshape(-1, x.shape[-1]).mean(0)
    return float(s.mean()), float(s.std(ddof=1) / math.sqrt(len(s))) if len(s) > 1 else float("nan")


def against(x, ref):
    """The difference to the reference, seed by seed: (mean, what of it the seeds' spread explains)."""
    d = (x - ref).reshape(-1, x.shape[-1]).mean(0)
    n = len(d)
    if n < 2:
        return float(d.mean()), float("inf")
    return float(d.mean()), float(T95[min(n - 1, len(T95) - 1)] * d.std(ddof=1) / math.sqrt(n))


def verdict(x, ref):
    d, spread = against(x, ref)
    return "none" if abs(d) <= spread else "%+.2f" % d


def run_pairs(drawer, judge, todo, pairs, grounds, pool):
    """{method: {score: array (pairs, prompts, seeds)}}, with costs."""
    res, work = {}, {}
    for m in todo:
        for i, pair in enumerate(pairs):
            for j, ground in enumerate(grounds):
                def draw(m=m, pair=pair, ground=ground):
                    options, model = m.options(drawer, pair)
                    return drawer.pictures(m.prompt(pair, ground), options, model or MODEL)
                work[m.name, i, j] = pool.submit(draw)
    for m in todo:
        x = np.stack([np.stack([work[m.name, i, j].result() for j in range(len(grounds))]) for i in range(len(pairs))])
        p = judge(x.reshape(-1, 64, 64, 3))
        p = {k: v.reshape(x.shape[:3] + (-1,)) for k, v in p.items()}
        subject = np.stack([p["subject"][i, ..., judges.SUBJECTS.index(pair[0])] for i, pair in enumerate(pairs)])
        style = np.stack([p["style"][i, ..., judges.STYLES.index(pair[1])] for i, pair in enumerate(pairs)])
        right = np.stack([p["ground"][:, j].argmax(-1) == judges.GROUNDS.index(g) for j, g in enumerate(grounds)], 1)
        options, model = m.options(drawer, pairs[0])
        cost = drawer.cost(options, model or MODEL)
        res[m.name] = dict(subject=subject, style=style, both=harmonic(subject, style), ground=right.astype(float), cost=cost,
                           pictures=x)
        print("quality: %-22s subject %.2f style %.2f both %.2f ground %.2f, %d evaluations" % (
            m.name, subject.mean(), style.mean(), res[m.name]["both"].mean(), right.mean(), cost[0]), flush=True)
    return res


def run_regions(drawer, judge, todo, grounds, pool):
    """Two subjects, each with its half of a wide image."""
    res, work = {}, {(m.name, j): pool.submit(lambda m=m, g=g: drawer.pictures(m.prompt(None, g), m.options(drawer, g)[0]))
                     for m in todo for j, g in enumerate(grounds)}
    for m in todo:
        x = np.stack([work[m.name, j].result() for j in range(len(grounds))])
        left, right = (judge(h.reshape(-1, 64, 64, 3)) for h in (x[..., :64, :], x[..., 64:, :]))
        at = lambda p, name: p["subject"][:, judges.SUBJECTS.index(name)].reshape(x.shape[:2])
        a, b = at(left, "monster"), at(right, "rocket")
        res[m.name] = dict(monster=a, rocket=b, both=harmonic(a, b), bleed=np.maximum(at(left, "rocket"), at(right, "monster")),
                           cost=drawer.cost(m.options(drawer, grounds[0])[0]), pictures=x)
        print("quality: %-22s monster %.2f rocket %.2f both %.2f bleed %.2f" % (
            m.name, a.mean(), b.mean(), res[m.name]["both"].mean(), res[m.name]["bleed"].mean()), flush=True)
    return res


def run_base(drawer, judge, pool, quick):
    """The base model by itself: is what the prompt names in the picture? By shape and size, and by place."""
    looks = [("red", "yellow"), ("blue", "white")]
    work, places = {}, {}
    for shape in judges.world.SHAPES:
        for size in judges.SIZES:
            for c, g in looks[:1] if quick else looks:
                text = "a %s%s %s on %s %s background" % ("" if size == "medium" else size + " ", c, shape, "an" if g == "orange" else "a", g)
                work[shape, size, c, g] = pool.submit(drawer.pictures, text, [], MODEL, drawer.seeds[:4])
    for place in judges.PLACES[1:]:
        for shape in ("circle", "star"):
            places[place, shape] = pool.submit(drawer.pictures, "a red %s at the %s on a yellow background" % (shape, place), [], MODEL, drawer.seeds[:4])
    rows = {}
    for (shape, size, c, g), f in work.items():
        p = judge(f.result())
        rows.setdefault((shape, size), []).append([
            p["subject"].argmax(1) == judges.SUBJECTS.index(shape), p["colour"].argmax(1) == judges.COLOURS.index(c),
            p["ground"].argmax(1) == judges.GROUNDS.index(g), p["size"].argmax(1) == judges.SIZES.index(size)])
    rows = {k: np.concatenate([np.stack(v) for v in vs], 1).mean(1) for k, vs in rows.items()}
    where = {}
    for (place, shape), f in places.items():
        where.setdefault(place, []).append(judge(f.result())["place"].argmax(1))
    where = {k: np.concatenate(v) for k, v in where.items()}
    return rows, where


# --------------------------------------------------------------------------------------------------------------- output
def pm(x):
    return "%.2f ± %.2f" % mean_and_error(x)


def tables(todo, res, regions, base, held_out, count):
    """Markdown, by name."""
    out = {}
    ref = res.get(methods.REFERENCE)
    lines = ["| method | subject | style | both | against the sum | ground | evaluations | work |",
             "| --- | --- | --- | --- | --- | --- | ---: | ---: |"]
    for m in todo:
        r = res.get(m.name)
        if r is None:
            continue
        v = "" if ref is None or m.name == methods.REFERENCE else verdict(r["both"], ref["both"])
        lines.append("| %s | %s | %s | %s | %s | %s | %d | %.2f |" % (
            m.title, pm(r["subject"]), pm(r["style"]), pm(r["both"]), v, pm(r["ground"]), r["cost"][0], r["cost"][1]))
    out["methods"] = "\n".join(lines)
    if res:
        pairs = ["%s, %s" % p for p in methods.PAIRS]
        lines = ["| method | " + " | ".join(pairs) + " |", "| --- |" + " --- |" * len(pairs)]
        for m in todo:
            if m.name in res:
                r = res[m.name]
                lines.append("| %s | %s |" % (m.title, " | ".join(
                    "%.2f / %.2f / **%.2f**" % (r["subject"][i].mean(), r["style"][i].mean(), r["both"][i].mean()) for i in range(len(pairs)))))
        out["pairs"] = "\n".join(lines)
    if regions:
        ref = regions[methods.REGION_REFERENCE] if methods.REGION_REFERENCE in regions else None
        lines = ["| method | monster at the left | rocket at the right | both | against the sum | bleed | evaluations | work |",
                 "| --- | --- | --- | --- | --- | --- | ---: | ---: |"]
        for m in methods.REGIONS:
            if m.name in regions:
                r = regions[m.name]
                v = "" if ref is None or m.name == methods.REGION_REFERENCE else verdict(r["both"], ref["both"])
                lines.append("| %s | %s | %s | %s | %s | %s | %d | %.2f |" % (
                    m.title, pm(r["monster"]), pm(r["rocket"]), pm(r["both"]), v, pm(r["bleed"]), r["cost"][0], r["cost"][1]))
        out["regions"] = "\n".join(lines)
    if base:
        rows, where = base
        lines = ["| shape | small | medium | large |", "| --- | ---: | ---: | ---: |"]
        for s in judges.world.SHAPES:
            lines.append("| %s | %s |" % (s, " | ".join("%.0f %%" % (100 * rows[s, z][0]) for z in judges.SIZES)))
        all_ = {z: np.mean([rows[s, z] for s in judges.world.SHAPES], 0) for z in judges.SIZES}
        for k, name in ((0, "all shapes"), (1, "colour right"), (2, "ground right"), (3, "size right")):
            lines.append("| %s | %s |" % (name, " | ".join("%.0f %%" % (100 * all_[z][k]) for z in judges.SIZES)))
        out["base"] = "\n".join(lines)
        lines = ["| asked for | drawn there | most often elsewhere |", "| --- | ---: | --- |"]
        for place, got in where.items():
            k = judges.PLACES.index(place)
            others = [judges.PLACES[g] for g in got if g != k]
            lines.append("| %s | %.0f %% | %s |" % (place, 100 * (got == k).mean(), max(set(others), key=others.count) if others else ""))
        out["places"] = "\n".join(lines)
    out["judge"] = "\n".join(["| head | right on held-out pictures |", "| --- | ---: |"] +
                             ["| %s | %.1f %% |" % (k, 100 * v) for k, v in held_out.items()])
    out["count"] = count
    return out


def sheet(todo, res, pairs, path, ground, seeds, scale=1, colours=None):
    """Rows methods, columns seeds, one block for each of the pairs."""
    shown = [m for m in todo if m.name in res]
    n, w, label, gap = 64 * scale, 64 * scale + 2, 190, 8
    im = Image.new("RGB", (label + sum(seeds * w + gap for _ in pairs), 16 + len(shown) * w), (250, 250, 250))
    d = ImageDraw.Draw(im)
    for b, pair in enumerate(pairs):
        d.text((label + b * (seeds * w + gap), 2), "%s, %s" % methods.PAIRS[pair], fill=(30, 30, 30))
    for i, m in enumerate(shown):
        d.text((4, 16 + i * w + n // 2 - 6), m.title.replace("**", "")[:31], fill=(30, 30, 30))
        for b, pair in enumerate(pairs):
            for s in range(seeds):
                x = Image.fromarray(res[m.name]["pictures"][pair, ground, s]).resize((n, n), Image.NEAREST)
                im.paste(x, (label + b * (seeds * w + gap) + s * w, 16 + i * w))
    if colours:
        im = im.quantize(colours, dither=Image.Dither.NONE)
    im.save(path, optimize=True)


def wide_sheet(regions, path, seeds):
    shown = [m for m in methods.REGIONS if m.name in regions]
    im = Image.new("RGB", (190 + seeds * 130, len(shown) * 66), (250, 250, 250))
    d = ImageDraw.Draw(im)
    for i, m in enumerate(shown):
        d.text((4, i * 66 + 26), m.title.replace("**", "")[:31], fill=(30, 30, 30))
        for s in range(seeds):
            im.paste(Image.fromarray(regions[m.name]["pictures"][0, s]), (190 + s * 130, i * 66))
    im.save(path, optimize=True)


def doubts(res, path):
    """Pictures in rising order of a score, with the score: where does the eye say otherwise?"""
    tiles = []
    for key in ("subject", "style"):
        for i in range(len(methods.PAIRS)):
            x = np.concatenate([r["pictures"][i].reshape(-1, 64, 64, 3) for r in res.values()])
            s = np.concatenate([r[key][i].reshape(-1) for r in res.values()])
            order = np.argsort(s)
            some = order[np.searchsorted(s[order], np.linspace(0.02, 0.98, 24)).clip(0, len(order) - 1)]
            tiles.append([(x[k], s[k]) for k in some])
    im = Image.new("RGB", (24 * 66, len(tiles) * 78), (250, 250, 250))
    d = ImageDraw.Draw(im)
    for r, row in enumerate(tiles):
        for c, (p, v) in enumerate(row):
            im.paste(Image.fromarray(p), (c * 66, r * 78))
            d.text((c * 66 + 20, r * 78 + 65), "%.2f" % v, fill=(30, 30, 30))
    im.save(path)


def write_docs(out):
    """Puts each table between its marks in docs/quality.md."""
    path = os.path.join(ROOT, "docs", "quality.md")
    text = open(path).read()
    for name, body in out.items():
        a, b = "<!-- %s -->\n" % name, "<!-- end -->"
        if a in text:
            i = text.index(a) + len(a)
            text = text[:i] + body + "\n" + text[text.index(b, i):]
    with open(path, "w") as f:
        f.write(text)


def main():
    p = argparse.ArgumentParser(add_help=True)
    p.add_argument("--build", default="build")
    p.add_argument("--only", default="")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--list", action="store_true")
    p.add_argument("--docs", action="store_true")
    o = p.parse_args()
    seeds = [1, 2] if o.quick else list(range(1, 9))
    grounds = methods.GROUNDS[:1] if o.quick else methods.GROUNDS
    drawer = Drawer(o.build, seeds)
    methods.trained_in(os.path.join(o.build, "quality", "trained"))
    names = [n for n in o.only.split(",") if n]
    known = [m.name for m in methods.METHODS + methods.REGIONS] + ["base-model"]
    for n in names:
        if n not in known:
            sys.exit("quality: no method %s; --list says them" % n)
    wanted = lambda m: not names or m.name in names
    todo, absent = [], []
    for m in filter(wanted, methods.METHODS):
        why = m.missing(drawer)
        (absent.append((m, why)) if why else todo.append(m))
    for m, why in absent:
        print("quality: %s is left out: %s" % (m.name, why))
    if o.list:
        for m in todo + methods.REGIONS:
            print("%-22s %s" % (m.name, m.title))
        return
    judge = judges.Judge()
    with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        res = run_pairs(drawer, judge, todo, methods.PAIRS, grounds, pool)
        regions = run_regions(drawer, judge, list(filter(wanted, methods.REGIONS)), grounds, pool)
        base = run_base(drawer, judge, pool, o.quick) if not names or "base-model" in names else None
    count = "%d pairs, %d prompts, %d seeds: %d pictures of each method." % (
        len(methods.PAIRS), len(grounds), len(seeds), len(methods.PAIRS) * len(grounds) * len(seeds))
    out = tables(todo, res, regions, base, judge.held_out, count)
    with open(os.path.join(drawer.out, "results.jsonl"), "w") as f:
        for name, r in list(res.items()) + list(regions.items()):
            line = dict(method=name, evaluations=r["cost"][0], work=round(r["cost"][1], 3))
            for k, v in r.items():
                if k not in ("cost", "pictures"):
                    line[k], line[k + "_error"] = (round(q, 4) for q in mean_and_error(v))
                    if v.ndim == 3:
                        line[k + "_of_pairs"] = [round(float(q), 4) for q in v.mean((1, 2))]
            f.write(json.dumps(line) + "\n")
        for m, why in absent:
            f.write(json.dumps(dict(method=m.name, absent=why)) + "\n")
    with open(os.path.join(drawer.out, "table.md"), "w") as f:
        f.write("\n\n".join(out.values()) + "\n")
    if res:
        g = min(1, len(grounds) - 1)
        sheet(todo, res, range(len(methods.PAIRS)), os.path.join(drawer.out, "sheet.png"), g, len(seeds))
        doubts(res, os.path.join(drawer.out, "doubts.png"))
    if regions:
        wide_sheet(regions, os.path.join(drawer.out, "regions.png"), len(seeds))
    print("\n" + "\n\n".join(out.values()))
    if o.docs:
        write_docs(out)
        sheet(todo, res, [0, 3], os.path.join(ROOT, "docs", "quality.png"), g, min(4, len(seeds)), colours=192)


if __name__ == "__main__":
    main()
