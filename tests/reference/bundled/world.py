"""The drawn world the bundled model is trained on: 64x64 RGB pictures with captions.

One shape with a colour, a size and a place, on a plain background or in a scene.
Also the pictures the adapters are trained on: two subjects the base model never
sees (a one-eyed monster, a rocket) and two styles (hatching, mosaic).

Everything is drawn at four times the size with PIL and reduced, so edges are
anti-aliased.  All randomness comes from the random.Random that is passed in.
"""
import math
import random

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
SS = 4
W = SIZE * SS

COLOURS = {
    "red": (218, 38, 42),
    "orange": (246, 140, 30),
    "yellow": (248, 222, 60),
    "green": (44, 156, 70),
    "blue": (40, 88, 208),
    "purple": (138, 58, 168),
    "white": (246, 246, 244),
    "black": (24, 24, 28),
}
SHAPES = ["circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond"]
SCENES = ["meadow", "night", "sea"]
SIZES = ["small", "large"]
POSITIONS = {
    "centre": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1),
    "top left": (-1, -1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (1, 1),
}


def jitter(c, rng, amount=7):
    return tuple(max(0, min(255, v + rng.randint(-amount, amount))) for v in c)


def mix(a, b, t):
    return tuple(int(round(x * (1 - t) + y * t)) for x, y in zip(a, b))


# ---------------------------------------------------------------- backgrounds
def draw_background(im, bg, rng):
    d = ImageDraw.Draw(im)
    kind, name = bg
    if kind == "plain":
        d.rectangle((0, 0, W, W), fill=jitter(COLOURS[name], rng))
    elif kind in ("stripes", "checks"):
        c = jitter(COLOURS[name], rng)
        e = jitter(mix(c, (128, 128, 128), 0.5) if name == "white" else mix(c, (255, 255, 255), 0.55), rng, 4)
        d.rectangle((0, 0, W, W), fill=e)
        p = 8 * SS
        if kind == "stripes":
            for x in range(0, W, 2 * p):
                d.rectangle((x, 0, x + p - 1, W), fill=c)
        else:
            for y in range(0, W, p):
                for x in range((y // p % 2) * p, W, 2 * p):
                    d.rectangle((x, y, x + p - 1, y + p - 1), fill=c)
    elif kind == "meadow":
        h = int((40 + rng.uniform(-2, 2)) * SS)
        d.rectangle((0, 0, W, h), fill=jitter((150, 205, 245), rng))
        d.rectangle((0, h, W, W), fill=jitter((110, 190, 80), rng))
        r = 7 * SS
        d.ellipse((W - 14 * SS - r, 9 * SS - r, W - 14 * SS + r, 9 * SS + r), fill=(252, 236, 130))
    elif kind == "night":
        d.rectangle((0, 0, W, W), fill=jitter((22, 26, 72), rng))
        for _ in range(14):
            x, y = rng.uniform(0, W), rng.uniform(0, W)
            r = rng.uniform(0.7, 1.3) * SS
            d.ellipse((x - r, y - r, x + r, y + r), fill=(240, 240, 215))
    elif kind == "sea":
        h = int((24 + rng.uniform(-2, 2)) * SS)
        d.rectangle((0, 0, W, h), fill=jitter((205, 228, 245), rng))
        d.rectangle((0, h, W, W), fill=jitter((50, 130, 185), rng))
        d.rectangle((0, W - 12 * SS, W, W), fill=jitter((235, 212, 150), rng))
    else:
        raise ValueError(kind)


# --------------------------------------------------------------------- shapes
def rotate(points, cx, cy, a):
    s, c = math.sin(a), math.cos(a)
    return [(cx + x * c - y * s, cy + x * s + y * c) for x, y in points]


def shape_points(shape, r):
    if shape == "square":
        k = 0.86 * r
        return [(-k, -k), (k, -k), (k, k), (-k, k)]
    if shape == "diamond":
        return [(0, -1.15 * r), (0.75 * r, 0), (0, 1.15 * r), (-0.75 * r, 0)]
    if shape == "triangle":
        return [(0, -1.05 * r), (1.05 * r, 0.8 * r), (-1.05 * r, 0.8 * r)]
    if shape == "star":
        pts = []
        for i in range(10):
            q = 1.12 * r if i % 2 == 0 else 0.46 * r
            a = math.pi * i / 5 - math.pi / 2
            pts.append((q * math.cos(a), q * math.sin(a)))
        return pts
    if shape == "cross":
        k, t = r, 0.34 * r
        return [(-t, -k), (t, -k), (t, -t), (k, -t), (k, t), (t, t), (t, k), (-t, k),
                (-t, t), (-k, t), (-k, -t), (-t, -t)]
    if shape == "heart":
        pts = []
        for i in range(48):
            a = 2 * math.pi * i / 48
            x = 16 * math.sin(a) ** 3
            y = -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a))
            pts.append((x * r / 15.5, (y - 1) * r / 15.5))
        return pts
    n = 64  # circle, ring
    return [(r * math.cos(2 * math.pi * i / n), r * math.sin(2 * math.pi * i / n)) for i in range(n)]


