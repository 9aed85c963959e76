"""Names and shapes of the nets in golden_tiny_models.json and golden_tiny_clip.json, for tests/nets/test_formula.c.

Those files hold outputs of nets whose weights are a formula of a tensor's place in the sorted list of names. The C
test needs that list, and takes it from diffusers and transformers rather than from weft, which is being tested.
One line for each tensor: name, tab, shape with commas. recheck.py runs the same nets on today's diffusers.

Two nets more have the proportions that published ones lack: a VAE whose latents are wider than its levels, a text
encoder whose widest layer is its projection. Their outputs are in narrow.json, in the form of the files above.
"""
import json
import os

import torch

from common import DATA, versions
from recheck import fill, shared, wave

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

FORMULA = os.path.join(DATA, "formula")


def write(name, module):
    rows = sorted((n.encode(), p.shape) for n, p in module.named_parameters())
    with open(os.path.join(FORMULA, name + ".tsv"), "w") as f:
        for n, shape in rows:
            f.write("%s\t%s\n" % (n.decode(), ",".join(map(str, shape))))
    print("%-10s %d tensors, %d parameters" % (name, len(rows), sum(s.numel() for _, s in rows)))
    return len(rows)


def summary(x):
    v = x.flatten().double()
    return {"shape": list(x.shape), "first": v[:12].tolist(), "last": v[-4:].tolist(), "mean": v.mean().item(),
            "abs_mean": v.abs().mean().item(), "l2": v.norm().item()}


def narrow():
    config = dict(in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"],
                  up_block_types=["UpDecoderBlock2D"], block_out_channels=[2], layers_per_block=1, act_fn="silu",
                  latent_channels=20, norm_num_groups=1, sample_size=32)
    v = fill(AutoencoderKL(**config))
    e = v.encode(wave(torch.cos, 0.05, 1, 3, 9, 7)).latent_dist
    vae = {"name": "narrow_vae", "config": config, "tensors": write("narrow_vae", v),
           "params": sum(p.numel() for p in v.parameters()),
           "decode": summary(v.decode(wave(torch.sin, 0.1, 1, 20, 9, 7)).sample), "encode_mean": summary(e.mean),
           "encode_logvar": summary(e.logvar)}
    k = dict(hidden=128, layers=1, heads=4, intermediate=8, vocab=100, positions=77, projection=320)
    m = fill(clip(k))
    ids = torch.tensor([[98, 3, 17, 42, 5] + [99] * 72])
    o = m(ids, output_hidden_states=True)
    write("narrow_clip", m)
    text = {"act": "quick_gelu", "last_hidden_state": summary(o.last_hidden_state),
            "penultimate_no_final_ln": summary(o.hidden_states[-2]), "pooled": summary(o.last_hidden_state[0, 5]),
            "text_embeds": summary(o.text_embeds[0])}
    with open(os.path.join(FORMULA, "narrow.json"), "w") as f:
        json.dump({"versions": versions(), "vae": vae, "clip": {"config": k, "cases": [text]}}, f, indent=1)
        f.write("\n")


def clip(k):
    return CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=k["vocab"], hidden_size=k["hidden"], num_hidden_layers=k["layers"], num_attention_heads=k["heads"],
        intermediate_size=k["intermediate"], max_position_embeddings=k["positions"], projection_dim=k["projection"],
        hidden_act="quick_gelu", bos_token_id=98, eos_token_id=99, attn_implementation="eager"))


if __name__ == "__main__":
    os.makedirs(FORMULA, exist_ok=True)
    for c in shared("golden_tiny_models.json")["cases"]:
        cls = AutoencoderKL if "vae" in c["name"] else UNet2DConditionModel
        assert write(c["name"], cls(**c["config"])) == c["tensors"]
    write("tiny_clip", clip(shared("golden_tiny_clip.json")["config"]))
    narrow()
