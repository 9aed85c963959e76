"""Every key of the networks' configurations at other values: what diffusers and transformers make of each.

    python make_settings.py        writes golden/settings.json and golden/settings.safetensors

The keys are those of the classes' signatures: a key without a row here stops this script, so that a new version's
cannot be overlooked. A row's values say what weft is to do:

    follow  the outputs are stored, and are others than the base's (or the tensors are): tests/nets/test_settings.c
            wants them to 1e-5
    idle    the outputs are the base's, bit for bit here; the test wants those
    size    what a run takes by itself; the outputs are the base's
    refuse  the test wants a refusal that names the key; what the reference does is noted

The nets are tiny and their weights a formula of the sorted names (fill below), so that the test needs names and
shapes only: those of the base, and for each value what differs.
"""
import inspect
import math
import os

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from common import MODELS, in_f64, max_rel, pipeline, store, versions, write_json
from recheck import fill as even, wave

FOLLOW, IDLE, SIZE, REFUSE = "follow", "idle", "size", "refuse"
GUIDANCE = 4.0


def fill(module):
    """recheck's formula, with attention that looks somewhere and says what it saw."""
    even(module)
    for n, p in module.named_parameters():
        if n.endswith(("to_q.weight", "to_out.0.weight", "q_proj.weight")):
            p.mul_(8)
    return module


def follow(*values):
    return [(v, {}, FOLLOW) for v in values]


def idle(*values):
    return [(v, {}, IDLE) for v in values]


def size(*values):
    return [(v, {}, SIZE) for v in values]


def refuse(*values):
    return [(v, {}, REFUSE) for v in values]


def beside(value, says, **more):
    """A value that needs another key changed with it."""
    return [(value, more, says)]


# ---- UNet2DConditionModel ------------------------------------------------------------------------------------

UNET = dict(
    sample_size=8, block_out_channels=[8, 12], down_block_types=["CrossAttnDownBlock2D"] * 2,
    up_block_types=["CrossAttnUpBlock2D"] * 2, layers_per_block=1, cross_attention_dim=12, attention_head_dim=2,
    norm_num_groups=4, addition_embed_type="text_time", addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=6 + 6 * 4)


