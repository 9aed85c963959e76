"""Write tests/data/layouts: tiny-sdxl, tiny-refiner and tiny-inpaint in the other layouts that models come in.

    python make_layouts.py

The single files are named by the published tables of names (tests/data/tables) where these reach, and by the rule of
the original programs' modules for the rest, both written down here apart from weft's own map. Then diffusers' own
converters turn the files back, and what comes out must be the folder's tensors, every one. The tensors are those of
the folders, bit for bit, so a test needs no other golden than the folder itself.

Names in the way, as real files have them: EMA shadows, noise schedules, position ids as floats, OpenCLIP's unused last
layer, its temperature.
"""
import json
import os
import re
import shutil

import torch
from common import DATA, MODELS
from safetensors.torch import load_file, save_file

LAYOUTS = os.path.join(DATA, "layouts")


def weights(model, part):
    stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
    return load_file(os.path.join(MODELS, model, part, stem + ".safetensors"))


def config(model, part):
    with open(os.path.join(MODELS, model, part, "config.json")) as f:
        return json.load(f)


# ---- names: the modules of the original programs, counted as their constructors append them ----------------------

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}


def unet_modules(cfg):
    """diffusers' module prefix -> LDM's, by appending blocks in the order in which the original UNet makes them."""
    out = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
           "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
           "add_embedding.linear_2": "label_emb.0.2"}
    levels, n = len(cfg["block_out_channels"]), cfg["layers_per_block"]

    def resnet(ours, theirs):
        out.update({"%s.%s" % (ours, a): "%s.%s" % (theirs, b) for a, b in RESNET.items()})

    entry = 1
    for i in range(levels):
        for j in range(n):
            resnet("down_blocks.%d.resnets.%d" % (i, j), "input_blocks.%d.0" % entry)
            out["down_blocks.%d.attentions.%d" % (i, j)] = "input_blocks.%d.1" % entry
            entry += 1
        if i < levels - 1:
            out["down_blocks.%d.downsamplers.0.conv" % i] = "input_blocks.%d.0.op" % entry
            entry += 1
    resnet("mid_block.resnets.0", "middle_block.0")
    out["mid_block.attentions.0"] = "middle_block.1"
    resnet("mid_block.resnets.1", "middle_block.2")
    entry = 0
    for i in range(levels):
        attends = "CrossAttn" in cfg["up_block_types"][i]
        for j in range(n + 1):
            resnet("up_blocks.%d.resnets.%d" % (i, j), "output_blocks.%d.0" % entry)
            out["up_blocks.%d.attentions.%d" % (i, j)] = "output_blocks.%d.1" % entry
            if j == n and i < levels - 1:
                out["up_blocks.%d.upsamplers.0.conv" % i] = "output_blocks.%d.%d.conv" % (entry, 2 if attends else 1)
            entry += 1
    return out


