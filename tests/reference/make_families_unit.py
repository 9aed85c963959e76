"""One module of each family, by LyCORIS and PEFT themselves: its tensors, the layer's weight, and what it adds to both.

Where make_families.py holds whole files against whole networks, this asks each library for the difference of one small
layer, so that a wrong order of elements is seen where it is. Everything in f64 where the library allows it (LyCORIS
inverts in f32). Sizes are such that no two dimensions agree by chance.

golden/families_unit.safetensors has <kind of layer>/W and bias, and for each case <case>/<part> with the names of
wf_part_name(), <case>/delta and where there is one <case>/delta_bias; families_unit.json has what a configuration would
say of each case, and its kind of layer.
"""
import json
import os
import warnings

import torch
import torch.nn as nn

from common import GOLDEN, noise, store

os.environ.setdefault("LYCORIS_BACKEND", "torch")
warnings.filterwarnings("ignore")

from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
import peft

tensors, cases = {}, {}
seed = 100


def draw(*shape, scale=1.0):
    global seed
    seed += 1
    return noise(seed, *shape).double() * scale


def fill(module, scale):
    """Random numbers into every parameter of an adapter, that f32 and f64 agree on."""
    for p in module.parameters():
        p.data = draw(*p.shape, scale=scale).float().double()


SIZES = {"linear": (8, 12, 0), "conv": (8, 6, 3), "wide": (12, 16, 3), "point": (8, 12, 1), "norm": (8, 0, 0)}
weights = {}