UNET_KEYS = {
    "sample_size": size(16, [32, 32]) + refuse([32, 48]),
    "in_channels": follow(5) + refuse(3),
    "out_channels": follow(3),
    "center_input_sample": follow(True),
    "flip_sin_to_cos": follow(False),
    "freq_shift": follow(1),
    "down_block_types": follow(["DownBlock2D", "CrossAttnDownBlock2D"], ["UNetResDownBlock2D", "DownBlock2D"]) + refuse(
        *[[b, "DownBlock2D"] for b in ("AttnDownBlock2D", "ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D",
                                       "SkipDownBlock2D", "AttnSkipDownBlock2D", "KDownBlock2D",
                                       "KCrossAttnDownBlock2D")]),
    "mid_block_type": follow("UNetMidBlock2D", None) + refuse("UNetMidBlock2DSimpleCrossAttn"),
    "up_block_types": follow(["CrossAttnUpBlock2D", "UpBlock2D"], ["UNetResUpBlock2D", "UpBlock2D"]) + refuse(
        *[["UpBlock2D", b] for b in ("AttnUpBlock2D", "ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D",
                                     "SkipUpBlock2D", "AttnSkipUpBlock2D", "KUpBlock2D", "KCrossAttnUpBlock2D")]),
    "only_cross_attention": idle([False, False]) + refuse(True, [True, False], [True, True]),
    "block_out_channels": follow([12, 16]),
    "layers_per_block": follow(2, [2, 1]),
    "downsample_padding": follow(0) + refuse(2),
    "mid_block_scale_factor": follow(1.75) + beside(0.5, FOLLOW, mid_block_type="UNetMidBlock2D"),
    "dropout": idle(0.5),
    "act_fn": follow("mish", "gelu", "relu", "GELU") + idle("swish") + refuse("quick_gelu", "elu"),
    "norm_num_groups": follow(2) + refuse(None),
    "norm_eps": follow(0.25),
    "cross_attention_dim": follow(16) + idle([12, 12]) + refuse([12, 16], None),
    "transformer_layers_per_block": follow(2, [1, 2]) + refuse([[1], [2]])
    + beside([[1], [2, 7]], FOLLOW, reverse_transformer_layers_per_block=[[2, 1], [1, 1]]),
    "reverse_transformer_layers_per_block": follow([[2, 1], 1], [0, 2], [[1, 0, 9], [1, 1]]),
    "encoder_hid_dim": refuse(12),
    "encoder_hid_dim_type": refuse("text_proj"),
    "attention_head_dim": follow(4, [2, 4]) + refuse(None),
    "num_attention_heads": refuse(2),
    "dual_cross_attention": refuse(True),
    "use_linear_projection": follow(True),
    "class_embed_type": refuse("timestep", "identity", "projection", "simple_projection"),
    "addition_embed_type": follow(None) + refuse("text", "text_image", "image", "image_hint"),
    "addition_time_embed_dim": beside(6, FOLLOW, projection_class_embeddings_input_dim=6 + 6 * 6) + refuse(None),
    "num_class_embeds": refuse(3, 0),
    "upcast_attention": idle(True, None),
    "resnet_time_scale_shift": refuse("scale_shift"),
    "resnet_skip_time_act": idle(True),
    "resnet_out_scale_factor": idle(2.0),
    "time_embedding_type": refuse("fourier"),
    "time_embedding_dim": follow(20),
    "time_embedding_act_fn": follow("silu", "relu"),
    "timestep_post_act": follow("gelu"),
    "time_cond_proj_dim": follow(8),
    "conv_in_kernel": follow(1) + refuse(5),
    "conv_out_kernel": follow(1) + refuse(5),
    "projection_class_embeddings_input_dim": follow(7 + 6 * 4) + refuse(None),
    "attention_type": refuse("gated", "gated-text-image"),
    "class_embeddings_concat": refuse(True),
    "mid_block_only_cross_attention": idle(True),
    "cross_attention_norm": idle("layer_norm", "group_norm"),
    "addition_embed_type_num_heads": idle(8),
    # not the class's own: what quantised files say
    "quantization_config": refuse({"load_in_4bit": True}),
}


def told(dim, scale):
    """The guidance as distilled models take it: sinusoids of 1000 (scale - 1), sines first."""
    half = dim // 2
    f = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
    a = torch.tensor([[(scale - 1) * 1000.0]]) * f
    return torch.cat([a.sin(), a.cos()], -1)


def run_unet(config):
    net = fill(UNet2DConditionModel(**config))
    c = net.config
    pooled = c.projection_class_embeddings_input_dim - 6 * c.addition_time_embed_dim

    def run(dtype=torch.float32):
        added = {"text_embeds": wave(torch.sin, 0.3, 1, pooled).to(dtype),
                 "time_ids": torch.tensor([[64.0, 56.0, 8.0, 4.0, 32.0, 48.0]], dtype=dtype)}
        cond = told(c.time_cond_proj_dim, GUIDANCE).to(dtype) if c.time_cond_proj_dim else None
        width = c.cross_attention_dim if isinstance(c.cross_attention_dim, int) else c.cross_attention_dim[0]
        return {"out": net(wave(torch.sin, 0.1, 1, c.in_channels, 7, 8).to(dtype), torch.tensor([321.0], dtype=dtype),
                           wave(torch.cos, 0.2, 1, 5, width).to(dtype), timestep_cond=cond,
                           added_cond_kwargs=added if c.addition_embed_type else None).sample}
    return net, run


# ---- AutoencoderKL -------------------------------------------------------------------------------------------

VAE = dict(block_out_channels=[4, 8], down_block_types=["DownEncoderBlock2D"] * 2,
           up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=1, norm_num_groups=2, sample_size=16)