def vae_modules(cfg):
    out, levels, n = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}, len(cfg["block_out_channels"]), cfg["layers_per_block"]
    for side in ("encoder", "decoder"):
        for a, b in (("conv_in", "conv_in"), ("conv_out", "conv_out"), ("conv_norm_out", "norm_out"),
                     ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
                     ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"), ("mid_block.attentions.0.to_q", "mid.attn_1.q"),
                     ("mid_block.attentions.0.to_k", "mid.attn_1.k"), ("mid_block.attentions.0.to_v", "mid.attn_1.v"),
                     ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")):
            out["%s.%s" % (side, a)] = "%s.%s" % (side, b)
    for i in range(levels):
        for j in range(n + 1):
            out["encoder.down_blocks.%d.resnets.%d" % (i, j)] = "encoder.down.%d.block.%d" % (i, j)
            out["decoder.up_blocks.%d.resnets.%d" % (i, j)] = "decoder.up.%d.block.%d" % (levels - 1 - i, j)
        out["encoder.down_blocks.%d.downsamplers.0.conv" % i] = "encoder.down.%d.downsample.conv" % i
        out["decoder.up_blocks.%d.upsamplers.0.conv" % i] = "decoder.up.%d.upsample.conv" % (levels - 1 - i)
    return out


def renamed(tensors, modules, prefix):
    """Longest module prefix wins; what follows it stays."""
    out = {}
    for name, t in tensors.items():
        at = name
        while at and at not in modules:
            at = at.rpartition(".")[0]
        assert at, name
        out[prefix + modules[at] + name[len(at):]] = t
    return out


def old_vae(tensors):
    new = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    return {re.sub(r"\.(query|key|value|proj_attn)\.", lambda m: ".%s." % new[m[1]], k): t for k, t in tensors.items()}


def vae(model, prefix="first_stage_model."):
    out = renamed(old_vae(weights(model, "vae")), vae_modules(config(model, "vae")), prefix)
    for k, t in out.items():
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight$", k):
            out[k] = t[:, :, None, None]            # 1x1 convolutions there
        if k.endswith("nin_shortcut.weight"):
            assert t.ndim == 4
    return {k.replace("conv_shortcut", "nin_shortcut"): t for k, t in out.items()}


def unet(model):
    return renamed(weights(model, "unet"), unet_modules(config(model, "unet")), "model.diffusion_model.")


def text_names(tensors):
    return {k if k.startswith(("text_model.", "text_projection")) else "text_model." + k: t for k, t in tensors.items()}


def openclip(model, part, prefix, extra_layer):
    """OpenCLIP's names, q, k and v in one matrix; SD2's files have one more layer than the folder."""
    t, out = text_names(weights(model, part)), {}
    layers = config(model, part)["num_hidden_layers"]
    words = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}
    out["token_embedding.weight"] = t["text_model.embeddings.token_embedding.weight"]
    out["positional_embedding"] = t["text_model.embeddings.position_embedding.weight"]
    for w in ("weight", "bias"):
        out["ln_final." + w] = t["text_model.final_layer_norm." + w]
        for i in range(layers):
            at, to = "text_model.encoder.layers.%d." % i, "transformer.resblocks.%d." % i
            for a, b in words.items():
                out["%s%s.%s" % (to, b, w)] = t["%s%s.%s" % (at, a, w)]
            out["%sattn.in_proj_%s" % (to, w)] = torch.cat([t["%sself_attn.%s_proj.%s" % (at, x, w)] for x in "qkv"])
    width = out["positional_embedding"].shape[1]
    if "text_projection.weight" in t:
        out["text_projection"] = t["text_projection.weight"].T.contiguous()
    else:
        out["text_projection"] = torch.zeros(width, width, dtype=out["positional_embedding"].dtype)
    if extra_layer:
        for k in [k for k in out if k.startswith("transformer.resblocks.0.")]:
            out[k.replace("resblocks.0.", "resblocks.%d." % layers)] = torch.full_like(out[k], 7)
    out["logit_scale"] = torch.tensor(4.6)
    return {prefix + k: v for k, v in out.items()}


def clip_l(model, part, prefix):
    out = {prefix + k: t for k, t in text_names(weights(model, part)).items()}
    out[prefix + "text_model.embeddings.position_ids"] = torch.arange(77).float()[None]  # as some merges have them
    return out


