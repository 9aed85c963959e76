"""Floats and what torch makes of them in the smaller types: tests/data/golden/narrow.safetensors."""
import os

import numpy as np
import torch
from safetensors.torch import save_file

from common import GOLDEN

torch.set_num_threads(1)

rng = np.random.default_rng(20)
edges = []
for exponent in range(-28, 18):                    # around each value where some type's rounding changes
    for fraction in range(0, 64):
        edges.append((1 + fraction / 64) * 2.0 ** exponent)
edges = np.array(edges, dtype=np.float32)
near = np.concatenate([np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(np.inf))])[::7]
wild = rng.integers(0, 2 ** 32, 2000, dtype=np.uint32).view(np.float32)
special = np.array([0, 448, 464, 465, 479, 480, 57344, 61439, 61440, 65503, 65504, 65519, 65520, 3.3999e38, np.inf, np.nan,
                    2.0 ** -126, 2.0 ** -127, 2.0 ** -133, 2.0 ** -134, 1e-45], dtype=np.float32)
x = np.concatenate([special, edges[::3], near, wild])
x[1::2] *= -1
x = torch.from_numpy(x)
out = {"x": x}
for name, dtype in [("F16", torch.float16), ("BF16", torch.bfloat16), ("F8_E4M3", torch.float8_e4m3fn),
                    ("F8_E5M2", torch.float8_e5m2)]:
    out[name] = x.to(dtype)
save_file(out, os.path.join(GOLDEN, "narrow.safetensors"))
print(len(x))
