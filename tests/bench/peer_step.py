"""One guided step in weft and in diffusers, side by side: seconds of both, their ratio, and whether they agree.

    make bench && python tests/bench/peer_step.py MODEL [--size PIXELS] [--threads N] [--steps N] [--rounds N] [ADAPTER ...]

MODEL is a diffusers folder of SD1.x or SD2.x shape (gen_sd15.py makes one); each adapter is a LoRA file for its UNet. Measured
are the model alone, then with the first adapter, then with all of them: in diffusers through PEFT, unfused. Both sides
compute in f32, evaluate both halves of guidance as one batch of two, and start from the same numbers. Rounds alternate, so that
what else the machine does hits both; figures are the median over the rounds of the median over the steps, after one step
that is not counted; the fastest step of all; and the median processor time of a step, all threads together. The last two
are the ones to go by where the machine is not at rest. Nothing else of a pipeline is in it: no prompt, no solver, no decoding.

Needs torch, diffusers and peft. weft's side is build/tests/bench/bench_step, or $BENCH_STEP.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time
import warnings

for quiet in ("HF_HUB_OFFLINE", "TQDM_DISABLE"):
    os.environ.setdefault(quiet, "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or torch's waiting threads count as processor time
warnings.filterwarnings("ignore", category=UserWarning)
HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.environ.get("BENCH_STEP", os.path.join(HERE, "..", "..", "build", "tests", "bench", "bench_step"))
LINE = re.compile(r"adapters.*: ([\d.]+) s a step \(([\d.]+) to .*\), ([\d.]+) s of processor.*rms ([\d.e+-]+)")
GUIDANCE, TIMESTEP, WEIGHT = 7.5, 500, 0.8  # as in bench_step.c


def weft(args, adapters):
    """Median and least seconds, median processor time, and the prediction's root mean square."""
    out = subprocess.run([BENCH, args.model, "--size", str(args.size), "--threads", str(args.threads), "--steps",
                          str(args.steps), "--adapted"] + adapters, capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(out.stderr)
    return tuple(float(v) for v in LINE.search(out.stdout).groups())


class Peer:
    """diffusers' UNet with every adapter loaded, of which each measurement activates its own."""

    def __init__(self, args):
        import torch
        from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
        torch.set_num_threads(args.threads)
        torch.set_grad_enabled(False)
        self.torch, self.steps = torch, args.steps
        self.unet = UNet2DConditionModel.from_pretrained(args.model, subfolder="unet", torch_dtype=torch.float32).eval()
        factor = 2 ** (len(AutoencoderKL.load_config(args.model, subfolder="vae")["block_out_channels"]) - 1)
        side, width = args.size // factor, self.unet.config.cross_attention_dim
        self.x = self.noise(1, 1, self.unet.config.in_channels, side, side)
        self.text = torch.cat([self.noise(3, 1, 77, width), self.noise(2, 1, 77, width)])
        self.loaded = 0
        self.load = StableDiffusionPipeline

    def noise(self, seed, *shape):
        return self.torch.randn(*shape, generator=self.torch.Generator("cpu").manual_seed(seed))

    def use(self, adapters):
        for path in adapters[self.loaded:]:  # layers are wrapped only once an adapter needs them
            state, alphas = self.load.lora_state_dict(path, unet_config=self.unet.config)[:2]
            self.load.load_lora_into_unet(state, alphas, self.unet, adapter_name="a%d" % self.loaded)
            self.loaded += 1
        if adapters:
            self.unet.set_adapters(["a%d" % i for i in range(len(adapters))], [WEIGHT] * len(adapters))
        elif self.loaded:
            self.unet.disable_lora()
        if adapters:
            self.unet.enable_lora()

    def step(self):
        uncond, cond = self.unet(self.torch.cat([self.x, self.x]), TIMESTEP, self.text).sample.chunk(2)
        return uncond + GUIDANCE * (cond - uncond)

    def measure(self, adapters):
        self.use(adapters)
        seconds, busy = [], []
        for i in range(self.steps + 1):
            begin, used = time.monotonic(), time.process_time()
            out = self.step()
            seconds.append(time.monotonic() - begin)
            busy.append(time.process_time() - used)
        return statistics.median(seconds[1:]), min(seconds[1:]), statistics.median(busy[1:]), out.double().square().mean().sqrt().item()


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("model")
    p.add_argument("adapters", nargs="*")
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_intermixed_args()
    sets = [args.adapters[:n] for n in sorted({0, min(1, len(args.adapters)), len(args.adapters)})]
    ours, theirs = {len(s): [] for s in sets}, {len(s): [] for s in sets}
    bare = Peer(args)  # never wrapped by PEFT: what a model without adapters costs
    peer = Peer(args) if args.adapters else bare
    for _ in range(args.rounds):
        for s in sets:
            ours[len(s)].append(weft(args, s))
            theirs[len(s)].append((peer if s else bare).measure(s))
            print("  %d adapters: weft %.4f s, diffusers %.4f s" % (len(s), ours[len(s)][-1][0], theirs[len(s)][-1][0]),
                  file=sys.stderr, flush=True)
    print("%s at %d px, %d threads, %d rounds of %d steps, load %.1f" % (args.model, args.size, args.threads, args.rounds,
                                                                        args.steps, os.getloadavg()[0]))
    for n in ours:
        differ = abs(ours[n][0][3] / theirs[n][0][3] - 1)
        print("%d adapters (rms differs by %.1e)" % (n, differ))
        for k, what, pick in ((0, "median", statistics.median), (1, "fastest", min), (2, "processor", statistics.median)):
            a, b = (pick([r[k] for r in v[n]]) for v in (ours, theirs))
            print("  %-10s weft %.4f s, diffusers %.4f s, ratio %.2f" % (what, a, b, b / a))


if __name__ == "__main__":
    main()