def aside():
    """What checkpoints carry beside the model."""
    out = {k: torch.linspace(0, 1, 4) for k in (
        "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "posterior_variance", "logvar")}
    out["model_ema.decay"] = torch.tensor(0.9999)
    out["model_ema.num_updates"] = torch.tensor(470000, dtype=torch.int32)
    out["model_ema.diffusion_modelinput_blocks00bias"] = torch.zeros(8)
    return out


def single(model):
    kind = model.split("-")[1]
    out = {**unet(model), **vae(model)}
    if kind in ("sd1", "inpaint"):
        out.update(clip_l(model, "text_encoder", "cond_stage_model.transformer."))
        out.update(aside())
    elif kind == "sd2":
        out.update(openclip(model, "text_encoder", "cond_stage_model.model.", True))
    elif kind == "sdxl":
        out.update(clip_l(model, "text_encoder", "conditioner.embedders.0.transformer."))
        out.update(openclip(model, "text_encoder_2", "conditioner.embedders.1.model.", False))
        out["denoiser.sigmas"] = torch.linspace(0.03, 14.6, 4)
    else:
        out.update(openclip(model, "text_encoder_2", "conditioner.embedders.0.model.", False))
    return {k: v.contiguous() for k, v in out.items()}


# ---- diffusers turns them back ------------------------------------------------------------------------------------

def check_back(model, tensors):
    from diffusers.loaders import single_file_utils as u

    def same(got, want, what):
        want = dict(want)
        missing, unknown = set(want) - set(got), set(got) - set(want)
        assert not missing and not unknown, (model, what, sorted(missing)[:3], sorted(unknown)[:3])
        for k in want:
            assert torch.equal(got[k].reshape(want[k].shape), want[k]), (model, what, k)

    same(u.convert_ldm_unet_checkpoint(dict(tensors), dict(config(model, "unet"))), weights(model, "unet"), "unet")
    same(u.convert_ldm_vae_checkpoint(dict(tensors), dict(config(model, "vae"))), old_vae(weights(model, "vae")), "vae")
    for part in ("text_encoder", "text_encoder_2"):
        if not os.path.isdir(os.path.join(MODELS, model, part)):
            continue
        want = text_names(weights(model, part))
        prefixes = {**dict.fromkeys(("sd1", "inpaint"), "cond_stage_model.transformer."), 
                    "sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.0.transformer." if part == "text_encoder" else "conditioner.embedders.1.model.",
                    "refiner": "conditioner.embedders.0.model."}
        prefix = prefixes[model.split("-")[1]]
        cut = {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}
        if prefix.endswith("transformer."):
            cut.pop("text_model.embeddings.position_ids")
            same(cut, want, part)
            continue
        # diffusers' converter wants the published widths; the parts that do not depend on them are asked of its table
        table = u.DIFFUSERS_TO_LDM_MAPPING["openclip"]["layers"]
        for ours, theirs in table.items():
            if ours in want:
                got = cut[theirs]
                assert torch.equal(got.T if theirs == "text_projection" else got, want[ours]), (model, part, ours)


def shards(model, folder):
    """The UNet in two files with an index in one spelling of a variant, the text encoder in the other."""
    for part, spelling in (("unet", "%s.safetensors.index.fp16.json"), ("text_encoder", "%s.fp16.safetensors.index.json")):
        stem, t = "model" if part.startswith("text") else "diffusion_pytorch_model", weights(model, part)
        names, cut = sorted(t), len(t) // 2
        files = ["%s.fp16-0000%d-of-00002.safetensors" % (stem, i) for i in (1, 2)]
        where = {n: files[i >= cut] for i, n in enumerate(names)}
        os.makedirs(os.path.join(folder, part))
        for f in files:
            save_file({n: t[n] for n in names if where[n] == f}, os.path.join(folder, part, f), metadata={"format": "pt"})
        with open(os.path.join(folder, part, spelling % stem), "w") as out:
            json.dump({"metadata": {"total_size": sum(x.numel() * x.element_size() for x in t.values())}, "weight_map": where}, out)


def pickled(model, folder):
    for part, name in (("vae", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin")):
        os.makedirs(os.path.join(folder, part))
        torch.save(weights(model, part), os.path.join(folder, part, name))


def checkpoint(tensors, path):
    """As Lightning saves them."""
    torch.save({"epoch": 6, "global_step": 470000, "pytorch-lightning_version": "1.4.2", "state_dict": tensors,
                "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}], "callbacks": {}, "lr_schedulers": []}, path)


def main():
    shutil.rmtree(LAYOUTS, ignore_errors=True)
    os.makedirs(LAYOUTS)
    at = lambda name: os.path.join(LAYOUTS, name)
    files = {m: single(m) for m in ("tiny-sd1", "tiny-sd2", "tiny-sdxl", "tiny-refiner", "tiny-inpaint")}
    for m, t in files.items():
        check_back(m, t)
    for m in ("tiny-sdxl", "tiny-refiner"):
        save_file(files[m], at(m + ".safetensors"))
    checkpoint(files["tiny-inpaint"], at("tiny-inpaint.ckpt"))
    torch.save({"state_dict": {**vae("tiny-inpaint", ""), "loss.logvar": torch.zeros(1)}}, at("tiny-inpaint.vae.pt"))
    save_file(vae("tiny-sdxl", "first_stage_model."), at("tiny-sdxl.vae.safetensors"))
    shards("tiny-inpaint", at("tiny-inpaint-shards"))
    pickled("tiny-inpaint", at("tiny-inpaint-pickled"))
    for d, _, fs in os.walk(LAYOUTS):
        os.chmod(d, 0o755)
        for f in fs:
            os.chmod(os.path.join(d, f), 0o644)
            print(os.path.relpath(os.path.join(d, f), LAYOUTS), os.path.getsize(os.path.join(d, f)))


if __name__ == "__main__":
    main()
