"""Three steps of a LoRA's training by torch: AdamW, clipping, a cosine rate with warm-up, in double.

    python make_train_steps.py      writes golden/train_steps_<model>.safetensors

The tiny models as in make_train.py, pairs on the attentions of the UNet and of the text encoders, which read captions.
Each step has one picture of what is learnt, whose squares count 0.4, and one of its class, 0.7. The rates are 0.02 for
the UNet and 0.005 for the text encoders, gradients are clipped to a norm of 0.05. Inputs come from seeds and values
from a formula, so that C remakes them. Stored are each step's loss and norm, and at the end of each tensor what
tells it (digest()).
"""
import math
import sys

import torch
from diffusers.optimization import get_scheduler
from torch.func import functional_call

import common
from common import noise, store
from make_train import Setup, digest, from_weft, leaf

RANK, SCALE, STEPS = 3, 0.5, 3
CAPTIONS = ["a photo of a zib cat", "a cat"]
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")
UNET = ("to_q", "to_k", "to_v", "to_out.0")


def pairs(setup):
    """{network: {parameter: (weight, down, up)}}, and the leaves by weft's names."""
    leaves, made = {}, {}
    for net in setup.nets:
        for name, p, w, _ in setup.layers(net):
            if not p.endswith(UNET if net == "unet" else TEXT) or w.dim() != 2:
                continue
            down = leaves[name + "/lora_A"] = leaf(name + "/lora_A", (RANK, w.shape[1]), 1 / math.sqrt(w.shape[1]))
            up = leaves[name + "/lora_B"] = leaf(name + "/lora_B", (RANK, w.shape[0]), 0.1)
            made.setdefault(net, {})[p + ".weight"] = (w, down, up)
    return leaves, made


def encode(setup, over):
    hidden, pooled = [], None
    for k, e in enumerate(setup.encoders):
        tok = [setup.pipe.tokenizer, getattr(setup.pipe, "tokenizer_2", None)][k]
        ids = tok(CAPTIONS, padding="max_length", truncation=True, max_length=tok.model_max_length, return_tensors="pt").input_ids
        o = functional_call(e, over.get("text_encoder" + ("_2" if k else ""), {}), (ids,), {"output_hidden_states": True})
        if not setup.xl:
            hidden.append(o.last_hidden_state)
            continue
        hidden.append(o.hidden_states[-2])
        if k == 1:
            pooled = o.text_embeds if hasattr(o, "text_embeds") else o[0]
    return torch.cat(hidden, -1), pooled


def run(name):
    setup = Setup(name)
    c = setup.unet.config
    with torch.enable_grad():
        leaves, made = pairs(setup)
        groups = [{"params": [v for k, v in leaves.items() if k.startswith("unet.")], "lr": 0.02},
                  {"params": [v for k, v in leaves.items() if not k.startswith("unet.")], "lr": 0.005}]
        opt = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.03)
        rate = get_scheduler("cosine", opt, num_warmup_steps=1, num_training_steps=5)
        losses, norms = [], []
        for step in range(STEPS):
            over = {net: {p: w + SCALE * from_weft(up.T @ down, w) for p, (w, down, up) in of.items()}
                    for net, of in made.items()}
            context, pooled = encode(setup, over)
            sample = noise(810 + step, 2, c.in_channels, 10, 6).double()
            target = noise(820 + step, 2, c.out_channels, 10, 6).double()
            times = torch.tensor([[741.0, 37.0], [5.0, 990.0], [300.0, 610.0]][step])
            add = {"text_embeds": pooled, "time_ids": torch.tensor([[32., 24., 0., 0., 32., 24.], [64., 48., 8., 4., 32., 32.]])}
            out = functional_call(setup.unet, over["unet"], (sample, times, context),
                                  {"added_cond_kwargs": add if setup.xl else None}).sample
            square = ((out - target) ** 2).mean(dim=(1, 2, 3))
            loss = 0.4 * square[0] + 0.7 * square[1]
            opt.zero_grad()
            loss.backward()
            unused = [k for k, v in leaves.items() if v.grad is None]
            assert all(k.startswith("text_encoder") for k in unused), unused  # SDXL's layers that never run
            for k in unused:
                leaves[k].grad = torch.zeros_like(leaves[k])
            norms.append(torch.nn.utils.clip_grad_norm_(list(leaves.values()), 0.05).item())
            opt.step()
            rate.step()
            losses.append(loss.item())
    print(name, losses, norms)
    tensors = {k: digest(v.detach()).float() for k, v in leaves.items()}
    tensors["loss"] = torch.tensor(losses, dtype=torch.float64)
    tensors["norm"] = torch.tensor(norms, dtype=torch.float64)
    print(store("train_steps_%s.safetensors" % name, tensors))


if __name__ == "__main__":
    for model in sys.argv[1:] or ["tiny-sd1", "tiny-sd2", "tiny-sdxl"]:
        run(model)