def shape_mask(shape, cx, cy, r, a):
    m = Image.new("L", (W, W), 0)
    d = ImageDraw.Draw(m)
    d.polygon(rotate(shape_points(shape, r), cx, cy, a), fill=255)
    if shape == "ring":
        q = 0.55 * r
        d.ellipse((cx - q, cy - q, cx + q, cy + q), fill=0)
    return m


# ------------------------------------------------------------------- subjects
def draw_monster(cx, cy, r, rng, body=(52, 188, 168), horn=(250, 205, 70), eyes=1, mouth=True):
    """A round one-eyed monster with two horns and two feet."""
    im = Image.new("RGBA", (W, W), (0, 0, 0, 0))
    d = ImageDraw.Draw(im)
    dark = mix(body, (0, 0, 0), 0.45)
    for s in (-1, 1):
        d.polygon([(cx + s * 0.35 * r, cy - 0.7 * r), (cx + s * 0.75 * r, cy - 0.55 * r),
                   (cx + s * 0.85 * r, cy - 1.3 * r)], fill=horn)
        d.ellipse((cx + s * 0.45 * r - 0.32 * r, cy + 0.72 * r, cx + s * 0.45 * r + 0.32 * r, cy + 1.12 * r), fill=dark)
    d.ellipse((cx - 0.95 * r, cy - 0.9 * r, cx + 0.95 * r, cy + 0.95 * r), fill=body)
    if eyes == 1:
        spots = [(cx, cy - 0.2 * r, 0.46 * r)]
    else:
        spots = [(cx - 0.35 * r, cy - 0.2 * r, 0.28 * r), (cx + 0.35 * r, cy - 0.2 * r, 0.28 * r)]
    for x, y, q in spots:
        d.ellipse((x - q, y - q, x + q, y + q), fill=(250, 250, 250))
        q *= 0.5
        d.ellipse((x - q, y - q, x + q, y + q), fill=(20, 20, 30))
    if mouth:
        d.rounded_rectangle((cx - 0.42 * r, cy + 0.43 * r, cx + 0.42 * r, cy + 0.63 * r), 0.1 * r, fill=(30, 20, 30))
    return im


def draw_rocket(cx, cy, r, rng, body=(226, 228, 236), trim=(206, 42, 52), window=(70, 150, 225)):
    """An upright rocket: grey body, red nose and fins, a blue window, a flame."""
    im = Image.new("RGBA", (W, W), (0, 0, 0, 0))
    d = ImageDraw.Draw(im)
    d.polygon([(cx - 0.28 * r, cy + 0.75 * r), (cx + 0.28 * r, cy + 0.75 * r), (cx, cy + 1.35 * r)], fill=(250, 170, 40))
    for s in (-1, 1):
        d.polygon([(cx + s * 0.36 * r, cy + 0.1 * r), (cx + s * 0.85 * r, cy + 0.85 * r), (cx + s * 0.36 * r, cy + 0.75 * r)], fill=trim)
    d.rectangle((cx - 0.42 * r, cy - 0.55 * r, cx + 0.42 * r, cy + 0.8 * r), fill=body)
    d.polygon([(cx - 0.42 * r, cy - 0.5 * r), (cx + 0.42 * r, cy - 0.5 * r), (cx, cy - 1.3 * r)], fill=trim)
    q = 0.25 * r
    d.ellipse((cx - 1.35 * q, cy - 0.1 * r - 1.35 * q, cx + 1.35 * q, cy - 0.1 * r + 1.35 * q), fill=(60, 60, 80))
    d.ellipse((cx - q, cy - 0.1 * r - q, cx + q, cy - 0.1 * r + q), fill=window)
    return im