def layer(kind):
    """A layer with the weight and bias of its kind, the same ones every time."""
    out, width, k = SIZES[kind]
    if kind == "norm":
        made = nn.LayerNorm(out)
    else:
        made = nn.Conv2d(width, out, k, padding=k // 2) if k > 0 else nn.Linear(width, out)
    if kind not in weights:
        weights[kind] = tuple(draw(*p.shape, scale=0.5).float().double() for p in (made.weight, made.bias))
        for part, value in zip(("W", "bias"), weights[kind]):
            tensors["%s/%s" % (kind, part)] = value.float()
    made = made.double()
    made.weight.data, made.bias.data = (p.clone() for p in weights[kind])
    return made


def keep(name, kind, parts, delta, bias=None, **settings):
    for part, value in parts.items():
        tensors["%s/%s" % (name, part)] = value.detach().clone().float().contiguous()
    tensors[name + "/delta"] = delta.detach().float().contiguous()
    if bias is not None:
        tensors[name + "/delta_bias"] = bias.detach().float()
    cases[name] = dict(settings, layer=kind)


# ---- LyCORIS ----------------------------------------------------------------------------------------------

def parts_of(state):
    """LyCORIS' state with our names of parts; alpha is a setting."""
    names = {"lora_up.weight": "lora_up", "lora_down.weight": "lora_down", "lora_mid.weight": "lora_mid",
             "a1.weight": "a1", "a2.weight": "a2", "b1.weight": "b1", "b2.weight": "b2", "bm.weight": "bm"}
    parts = {names.get(k, k): v for k, v in state.items() if v is not None}
    alpha = parts.pop("alpha", None)
    return parts, ({} if alpha is None else {"alpha": float(alpha)})


def lycoris(name, cls, kind, scale=0.3, **options):
    base = layer(kind)
    module = cls("m", base, **options).double()
    fill(module, scale)
    if cls in (DiagOFTModule, ButterflyOFTModule):
        base, module = base.float(), module.float()
    W = base.weight.detach().clone()
    if getattr(module, "wd", False):
        module.dora_scale.data = (module.dora_scale.abs() + 1).float().double()
    state = module.custom_state_dict() or module.state_dict()
    parts, settings = parts_of(state)
    if cls in (LohaModule, LokrModule):  # get_diff_weight() multiplies with the scale twice; forward() does not
        delta = module.get_weight(W.shape)
    else:
        delta = module.get_diff_weight(1, W.shape)[0]
    if getattr(module, "wd", False):
        delta = module.apply_weight_decompose(W + delta, 1) - W
    bias = None
    if cls is FullModule:
        parts = {"diff": module.weight.data, "diff_b": module.bias.data}
        delta, bias = module.get_diff_weight(1, W.shape)
    if cls is NormModule:
        delta, bias = module.get_diff_weight(1)
    keep(name, kind, parts, delta, bias, **settings)


for kind in ("linear", "conv"):
    lycoris("locon_" + kind, LoConModule, kind, lora_dim=3, alpha=2)
    lycoris("locon_dora_" + kind, LoConModule, kind, lora_dim=3, alpha=2, weight_decompose=True)
    lycoris("locon_columns_" + kind, LoConModule, kind, lora_dim=3, alpha=2, weight_decompose=True, wd_on_out=False)
    lycoris("loha_" + kind, LohaModule, kind, lora_dim=3, alpha=2)
    lycoris("lokr_" + kind, LokrModule, kind, lora_dim=1, alpha=2, factor=2)
    lycoris("lokr_both_" + kind, LokrModule, kind, lora_dim=1, alpha=2, factor=2, decompose_both=True)
    lycoris("lokr_full_" + kind, LokrModule, kind, lora_dim=1, alpha=2, factor=2, full_matrix=True)
    lycoris("glora_" + kind, GLoRAModule, kind, lora_dim=3, alpha=2)
    lycoris("full_" + kind, FullModule, kind)
    lycoris("ia3_out_" + kind, IA3Module, kind)
    lycoris("ia3_in_" + kind, IA3Module, kind, train_on_input=True)
    lycoris("oft_" + kind, DiagOFTModule, kind, lora_dim=4)
    lycoris("oft_held_" + kind, DiagOFTModule, kind, lora_dim=4, constraint=0.02, rescaled=True)
    lycoris("boft_" + kind, ButterflyOFTModule, kind, lora_dim=4)
    lycoris("boft_held_" + kind, ButterflyOFTModule, kind, lora_dim=4, constraint=0.02, rescaled=True)
lycoris("locon_rslora", LoConModule, "linear", lora_dim=4, alpha=2, rs_lora=True)
lycoris("locon_tucker", LoConModule, "conv", lora_dim=3, alpha=2, use_tucker=True)
lycoris("loha_tucker", LohaModule, "conv", lora_dim=3, alpha=2, use_tucker=True)
lycoris("loha_dora", LohaModule, "conv", lora_dim=3, alpha=2, weight_decompose=True)
lycoris("lokr_tucker", LokrModule, "wide", lora_dim=2, alpha=3, factor=2, use_tucker=True)
lycoris("lokr_rank2", LokrModule, "wide", lora_dim=2, alpha=3, factor=2)
lycoris("lokr_dora", LokrModule, "linear", lora_dim=1, alpha=2, factor=2, weight_decompose=True)
lycoris("locon_point", LoConModule, "point", lora_dim=3, alpha=2)
lycoris("glora_point", GLoRAModule, "point", lora_dim=3, alpha=2)
lycoris("norm_both", NormModule, "norm")


# ---- PEFT --------------------------------------------------------------------------------------------------

class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.one = layer(kind)


def by_peft(name, kind, config, scale=0.3, about=0.0, after=None, **settings):
    net = Net(kind)
    base = nn.Module()
    base.weight, base.bias = net.one.weight.detach().clone(), net.one.bias.detach().clone()
    model = peft.get_peft_model(net, config).double()
    for key, p in model.named_parameters():
        if ".one." in key and "base_layer" not in key and "ranknum" not in key:
            p.data = (draw(*p.shape, scale=scale) + (about if "magnitude" not in key else 3)).float().double()
    if after is not None:
        after(model.base_model.model.one)
    state = peft.get_peft_model_state_dict(model)
    parts = {}
    for key, value in state.items():
        part = key.split(".one.")[1]
        part = {"lora_A.weight": "lora_down", "lora_B.weight": "lora_up", "lora_A": "lora_down", "lora_B": "lora_up",
                "lora_B.bias": "lora_up.bias", "oft_R.weight": "oft_R", "lora_magnitude_vector": "dora_scale",
                "lora_magnitude_vector.weight": "dora_scale"}.get(part, part)
        parts[part] = value.clone()  # merging constrains COFT's in place
    one = model.base_model.model.one
    one.merge()
    now = one.get_base_layer() if hasattr(one, "get_base_layer") else one.base_layer
    delta, bias = now.weight.detach() - base.weight, now.bias.detach() - base.bias
    keep(name, kind, parts, delta, bias if bias.abs().max() > 0 else None, peft=True, **settings)


T = {"target_modules": ["one"]}
for kind in ("linear", "conv"):
    by_peft("peft_lora_" + kind, kind, peft.LoraConfig(r=3, lora_alpha=2, lora_bias=True, **T), alpha=2)
    by_peft("peft_dora_" + kind, kind, peft.LoraConfig(r=3, lora_alpha=2, use_dora=True, **T), alpha=2)
    by_peft("peft_rslora_" + kind, kind, peft.LoraConfig(r=3, lora_alpha=2, use_rslora=True, **T), alpha=2, rslora=True)
    by_peft("peft_loha_" + kind, kind, peft.LoHaConfig(r=3, alpha=2, init_weights=False, **T), alpha=2)
    by_peft("peft_lokr_" + kind, kind, peft.LoKrConfig(r=1, alpha=2, init_weights=False, decompose_factor=2, **T), alpha=2,
            rank=1)
    by_peft("peft_lokr_full_" + kind, kind, peft.LoKrConfig(r=8, alpha=2, init_weights=False, **T), alpha=2, rank=8)
    by_peft("peft_ia3_out_" + kind, kind, peft.IA3Config(feedforward_modules=[], **T), about=1.0)
    by_peft("peft_ia3_in_" + kind, kind, peft.IA3Config(feedforward_modules=["one"], **T), about=1.0, feedforward=True)
    for terms in (1, 2, 3, 4, 5, 7) if kind == "linear" else (5,):
        by_peft("peft_oft_%d_%s" % (terms, kind), kind,
                peft.OFTConfig(oft_block_size=4, num_cayley_neumann_terms=terms, init_weights=False, **T), scale=0.1,
                neumann=terms)
    by_peft("peft_oft_" + kind, kind, peft.OFTConfig(oft_block_size=4, use_cayley_neumann=False, init_weights=False, **T),
            neumann=0)
    by_peft("peft_oft_shared_" + kind, kind, peft.OFTConfig(oft_block_size=4, block_share=True, init_weights=False, **T),
            scale=0.1, neumann=5)
    by_peft("peft_coft_" + kind, kind, peft.OFTConfig(oft_block_size=4, coft=True, eps=0.3, init_weights=False, **T),
            neumann=5, coft=0.3)
    by_peft("peft_boft_" + kind, kind, peft.BOFTConfig(boft_block_size=6, init_weights=False, **T), about=0.2)
    by_peft("peft_adalora_" + kind, kind, peft.AdaLoraConfig(init_r=5, target_r=2, lora_alpha=7, total_step=10, **T), alpha=7,
            rank=5)
by_peft("peft_loha_effective", "conv", peft.LoHaConfig(r=3, alpha=2, init_weights=False, use_effective_conv2d=True, **T),
        alpha=2)
by_peft("peft_lokr_both", "linear", peft.LoKrConfig(r=1, alpha=2, init_weights=False, decompose_both=True, **T), alpha=2,
        rank=1)


def butterfly(kind, stages, b):
    """More stages than PEFT makes without its CUDA extension, from PEFT's own permutation and its own map."""
    from peft.tuners.boft.layer import BOFTLayer
    W = layer(kind).weight.flatten(1)
    out, width = W.shape
    R, s = draw(stages, width // b, b, b, scale=0.3).float().double(), (draw(out, 1, scale=0.3) + 1).float().double()
    mat = torch.eye(width, dtype=torch.float64)
    for i in range(stages):
        P = BOFTLayer.perm2mat(None, BOFTLayer.block_butterfly_perm(None, width, width // b // 2 ** i, b // 2, stages - 1))
        turn = torch.block_diag(*BOFTLayer.cayley_batch(None, R[i]))
        mat = P.double() @ turn @ P.double().T @ mat
    delta = ((mat @ W.T).T * s - W).reshape(layer(kind).weight.shape)
    keep("peft_boft_%d_stages_%s" % (stages, kind), kind, {"boft_R": R, "boft_s": s}, delta, peft=True)


butterfly("linear", 2, 2)
butterfly("wide", 3, 4)

store("families_unit.safetensors", tensors)
with open(os.path.join(GOLDEN, "families_unit.json"), "w") as f:
    json.dump(cases, f, indent=0, sort_keys=True)
    f.write("\n")
