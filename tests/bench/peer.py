"""The peer of tests/bench/suite: PyTorch, diffusers and PEFT, driven by lines on standard input.

A line is words parted by tabs; the answer is one line, "ok" and words or "no" and the reason. Nothing is measured but
the work itself, after one time that does not count. Commands:

    hello                                            versions
    threads N
    load NAME MODEL f32|bf16 PARTS                   PARTS of unet,vae,text; answers seconds
    drop NAME
    lora NAME FILE...                                into its UNet through PEFT, unfused
    use NAME N                                       the first N of them act
    step NAME COUNT C H W FACTOR TOKENS WIDTH POOLED INPUTS OUT    mean seconds of COUNT guided steps: clock, processor
    decode NAME C H W TILE INPUTS OUT               TILE latent pixels of a tile, 0: whole
    encode NAME IDS                                  two prompts of 77 token ids, parted by commas
    training NAME MODEL SIZE BATCH WIDE              a LoRA's training, as train.py has it
    train NAME COUNT                                 mean seconds of COUNT of its steps

INPUTS are float32: latents, the text of both halves, of SDXL the pooled text of both. OUT gets what was computed."""
import os
import sys
import time
import warnings

for quiet in ("HF_HUB_OFFLINE", "TQDM_DISABLE"):
    os.environ.setdefault(quiet, "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer

import numpy as np  # noqa: E402
import torch  # noqa: E402
import diffusers  # noqa: E402
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402

torch.set_grad_enabled(False)
GUIDANCE, TIMESTEP, WEIGHT = 7.5, 500, 0.8  # as in work.c
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
loaded = {}
warm = set()


class Begun:
    def __init__(self):
        self.clock, self.busy = time.monotonic(), time.process_time()

    def seconds(self, count=1):
        return (time.monotonic() - self.clock) / count, (time.process_time() - self.busy) / count


def hello():
    try:
        import peft
        have = "peft=" + peft.__version__
    except ImportError:
        have = "peft="
    return "torch=" + torch.__version__, "diffusers=" + diffusers.__version__, have


def threads(n):
    torch.set_num_threads(int(n))


def load(name, model, kind, parts):
    begun, made = Begun(), {"dtype": TYPES[kind], "loras": 0}
    for part in parts.split(","):
        if part == "unet":
            made[part] = UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=TYPES[kind]).eval()
        elif part == "vae":
            made[part] = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=TYPES[kind]).eval()
        elif part == "text":
            from transformers import CLIPTextModel
            made[part] = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", torch_dtype=TYPES[kind]).eval()
    loaded[name] = made
    return begun.seconds()


def drop(name):
    import gc
    loaded.pop(name, None)
    for key in [k for k in warm if name in (k, k[1])]:
        warm.discard(key)
    gc.collect()


def lora(name, *paths):
    unet = loaded[name]["unet"]
    for path in paths:
        state, alphas = StableDiffusionPipeline.lora_state_dict(path, unet_config=unet.config)[:2]
        StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet, adapter_name="a%d" % loaded[name]["loras"])
        loaded[name]["loras"] += 1


def use(name, count):
    unet, count = loaded[name]["unet"], int(count)
    unet.set_adapters(["a%d" % i for i in range(count)], [WEIGHT] * count)


def repeat(key, count, work):
    """Mean seconds of `count` times, after one that does not count where this was never done before."""
    if key not in warm:
        work()
        warm.add(key)
    begun = Begun()
    for _ in range(count):
        out = work()
    return begun.seconds(count), out


def write(path, out):
    out.float().contiguous().numpy().tofile(path)


def step(name, count, c, h, w, factor, tokens, width, pooled, inputs, path):
    made = loaded[name]
    count, c, h, w, factor, tokens, width, pooled = map(int, (count, c, h, w, factor, tokens, width, pooled))
    given = torch.from_numpy(np.fromfile(inputs, np.float32)).to(made["dtype"])
    sizes = [c * h * w, tokens * width, tokens * width, pooled, pooled]
    x, cond, uncond, pool, unpool = torch.split(given[:sum(sizes)], sizes)
    text = torch.cat([uncond, cond]).view(2, tokens, width)
    added = None
    if pooled:
        ids = [[h * factor, w * factor, 0, 0, h * factor, w * factor]] * 2
        added = {"text_embeds": torch.cat([unpool, pool]).view(2, pooled), "time_ids": torch.tensor(ids).to(made["dtype"])}
    x = x.view(1, c, h, w)

    def work():
        a, b = made["unet"](torch.cat([x, x]), TIMESTEP, text, added_cond_kwargs=added).sample.chunk(2)
        return a + GUIDANCE * (b - a)

    seconds, out = repeat(("step", name, h, w), count, work)
    write(path, out)
    return seconds


def decode(name, c, h, w, tile, inputs, path):
    made, (c, h, w, tile) = loaded[name], map(int, (c, h, w, tile))
    x = torch.from_numpy(np.fromfile(inputs, np.float32, c * h * w)).view(1, c, h, w).to(made["dtype"])
    vae = made["vae"]
    vae.use_tiling = tile > 0
    if tile:
        vae.tile_latent_min_size, vae.tile_sample_min_size = tile, 8 * tile
    begun = Begun()  # so long that a first time is like any other
    out = vae.decode(x / vae.config.scaling_factor).sample
    seconds = begun.seconds()
    write(path, (out / 2 + 0.5).clamp(0, 1))
    return seconds


def encode(name, ids):
    tokens = torch.tensor([int(i) for i in ids.split(",")]).view(-1, 77)
    return repeat(("encode", name), 1, lambda: loaded[name]["text"](tokens))[0]


def training(name, model, size, batch, wide):
    from train import Training
    loaded[name] = Training(model, int(size), int(batch), bool(int(wide)), False)


def train(name, count):
    if name not in warm:
        loaded[name].step()
        warm.add(name)
    return loaded[name].steps(int(count))


COMMANDS = {f.__name__: f for f in (hello, threads, load, drop, lora, use, step, decode, encode, training, train)}


def main():
    for line in sys.stdin:
        command, *words = line.rstrip("\n").split("\t")
        try:
            answer = COMMANDS[command](*words) or ()
            text = "\t".join(["ok"] + ["%.9g" % a if isinstance(a, float) else a for a in answer])
        except Exception as e:  # whatever it is, the benchmark goes on without
            text = "no\t" + " ".join(("%s: %s" % (type(e).__name__, e)).split())[:400]
        answers.write(text + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