VAE_KEYS = {
    "in_channels": refuse(4),
    "out_channels": refuse(4),
    "down_block_types": idle(["UNetResDownEncoderBlock2D", "DownEncoderBlock2D"])
    + refuse(["AttnDownEncoderBlock2D", "DownEncoderBlock2D"]),
    "up_block_types": idle(["UNetResUpDecoderBlock2D", "UpDecoderBlock2D"])
    + refuse(["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]),
    "block_out_channels": follow([6, 10]),
    "layers_per_block": follow(2),
    "act_fn": follow("gelu", "mish", "relu", "GELU") + idle("swish") + refuse("quick_gelu"),
    "latent_channels": follow(3),
    "norm_num_groups": follow(1) + refuse(None),
    "sample_size": idle(64, [32, 48]),
    "scaling_factor": follow(0.5) + refuse(None),
    "shift_factor": follow(0.25) + idle(0.0),
    "latents_mean": refuse([0.5, 0.0, 0.0, 0.0]),
    "latents_std": refuse([2.0, 1.0, 1.0, 1.0]),
    "force_upcast": idle(False),
    "use_quant_conv": follow(False),
    "use_post_quant_conv": follow(False),
    "mid_block_add_attention": follow(False),
    "quantization_config": refuse({"load_in_8bit": True}),
}


def run_vae(config):
    """Scale and shift as diffusers' pipelines use them that know both: z / scale + shift, and back."""
    net = fill(AutoencoderKL(**config))
    c = net.config
    shift = c.shift_factor or 0.0

    def run(dtype=torch.float32):
        z = wave(torch.sin, 0.1, 1, c.latent_channels, 3, 5).to(dtype)
        d = net.encode(wave(torch.cos, 0.05, 1, 3, 6, 10).to(dtype)).latent_dist
        return {"decode": net.decode(z / c.scaling_factor + shift).sample,
                "mean": (d.mean - shift) * c.scaling_factor, "logvar": d.logvar}
    return net, run


# ---- CLIPTextModelWithProjection -----------------------------------------------------------------------------

CLIP = dict(vocab_size=40, hidden_size=16, intermediate_size=24, projection_dim=10, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=12, bos_token_id=38, eos_token_id=39)
IDS = [38, 3, 17, 5, 11, 39, 5, 39, 39, 39, 39, 39]

CLIP_KEYS = {
    "vocab_size": follow(44),
    "hidden_size": follow(20),
    "intermediate_size": follow(32),
    "projection_dim": follow(8) + refuse(None),
    "num_hidden_layers": follow(3),
    "num_attention_heads": follow(4),
    "max_position_embeddings": follow(14),
    "hidden_act": follow("gelu", "relu", "silu", "swish", "mish") + refuse("gelu_new", "gelu_pytorch_tanh", "tanh"),
    "layer_norm_eps": follow(0.25) + refuse(None),
    "eos_token_id": follow(5, 11) + idle(2) + refuse(None, [39]),
    "attention_dropout": idle(0.5),
    "initializer_range": idle(0.5),
    "initializer_factor": idle(2.0),
    "pad_token_id": idle(3, None),
    "bos_token_id": idle(3, None),
    "transformers_version": idle("4.0.0"),
    "architectures": idle(["CLIPTextModel"]),
    "output_hidden_states": idle(True),
    "return_dict": idle(False),
    "dtype": idle("float16"),
    "chunk_size_feed_forward": idle(2),
    "is_encoder_decoder": idle(True),
    "id2label": idle({"0": "a"}),
    "label2id": idle({"a": 0}),
    "problem_type": idle("regression"),
    # not the class's own: what every file says, and quantised ones
    "model_type": refuse("clip_vision_model", "t5"),
    "quantization_config": refuse({"load_in_8bit": True}),
}


def run_clip(config):
    # who wrote the file, and in what form Python hands results over
    given = {k: v for k, v in config.items() if k not in ("transformers_version", "model_type", "return_dict")}
    net = fill(CLIPTextModelWithProjection(CLIPTextConfig(attn_implementation="eager", **given)).float())

    def run(dtype=torch.float32):
        o = net(torch.tensor([IDS]), return_dict=True)
        return {"last": o.last_hidden_state, "pooled": o.text_embeds}
    return net, run


# ---- all -----------------------------------------------------------------------------------------------------

def shapes(net):
    return {n: list(p.shape) for n, p in net.named_parameters()}


def differences(base, other):
    return {n: other.get(n) for n in sorted(base | other) if base.get(n) != other.get(n)}


def what_it_does(make, config, base):
    """A refused value in the reference: "fails", "same" or how far its outputs are from the base's."""
    try:
        _, run = make(config)
        out = run()
    except Exception:
        return "fails"
    if any(out[k].shape != base[k].shape for k in base):
        return "other shapes"
    return "same" if all(torch.equal(out[k], base[k]) for k in base) else max(max_rel(out[k], base[k]) for k in base)


def take(cls, make, component, base, keys, signature, tensors):
    defaults = {k: p.default for k, p in signature.items() if k not in ("self", "kwargs")}
    missing = [k for k in defaults if k not in keys]
    assert not missing, "%s: no row for %s" % (cls, missing)
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    full = {**{k: v for k, v in listed.items()}, **base}
    net, run = make(full)
    first, names = run(), shapes(net)
    for k, v in first.items():
        tensors["%s/base/%s" % (component, k)] = v
    exact = in_f64(lambda: run(torch.float64), net)
    rows, worst = [], max(max_rel(first[k], exact[k]) for k in first)
    for key, values in keys.items():
        out_values = []
        for i, (value, more, says) in enumerate(values):
            config = {**full, key: value, **more}
            entry = {"value": value, "says": says}
            if more:
                entry["with"] = more
            if says == REFUSE:
                entry["reference"] = what_it_does(make, config, first)
                out_values.append(entry)
                continue
            net, run = make(config)
            out = run()
            if says == FOLLOW:
                exact = in_f64(lambda: run(torch.float64), net)
                entry["tensors"] = differences(names, shapes(net))
                entry["golden"] = "%s/%s/%d" % (component, key, i)
                moves = max(max_rel(out[k], first[k]) if out[k].shape == first[k].shape else math.inf for k in out)
                entry["f64_rel"] = float("%.2g" % max(max_rel(out[k], exact[k]) for k in out))
                worst = max(worst, entry["f64_rel"])
                assert moves > 1e-3 or entry["tensors"], "%s %s = %r moves nothing: %g" % (cls, key, value, moves)
                for k, v in out.items():
                    tensors["%s/%s" % (entry["golden"], k)] = v
            else:
                assert all(torch.equal(out[k], first[k]) for k in out), "%s %s = %r is not idle" % (cls, key, value)
            out_values.append(entry)
        rows.append({"key": key, "of_class": key in defaults, "preset": listed.get(key), "values": out_values})
    print("%-28s %d keys, %d of the class; f64_rel up to %.1e" % (cls, len(keys), len(defaults), worst))
    return {"class": cls, "component": component, "config": full, "tensors": names, "keys": rows}


def ends(tensors):
    """eos_token_id of tiny-sdxl's second encoder: where the pooled vector is taken, at the first of that id, at the
    highest id where the configuration is an old one that says 2, and at the beginning where there is none."""
    net = pipeline(os.path.join(MODELS, "tiny-sdxl")).text_encoder_2
    end = net.config.eos_token_id
    ids = [3] * 77
    ids[0], ids[4], ids[6], ids[9] = end - 1, 5, end, end
    rows = []
    for token in (end, 2, 5, 7):
        net.text_model.eos_token_id = token
        tensors["ends/%d" % token] = net(torch.tensor([ids])).text_embeds[0]
        rows.append(token)
    return {"model": "models/tiny-sdxl", "ids": ids, "eos_token_id": rows}


def parameters(cls):
    return inspect.signature(cls.__init__).parameters


def main():
    tensors, nets = {}, []
    nets.append(take("UNet2DConditionModel", run_unet, "unet", UNET, UNET_KEYS, parameters(UNet2DConditionModel),
                     tensors))
    nets.append(take("AutoencoderKL", run_vae, "vae", VAE, VAE_KEYS, parameters(AutoencoderKL), tensors))
    nets.append(take("CLIPTextConfig", run_clip, "text_encoder", CLIP, CLIP_KEYS, parameters(CLIPTextConfig), tensors))
    end = ends(tensors)
    store("settings.safetensors", tensors)
    write_json("settings.json", {"versions": versions(), "guidance": GUIDANCE, "ids": IDS, "ends": end, "nets": nets})


if __name__ == "__main__":
    main()
