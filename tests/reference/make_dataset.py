"""Pictures as a training reads them, and what is drawn: golden/dataset.safetensors, golden/dataset.json.

    python make_dataset.py

prepared/: what diffusers' training scripts do with torchvision (Resize, flip, CenterCrop, ToTensor, Normalize), up to the
bytes, by Pillow with its bicubic filter. Draws: SipHash-1-3 again, in Python, from the paper, and numpy's MT19937.
"""
import struct

import numpy as np
import torch
from common import store, versions, write_json
from PIL import Image, ImageOps

# name: picture's width, height, ours
SIZES = {"same": (64, 64, 64, 64), "wide": (101, 70, 64, 64), "tall": (66, 119, 64, 64), "large": (151, 106, 64, 64),
         "broad": (150, 90, 96, 64), "high": (70, 160, 48, 96), "small": (20, 33, 64, 64), "odd": (67, 64, 64, 64)}


def picture(w, h):
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rgb = np.stack([0.5 + 0.5 * np.sin(x / 2.3), y / h, 0.5 + 0.5 * np.sin(x * y / 97)], -1)
    rgb[h // 3:h // 2, w // 4:w // 2] = (0.9, 0.1, 0.2)
    return Image.fromarray((rgb * 255 + 0.5).astype(np.uint8))


def prepared(im, width, height, flip):
    size = cover(*im.size, width, height)
    im = im.resize((size[0], im.height), Image.BICUBIC).resize(size, Image.BICUBIC)   # rows first; in one call Pillow 13
    if flip:                                                                          # takes columns first for some shapes
        im = ImageOps.mirror(im)
    left, top = round((im.width - width) / 2), round((im.height - height) / 2)   # halves to even, as torchvision rounds
    im = im.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(im))


# ---- draws

M = (1 << 64) - 1


def siphash13(key, data):
    """SipHash-1-3 under the 128-bit key (key, ~key)."""
    rotl = lambda v, n: (v << n | v >> (64 - n)) & M
    k0, k1 = key, ~key & M
    v = [k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573]

    def rnd():
        v[0] = (v[0] + v[1]) & M; v[1] = rotl(v[1], 13) ^ v[0]; v[0] = rotl(v[0], 32)
        v[2] = (v[2] + v[3]) & M; v[3] = rotl(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & M; v[3] = rotl(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & M; v[1] = rotl(v[1], 17) ^ v[2]; v[2] = rotl(v[2], 32)
    whole = len(data) // 8 * 8
    words = list(struct.unpack("<%dQ" % (whole // 8), data[:whole]))
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 255) << 56)
    for w in words:
        v[3] ^= w
        rnd()
        v[0] ^= w
    v[2] ^= 0xff
    for _ in range(3):
        rnd()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def seed_of(seed, lst, purpose, at):
    return siphash13(seed, struct.pack("<3Q", lst, purpose, at))


def engine(seed):
    raw = np.random.RandomState(seed & 0xffffffff)._bit_generator
    return lambda: int(raw.random_raw())


def cover(w, h, W, H):
    return (W, h * W // w) if w * H <= h * W else (w * H // h, H)


def draw(o, lst, seed, position):
    sizes = o["pictures"]
    n = len(sizes)
    epoch, k = divmod(position, n)
    nxt, order = engine(seed_of(seed, lst, 2, epoch)), list(range(n))
    for i in range(n, 1, -1):
        j = nxt() * i >> 32
        order[i - 1], order[j] = order[j], order[i - 1]
    w, h = sizes[order[k]]
    nxt = engine(seed_of(seed, lst, 1, position))
    heads = nxt() >> 31
    unit = lambda: (nxt() & 0xffffff) / 2 ** 24
    which, size, across, down = unit(), unit(), nxt(), nxt()
    by, anywhere, phrase = 1.0, o["random_crop"], None
    if o["augment"] and lst == 0:
        by = 1 / 3 + (1 - 1 / 3) * size if which < 0.66 else 1.2 + (1.4 - 1.2) * size
        anywhere = anywhere or by > 1
        phrase = "small" if by < 0.6 else "close" if by > 1 else None
    W, H = o["width"], o["height"]
    sw, sh = max(1, int(W * by)), max(1, int(H * by))
    rw, rh = cover(w, h, sw, sh)
    cw, ch = min(sw, W), min(sh, H)
    left, top = round((rw - cw) / 2), round((rh - ch) / 2)
    if anywhere:
        left, top = across * (rw - cw + 1) >> 32, down * (rh - ch + 1) >> 32
    x, y = nxt() * (W - cw + 1) >> 32, nxt() * (H - ch + 1) >> 32
    return {"position": position, "picture": order[k], "epoch": epoch, "flip": int(o["flip"] and heads),
            "resized": [rw, rh], "cut": [left, top, cw, ch], "at": [x, y], "phrase": phrase,
            "seed": str(seed_of(seed, lst, 3, position)), "spare": str(seed_of(seed, lst, 4, position))}


def main():
    t = {}
    for name, (w, h, W, H) in SIZES.items():
        im = picture(w, h)
        t["picture/" + name] = torch.from_numpy(np.array(im))
        t["prepared/" + name] = prepared(im, W, H, False)
        t["mirrored/" + name] = prepared(im, W, H, True)
    store("dataset.safetensors", t, versions())
    sizes = [[64, 64], [101, 70], [66, 119], [301, 212], [65, 71]]
    cases = []
    for flags in ({}, {"flip": True}, {"random_crop": True, "flip": True}, {"augment": True}):
        o = dict({"width": 64, "height": 48, "flip": False, "random_crop": False, "augment": False, "pictures": sizes}, **flags)
        for lst, seed in ((0, 7), (1, 0xfedcba9876543210)):
            cases.append({"options": o, "list": lst, "seed": str(seed),
                          "draws": [draw(o, lst, seed, p) for p in [0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 1000, 2 ** 40 + 3]]})
    write_json("dataset.json", {"cases": cases})


if __name__ == "__main__":
    main()
