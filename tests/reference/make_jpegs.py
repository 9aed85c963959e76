"""JPEG files of each kind, with their pixels as Pillow reads them: data/jpeg/, golden/jpegs.safetensors, fuzz/corpus/jpeg/.

    python make_jpegs.py

The truth is Pillow's convert("RGB") after ImageOps.exif_transpose, which is what training scripts do. Pillow brings a
libjpeg-turbo of its own; its inverse transform and its upsampling are exact, so the pixels are the same to the bit.
"""
import os
import shutil

import numpy as np
import torch
from common import DATA, REPO, store, versions
from PIL import Image, ImageOps

FOLDER = os.path.join(DATA, "jpeg")
CORPUS = os.path.join(REPO, "tests", "fuzz", "corpus", "jpeg")


def picture(w, h):
    """Smooth colours with an edge, so that every way of sampling shows."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rgb = np.stack([x / w, y / h, 0.5 + 0.5 * np.sin(x / 3 + y / 5)], -1)
    rgb[h // 3:h // 2, w // 4:w // 2] = (0.9, 0.1, 0.2)
    return Image.fromarray((rgb * 255 + 0.5).astype(np.uint8))


def exif(orientation, big=True):
    order = "big" if big else "little"
    n = lambda v, size: v.to_bytes(size, order)
    return (b"Exif\0\0" + (b"MM" if big else b"II") + n(42, 2) + n(8, 4) + n(2, 2)
            + n(0x0100, 2) + n(4, 2) + n(1, 4) + n(37, 4)                      # another entry before it
            + n(0x0112, 2) + n(3, 2) + n(1, 4) + n(orientation, 2) + n(0, 2) + n(0, 4))


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    os.makedirs(CORPUS, exist_ok=True)
    im = picture(37, 23)
    save = lambda name, image, **kw: image.save(os.path.join(FOLDER, name + ".jpg"), "JPEG", quality=90, **kw)
    for sampling, name in enumerate(("444", "422", "420")):
        save(name, im, subsampling=sampling)
    save("progressive", im, progressive=True)
    save("restarts", im, restart_marker_blocks=1)
    save("grey", im.convert("L"))
    save("cmyk", im.convert("CMYK"))
    save("one", picture(1, 1))
    for k in range(1, 9):
        save("orientation%d" % k, im, exif=exif(k, k % 2 == 0))
    save("orientation9", im, exif=exif(9))          # no such orientation: as it lies
    t = {}
    for name in sorted(os.listdir(FOLDER)):
        path = os.path.join(FOLDER, name)
        if name.startswith(("420", "cmyk", "grey", "orientation6", "progressive")):
            shutil.copy(path, CORPUS)
        with Image.open(path) as j:
            t[name[:-4]] = torch.from_numpy(np.array(ImageOps.exif_transpose(j).convert("RGB")))
    store("jpegs.safetensors", t, {"pillow": Image.__version__, "python": versions()["python"]})


if __name__ == "__main__":
    main()
