"""Do the checkpoints that weft writes open in diffusers, and say there what diffusers' own merge says?

    python check_merged.py [build/libweft.so]

Each adapter is merged by weft_plan_save_model() into a copy of its tiny model, and by diffusers (load_lora_weights, then
fuse_lora) in memory; both copies predict on the same noise. A single file goes through diffusers' converters and must
be the folder's tensors. Prints the errors; ends with 1 where one is larger than the rounding of the model's dtype allows.
"""
import ctypes
import os
import sys
import tempfile

import torch
from common import ADAPTERS, MODELS, REPO, max_rel, noise, pipeline
from make_layouts import LAYOUTS, config
from safetensors.torch import load_file

CASES = [  # model, adapter, tolerance of predictions by dtype: f16, f32, bf16
    ("tiny-sd1", "sd1_new_conv.safetensors", 2e-3), ("tiny-sd2", "sd2_kohya.safetensors", 1e-5),
    ("tiny-sdxl", "sdxl_new.safetensors", 2e-2),
]


class ModelOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32)] + \
               [(n, ctypes.c_void_p) for n in ("allocator", "log", "log_user", "progress", "progress_user")] + \
               [(n, ctypes.c_char_p) for n in ("variant", "tokenizer", "tokenizer_2", "vae", "config")]


class Weft:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.err = ctypes.create_string_buffer(4096)

    def must(self, status):
        assert status == 0, self.err.raw[8:].split(b"\0")[0]

    def make(self, name, *args):
        out = ctypes.c_void_p()
        self.must(getattr(self.lib, name)(*args, ctypes.byref(out), self.err))
        return out

    def save(self, model, described_by, adapter, weight, to):
        o = ModelOptions(size=ctypes.sizeof(ModelOptions), config=described_by and described_by.encode())
        m = self.make("weft_model_open", model.encode(), ctypes.byref(o))
        a = self.make("weft_adapter_open", adapter.encode(), None)
        p = self.make("weft_plan_create", m, None)
        self.must(self.lib.weft_plan_add(p, a, ctypes.c_float(weight), None, self.err))
        self.must(self.lib.weft_plan_seal(p, 1, self.err))
        self.must(self.lib.weft_plan_save_model(p, to.encode(), self.err))
        for free, x in (("plan", p), ("adapter", a), ("model", m)):
            getattr(self.lib, "weft_%s_free" % free)(x)


def predict(pipe):
    c = pipe.unet.config
    kw = {}
    if c.addition_embed_type:
        proj = pipe.text_encoder_2.config.projection_dim
        kw["added_cond_kwargs"] = {"text_embeds": noise(5, 1, proj), "time_ids": torch.tensor([[64., 64, 0, 0, 64, 64]])}
    ids = torch.tensor([[3, 7, 11, 19]])
    out = [pipe.unet(noise(3, 1, c.in_channels, 8, 8), 500, noise(4, 1, 77, c.cross_attention_dim), **kw).sample]
    for te in (pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if te is not None:
            out.append(te(ids)[0])
    return out


def main():
    w = Weft(sys.argv[1] if len(sys.argv) > 1 else os.path.join(REPO, "build", "libweft.so"))
    worst = 0
    with tempfile.TemporaryDirectory() as tmp:
        for model, adapter, within in CASES:
            to, path = os.path.join(tmp, model), os.path.join(ADAPTERS, adapter)
            w.save(os.path.join(MODELS, model), None, path, 0.7, to)
            theirs = pipeline(os.path.join(MODELS, model))
            base = predict(theirs)
            theirs.load_lora_weights(path)
            theirs.fuse_lora(lora_scale=0.7)
            errors = [max_rel(a, b) for a, b in zip(predict(pipeline(to)), predict(theirs))]
            moved = max(max_rel(a, b) for a, b in zip(predict(pipeline(to)), base))
            print("%-10s %-26s within %s of diffusers' own merge (%.1e from the base)" %
                  (model, adapter, " ".join("%.1e" % e for e in errors), moved))
            worst = max(worst, max(errors) / within)

        from diffusers.loaders import single_file_utils as u
        model, path = "tiny-sdxl", os.path.join(tmp, "one.safetensors")
        w.save(os.path.join(LAYOUTS, model + ".safetensors"), os.path.join(MODELS, model), os.path.join(ADAPTERS, "sdxl_new.safetensors"),
               0.7, path)
        flat = load_file(path)
        for part, convert in (("unet", u.convert_ldm_unet_checkpoint), ("vae", u.convert_ldm_vae_checkpoint)):
            got = convert(dict(flat), dict(config(model, part)))
            want = load_file(os.path.join(tmp, model, part, "diffusion_pytorch_model.safetensors"))
            same = set(got) == set(want) and all(torch.equal(got[k].reshape(want[k].shape), want[k]) for k in want)
            print("%-10s single file, %s through diffusers' converter: %s" % (model, part, "the folder's" if same else "differs"))
            worst = max(worst, 0 if same else 9)
    sys.exit(worst > 1)


if __name__ == "__main__":
    main()
