"""Steps of a LoRA's training by PyTorch, diffusers and PEFT, for tests/bench/suite/train.c: in peer.py's process, or alone.

    python train.py MODEL SIZE THREADS BATCH WIDE RECOMPUTE STEPS

prints the mean seconds of a step by the clock and by the processor, after one that does not count, and the peak of the
process's memory in MB: where that is asked, nothing else may be in the process.

What is trained and how is what suite/train.c asks of weft: pairs of rank 8 beside the projections of the attentions, and
WIDE those of the feed-forward layers, projections and resnets, and of the text encoder, which then runs in each step;
float32, AdamW, norm cut at 1. Latents, and texts that do not learn, are there before the first step, as in weft's."""
import resource
import sys
import time

import torch

RANK, RATE = 8, 1e-3
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
WIDE = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv",
        "upsamplers.0.conv"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


class Training:
    def __init__(self, model, size, batch, wide, recompute):
        from diffusers import DDPMScheduler, UNet2DConditionModel
        from peft import LoraConfig
        from transformers import CLIPTextModel

        with torch.enable_grad():
            self.unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=torch.float32)
            self.text = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", torch_dtype=torch.float32)
            for network in (self.unet, self.text):
                network.requires_grad_(False)
            self.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=ATTENTION + (WIDE if wide else [])))
            self.wide = wide
            if wide:
                self.text.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TEXT))
            if recompute:
                self.unet.enable_gradient_checkpointing()
                self.unet.train()
            self.params = [p for n in (self.unet, self.text) for p in n.parameters() if p.requires_grad]
            self.optimiser = torch.optim.AdamW(self.params, lr=RATE, weight_decay=1e-2)
            self.A = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
            side = size // 8 if self.unet.config.block_out_channels[0] >= 320 else self.unet.config.sample_size
            self.latents = torch.randn(batch, 4, side, side)
            self.ids = torch.randint(0, min(1000, self.text.config.vocab_size), (batch, 77))
            with torch.no_grad():
                self.rows = self.text(self.ids).last_hidden_state

    def step(self):
        with torch.enable_grad():
            x, t = self.latents, torch.randint(0, 1000, (len(self.latents),))
            e, a = torch.randn_like(x), self.A[t].view(-1, 1, 1, 1)
            rows = self.text(self.ids).last_hidden_state if self.wide else self.rows
            out = self.unet(a.sqrt() * x + (1 - a).sqrt() * e, t, rows).sample
            torch.nn.functional.mse_loss(out, e).backward()
            torch.nn.utils.clip_grad_norm_(self.params, 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)

    def steps(self, count):
        clock, busy = time.monotonic(), time.process_time()
        for _ in range(count):
            self.step()
        return (time.monotonic() - clock) / count, (time.process_time() - busy) / count


def main():
    model, (size, threads, batch, wide, recompute, count) = sys.argv[1], map(int, sys.argv[2:8])
    torch.set_num_threads(threads)
    training = Training(model, size, batch, bool(wide), bool(recompute))
    training.step()
    seconds = training.steps(count)
    print("%.6g %.6g %.6g" % (*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    main()
