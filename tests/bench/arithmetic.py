"""How far each arithmetic is from double, weft's beside PyTorch's: the denoiser and the VAE of one model.

    make all && python tests/bench/arithmetic.py MODEL [--size PIXELS] [--threads N]

MODEL is a diffusers folder of SD1.x or SD2.x shape (gen_sd15.py makes one). The denoiser is evaluated at three noise
levels and the decoder once, without guidance, from the same float32 inputs: by diffusers in double, in float32 and in
bfloat16 (`.to(torch.bfloat16)`), and by weft in both of its arithmetics. Printed are |difference| / |output| (l2) and the
largest difference over the largest value, of all levels together. SD1.5 takes 9 GB of memory.

Needs torch and diffusers. weft is build/libweft.so, or $WEFT_LIBRARY; bf16 is emulated where the processor has none.
"""
import argparse
import ctypes as C
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "ffi"), os.path.join(HERE, "..", "reference")]

import torch
from common import in_f64, l2_rel, max_rel, noise
from step import Floats, ModelInfo, RunOptions, Step, Text, Weft

TIMESTEPS = (901.0, 501.0, 101.0)
EMULATE, F32, BF16 = 8, 0, 1


class ModelOptions(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32)] + [(n, C.c_void_p) for n in (
        "allocator", "log", "log_user", "progress", "progress_user", "variant", "tokenizer", "tokenizer_2", "vae", "config")] + [
        ("arithmetic", C.c_int32), ("reserved0", C.c_int32)]


def peer(model, x, text, z):
    """Of diffusers: {arithmetic: (predictions, image)}."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    got = {}

    def denoise(unet, dtype):
        return torch.cat([unet(x.to(dtype), t, text.to(dtype)).sample for t in TIMESTEPS]).double()

    def decode(vae, dtype):
        return (vae.decode((z / vae.config.scaling_factor).to(dtype)).sample.double() / 2 + 0.5).clamp(0, 1)
    for i, (cls, folder, run) in enumerate(((UNet2DConditionModel, "unet", denoise), (AutoencoderKL, "vae", decode))):
        net = cls.from_pretrained(model, subfolder=folder, torch_dtype=torch.float32).eval()
        got["f32", i] = run(net, torch.float32)
        got["f64", i] = in_f64(lambda: run(net, torch.float64), net)
        got["bf16", i] = run(net.to(torch.bfloat16), torch.bfloat16)
        del net
    return got


def array(t):
    t = t.contiguous().float()
    return (C.c_float * t.numel()).from_buffer_copy(t.numpy().tobytes())


def weft(model, threads, arithmetic, x, text, z):
    w = Weft(os.environ.get("WEFT_LIBRARY", os.path.join(HERE, "..", "..", "build", "libweft.so")))
    options, info = w.sized(ModelOptions, "weft_model_options_init"), w.sized(ModelInfo, "weft_model_info_init")
    options.flags, options.arithmetic = (EMULATE if arithmetic == BF16 else 0), arithmetic
    handle = w.open("weft_model_open", model.encode(), C.byref(options))
    w.must("weft_model_info_get", handle, C.byref(info))
    plan = w.open("weft_plan_create", handle, None)
    w.must("weft_plan_seal", plan, C.c_int32(1))
    o = w.sized(RunOptions, "weft_run_options_init")
    o.threads, o.height, o.width, o.text_tokens = threads, x.shape[2], x.shape[3], text.shape[1]
    run = w.open("weft_run_create", plan, C.byref(o))
    latent, words, out = array(x), array(text), (C.c_float * x.numel())()
    stream = w.sized(Text, "weft_text_init")
    stream.data, stream.len = C.cast(words, Floats), len(words)
    step = w.sized(Step, "weft_step_init")
    step.latent, step.latent_len, step.out, step.out_len = C.cast(latent, Floats), len(latent), C.cast(out, Floats), len(out)
    step.text, step.text_count = C.pointer(stream), 1
    predictions = []
    for t in TIMESTEPS:
        step.timestep = t
        w.must("weft_run_step", run, C.byref(step))
        predictions.append(torch.tensor(list(out), dtype=torch.float64).view(x.shape))
    f = info.image_factor
    pixels, zs = (C.c_float * (3 * x.shape[2] * x.shape[3] * f * f))(), array(z)
    w.must("weft_run_decode", run, zs, C.c_size_t(len(zs)), pixels, C.c_size_t(len(pixels)))
    image = torch.tensor(list(pixels), dtype=torch.float64).view(1, 3, x.shape[2] * f, x.shape[3] * f)
    tier = info.tier.decode()
    for kind, h in (("run", run), ("plan", plan), ("model", handle)):
        getattr(w.lib, "weft_%s_free" % kind)(h)
    return tier, (torch.cat(predictions), image)


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("model")
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--threads", type=int, default=0)
    args = p.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    from diffusers import AutoencoderKL, UNet2DConditionModel
    c, v = UNet2DConditionModel.load_config(args.model, subfolder="unet"), AutoencoderKL.load_config(args.model, subfolder="vae")
    side = args.size // 2 ** (len(v["block_out_channels"]) - 1)
    x, text, z = noise(1, 1, 4, side, side), noise(2, 1, 77, c["cross_attention_dim"]), noise(3, 1, 4, side, side)
    z = z * v["scaling_factor"]
    ours = [weft(args.model, args.threads, a, x, text, z) for a in (F32, BF16)]
    theirs = peer(args.model, x, text, z)
    print("%-9s %-28s %-10s %s" % ("", "", "l2", "largest"))
    for i, what in enumerate(("denoiser", "decoder")):
        exact = theirs["f64", i]
        rows = [("weft f32 (%s)" % ours[0][0], ours[0][1][i]), ("PyTorch f32", theirs["f32", i]),
                ("weft bf16 (%s)" % ours[1][0], ours[1][1][i]), ("PyTorch bf16", theirs["bf16", i])]
        for name, got in rows:
            print("%-9s %-28s %-10.3g %.3g" % (what, name, l2_rel(got, exact), max_rel(got, exact)))


if __name__ == "__main__":
    main()