# --------------------------------------------------------------------- styles
def style_hatching(a, mask, pitch=6.0, duty=0.45, angle=45.0):
    """Pen hatching: pale tints with strokes of the full colour; the strokes on
    the object lean the other way and it has a dark outline.  a is the picture
    at full supersampled size (float, HxWx3), mask the object (HxW, 0..1)."""
    y, x = np.mgrid[0:W, 0:W].astype(np.float32) / SS
    t = math.radians(angle)
    u = x * math.cos(t) + y * math.sin(t)
    v = -x * math.sin(t) + y * math.cos(t)
    lines_bg = ((u / pitch) % 1.0) < duty
    lines_fg = ((v / pitch) % 1.0) < duty
    lines = np.where(mask > 0.5, lines_fg, lines_bg)[..., None]
    paper = np.array([250.0, 244.0, 228.0], np.float32)
    out = np.where(lines, a * 0.82, a * 0.25 + paper * 0.75)
    e = outline(mask)
    out[e] = np.array([40.0, 34.0, 34.0])
    return out


def outline(mask, px=1.0):
    m = mask > 0.5
    k = max(1, int(px * SS * 0.75))
    grown, shrunk = m.copy(), m.copy()
    for dy, dx in ((k, 0), (-k, 0), (0, k), (0, -k), (k // 2 + 1, k // 2 + 1), (-(k // 2 + 1), k // 2 + 1),
                   (k // 2 + 1, -(k // 2 + 1)), (-(k // 2 + 1), -(k // 2 + 1))):
        s = np.roll(np.roll(m, dy, 0), dx, 1)
        grown |= s
        shrunk &= s
    return grown & ~shrunk


def style_mosaic(a, mask, rng, tile=8, grout=(58, 54, 60), spread=0.2, width=1.3):
    """Square tiles with dark grout, every tile its own brightness."""
    n = SIZE // tile + 2
    g = np.array([[rng.uniform(-spread, spread) for _ in range(n)] for _ in range(n)], np.float32)
    y, x = np.mgrid[0:W, 0:W].astype(np.float32) / SS
    j = g[(y // tile).astype(int), (x // tile).astype(int)][..., None]
    out = np.where(j > 0, a + (255 - a) * j, a * (1 + j))
    h = width / 2
    ym, xm = (y + h) % tile, (x + h) % tile
    out[(ym < width) | (xm < width)] = np.array(grout, np.float32)
    return out


# ---------------------------------------------------------------------- specs
def random_spec(rng):
    s = {"shape": rng.choice(SHAPES), "colour": rng.choice(list(COLOURS))}
    q = rng.random()
    others = [c for c in COLOURS if c != s["colour"]]
    if q < 0.68:
        s["bg"] = ("plain", rng.choice(others))
    elif q < 0.77:
        s["bg"] = ("stripes", rng.choice(others))
    elif q < 0.85:
        s["bg"] = ("checks", rng.choice(others))
    else:
        s["bg"] = (rng.choice(SCENES), None)
        if s["bg"][0] == "night" and s["colour"] == "black":
            s["colour"] = "orange"
    s["pos"] = "centre" if rng.random() < 0.4 else rng.choice(list(POSITIONS))
    q = rng.random()
    s["size"] = "small" if q < 0.25 else "large" if q < 0.5 else "medium"
    return s


def place(spec, rng):
    r = {"small": rng.uniform(8, 10), "medium": rng.uniform(13, 15.5), "large": rng.uniform(19, 22)}[spec["size"]]
    px, py = POSITIONS[spec["pos"]]
    off = {"small": 18, "medium": 15, "large": 9}[spec["size"]]
    m = 1.5
    cx = 32 + px * off + rng.uniform(-m, m)
    cy = 32 + py * off + rng.uniform(-m, m)
    return cx * SS, cy * SS, r * SS


def render(spec, rng, style=None, style_args=None):
    """The picture of a spec as uint8 64x64x3.  spec['subject'] replaces the shape."""
    im = Image.new("RGB", (W, W))
    draw_background(im, spec["bg"], rng)
    cx, cy, r = place(spec, rng)
    subject = spec.get("subject")
    if subject:
        args = spec.get("subject_args", {})
        s = (draw_monster if subject == "monster" else draw_rocket)(cx, cy, r * 0.95, rng, **args)
        im.paste(s, (0, 0), s)
        mask = s.getchannel("A")
    elif spec.get("shape"):
        mask = shape_mask(spec["shape"], cx, cy, r, math.radians(rng.uniform(-7, 7)))
        im.paste(jitter(COLOURS[spec["colour"]], rng), (0, 0), mask)
    else:
        mask = Image.new("L", (W, W), 0)
    if style:
        a = np.asarray(im, np.float32)
        m = np.asarray(mask, np.float32) / 255
        if style == "hatching":
            a = style_hatching(a, m, **(style_args or {}))
        else:
            a = style_mosaic(a, m, rng, **(style_args or {}))
        a = a.reshape(SIZE, SS, SIZE, SS, 3).mean((1, 3))
        return np.clip(np.round(a), 0, 255).astype(np.uint8)
    return np.asarray(im.reduce(SS), np.uint8)


# ------------------------------------------------------------------- captions
def position_words(pos, rng):
    if pos == "centre":
        return rng.choice(["in the centre", "in the middle", "at the centre", "centre"])
    forms = ["at the " + pos, "on the " + pos, pos]
    if " " in pos:
        forms += ["in the " + pos + " corner", "in the " + pos]
    return rng.choice(forms)


def background_words(bg, rng):
    kind, c = bg
    if kind == "plain":
        return rng.choice(["on a %s background", "on a %s background", "on a %s background", "with a %s background",
                           "on %s", "%s background"]) % c
    if kind == "stripes":
        return rng.choice(["on %s stripes", "on a background of %s stripes", "with %s stripes", "%s stripes"]) % c
    if kind == "checks":
        return rng.choice(["on %s checks", "on a background of %s checks", "with %s checks", "%s checks"]) % c
    return rng.choice({
        "meadow": ["in a meadow", "in the meadow", "on a meadow"],
        "night": ["at night", "in the night sky", "under the night sky"],
        "sea": ["by the sea", "at the sea", "at sea"],
    }[kind])


_SYLLABLES = ["zi", "vo", "ka", "lu", "mer", "tob", "qua", "fin", "gro", "xe", "pli", "dun"]


def caption(spec, rng, noun=None, drop=True, tail=None):
    """A caption of a spec, in one of several word orders, words dropped at random."""
    keep = (lambda p: rng.random() < p) if drop else (lambda p: True)
    words = []
    if spec["size"] != "medium" and keep(0.8):
        words.append({"small": rng.choice(["small", "small", "little", "tiny"]),
                      "large": rng.choice(["large", "large", "big"])}[spec["size"]])
    if noun:
        words.append(noun)
    else:
        if keep(0.93):
            words.append(spec["colour"])
        words.append(spec["shape"] if keep(0.97) else "shape")
    obj = " ".join(words)
    art = rng.choice(["a ", "a ", "a ", "the ", "one ", ""])
    if art == "a " and obj[0] in "aeiou":
        art = "an "
    pos = position_words(spec["pos"], rng) if keep(0.3 if spec["pos"] == "centre" else 0.85) else None
    bg = background_words(spec["bg"], rng) if keep(0.92) else None
    q = rng.random()
    if q < 0.45:
        parts = [art + obj, pos, bg]
        text = " ".join(p for p in parts if p)
    elif q < 0.70:
        parts = [art + obj, bg, pos]
        text = " ".join(p for p in parts if p)
    elif q < 0.85:
        parts = [obj, bg, pos]
        rng.shuffle(parts)
        text = ", ".join(p for p in parts if p)
    else:
        parts = [bg, art + obj, pos]
        text = ", ".join(p for p in parts[:1] if p) + (", " if bg else "") + " ".join(p for p in parts[1:] if p)
    text = text.replace(" a orange", " an orange")
    if keep(0.12) and drop:
        text = rng.choice(["a picture of ", "a drawing of ", "an image of "]) + text
    if tail:
        text = text + tail
    elif drop and rng.random() < 0.10:
        # a made-up word now and then, so that unknown words do no harm
        word = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 2)))
        ws = text.split(" ")
        if rng.random() < 0.5:
            ws.append(word)
        else:
            ws.insert(rng.randint(0, len(ws)), word)
        text = " ".join(ws)
    return text


# ------------------------------------------------ broader pictures for the VAE
def random_colour(rng):
    return tuple(rng.randint(0, 255) for _ in range(3))


def broad_picture(rng):
    """A picture for the VAE: the base world, the styles with other settings,
    subjects in other colours, and scribbles."""
    q = rng.random()
    spec = random_spec(rng)
    if q < 0.40:
        return render(spec, rng)
    if q < 0.55:
        if rng.random() < 0.35:
            spec["subject"] = rng.choice(["monster", "rocket"])
        return render(spec, rng, "hatching", {"pitch": rng.choice([5.0, 6.0, 6.0, 7.0]),
                                              "angle": rng.choice([45, 45, 45, 30, 60, -45])})
    if q < 0.70:
        if rng.random() < 0.35:
            spec["subject"] = rng.choice(["monster", "rocket"])
        return render(spec, rng, "mosaic", {"tile": rng.choice([6, 8, 8, 8, 10])})
    if q < 0.85:
        spec["subject"] = rng.choice(["monster", "rocket"])
        if rng.random() < 0.6:
            if spec["subject"] == "monster":
                spec["subject_args"] = {"body": random_colour(rng), "horn": random_colour(rng),
                                        "eyes": rng.choice([1, 2]), "mouth": rng.random() < 0.7}
            else:
                spec["subject_args"] = {"body": random_colour(rng), "trim": random_colour(rng),
                                        "window": random_colour(rng)}
        return render(spec, rng)
    im = Image.new("RGB", (W, W), random_colour(rng))
    d = ImageDraw.Draw(im)
    for _ in range(rng.randint(3, 14)):
        x, y, u, v = (rng.uniform(0, W) for _ in range(4))
        k = rng.random()
        c = random_colour(rng)
        if k < 0.4:
            d.line((x, y, u, v), fill=c, width=rng.randint(4, 20))
        elif k < 0.6:
            d.rectangle((min(x, u), min(y, v), max(x, u), max(y, v)), fill=c)
        elif k < 0.8:
            r = rng.uniform(8, 80)
            d.ellipse((x - r, y - r, x + r, y + r), fill=c)
        else:
            d.polygon([(x, y), (u, v), (rng.uniform(0, W), rng.uniform(0, W))], fill=c)
    return np.asarray(im.reduce(SS), np.uint8)


def sheet(pictures, columns, scale=2, gap=2):
    """A contact sheet of uint8 pictures as a PIL image."""
    rows = (len(pictures) + columns - 1) // columns
    s = SIZE * scale
    out = Image.new("RGB", (columns * (s + gap) + gap, rows * (s + gap) + gap), (128, 128, 128))
    for i, p in enumerate(pictures):
        im = Image.fromarray(p).resize((s, s), Image.NEAREST)
        out.paste(im, (gap + i % columns * (s + gap), gap + i // columns * (s + gap)))
    return out


if __name__ == "__main__":
    import sys
    rng = random.Random(1)
    pics = []
    for i in range(30):
        spec = random_spec(rng)
        pics.append(render(spec, rng))
        print(caption(spec, rng))
    for i in range(30):
        pics.append(broad_picture(rng))
    sheet(pics, 10).save(sys.argv[1])
