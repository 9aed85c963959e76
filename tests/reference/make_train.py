"""Gradients of everything that can be trained, by torch's autograd on diffusers' networks, in double.

    python make_train.py [MODEL ...]      writes golden/train_<model>.safetensors
    python make_train.py MODEL CASE ...   prints the cases' losses and writes nothing

The loss is the mean of (prediction - target)^2 over two samples with timesteps and texts of their own, of a size that
halves to odd ones. Parameters that have no file come from a formula that C remakes (leaf()). Of each gradient is
stored what tells it: some entries, evenly spread, its length, and its product with a sine (digest()), all in weft's
order: weights are (out, ky, kx, in), factors down (rank, ky, kx, in) and up (rank, out).

To add a case: a function that takes a Setup and returns leaves, a dict of names to tensors in weft's order with
requires_grad, and overrides, a dict of networks to {parameter: tensor made of leaves}; and a line in CASES.
Keys in the file are case/layer/what; the layer is named as weft names it.
"""
import math
import os
import sys

import torch
from torch.func import functional_call

import common
from common import MODELS, noise, pipeline, store

ENTRIES = 12
RANK = 3


def seed_of(name):
    return sum(name.encode()) % 97


def wave(name, n, size):
    """size * sin(1 + 0.61803398875 i + k), k from the name, rounded to float32 as C has it."""
    i = torch.arange(n, dtype=torch.float64)
    return (size * torch.sin(1 + 0.61803398875 * i + seed_of(name))).float().double()


def leaf(name, shape, size):
    return wave(name, math.prod(shape), size).reshape(shape).requires_grad_(True)


def digest(g):
    g = g.detach().double().reshape(-1)
    n = g.numel()
    m = min(n, ENTRIES)
    i = torch.arange(n, dtype=torch.float64)
    return torch.cat([g[[k * n // m for k in range(m)]], g.norm()[None], (g * torch.sin(0.7 * i + 0.3)).sum()[None]])


def to_weft(w):
    """(out, in, kh, kw) -> (out, kh, kw, in); others as they are."""
    return w.permute(0, 2, 3, 1).contiguous() if w.dim() == 4 else w


def from_weft(w, like):
    """(out, kh * kw * in) in weft's order -> the shape of a parameter."""
    if like.dim() != 4:
        return w.reshape(like.shape)
    o, i, kh, kw = like.shape
    return w.reshape(o, kh, kw, i).permute(0, 3, 1, 2)


class Setup:
    def __init__(self, name):
        self.name = name
        self.pipe = pipeline(os.path.join(MODELS, name), torch.float64)
        self.xl = getattr(self.pipe, "text_encoder_2", None) is not None
        self.unet = self.pipe.unet
        self.encoders = [self.pipe.text_encoder] + ([self.pipe.text_encoder_2] if self.xl else [])
        self.nets = {"unet": self.unet, "text_encoder": self.pipe.text_encoder}
        if self.xl:
            self.nets["text_encoder_2"] = self.pipe.text_encoder_2
        c = self.unet.config
        self.inputs = {
            "sample": noise(701, 2, c.in_channels, 10, 6), "target": noise(702, 2, c.out_channels, 10, 6),
            "timestep": torch.tensor([741.0, 37.0]), "context": noise(703, 2, 9, c.cross_attention_dim),
        }
        if self.xl:
            width = c.projection_class_embeddings_input_dim - 6 * c.addition_time_embed_dim
            self.inputs["pooled"] = noise(704, 2, width)
            self.inputs["time_ids"] = torch.tensor([[32., 24., 0., 0., 32., 24.], [64., 48., 8., 4., 32., 32.]])
        # ids: BOS, words, two new tokens, EOS, padding
        for k, e in enumerate(self.encoders):
            tok = [self.pipe.tokenizer, getattr(self.pipe, "tokenizer_2", None)][k]
            vocab, n = e.config.vocab_size, tok.model_max_length
            rows, eos = [], []
            for words in ([5, vocab, 9, vocab + 1, 11], [17, vocab, vocab, 3]):
                row = [tok.bos_token_id] + words + [tok.eos_token_id]
                eos.append(len(row) - 1)
                rows.append(row + [tok.pad_token_id] * (n - len(row)))
            self.inputs["ids%d" % k] = torch.tensor(rows, dtype=torch.int32)
            self.inputs["eos%d" % k] = torch.tensor(eos, dtype=torch.int32)

    def layers(self, net):
        """(weft's name, parameter's prefix, weight, bias) of every layer with a weight, embeddings of words aside."""
        params = dict(self.nets[net].named_parameters())
        for key, w in params.items():
            if key.endswith(".weight") and "embeddings." not in key:
                p = key[:-len(".weight")]
                q = p if net == "unet" or p.startswith(("text_model.", "text_projection")) else "text_model." + p
                yield net + "." + q, p, w, params.get(p + ".bias")

    def encode(self, over, words):
        """Hidden states and pooled rows of the ids, with the vectors of new words behind the vocabulary."""
        hidden, pooled = [], None
        for k, e in enumerate(self.encoders):
            key = "text_encoder" + ("_2" if k else "")
            params = dict(over.get(key, {}))
            # transformers 5 keeps the text model in the encoder itself, 4 below text_model
            table = [n for n, _ in e.named_parameters() if n.endswith("token_embedding.weight")][0]
            params[table] = torch.cat([dict(e.named_parameters())[table], words[k]])
            ids = self.inputs["ids%d" % k].long()
            o = functional_call(e, params, (ids,), {"output_hidden_states": True})
            if not self.xl:
                hidden.append(o.last_hidden_state)
                continue
            hidden.append(o.hidden_states[-2])
            if k == 1:
                last = o.last_hidden_state if hasattr(o, "last_hidden_state") else None
                eos = self.inputs["eos1"].long()
                w = params.get("text_projection.weight", e.text_projection.weight)
                pooled = last[torch.arange(len(eos)), eos] @ w.T
        return torch.cat(hidden, -1), pooled

    def cross_attentions(self):
        """In the order of execution."""
        u = self.unet
        for part in list(u.down_blocks) + [u.mid_block] + list(u.up_blocks):
            for name, m in part.named_modules() if part is not None else ():
                if name.endswith(".attn2"):
                    yield m

    def predict(self, over, context=None, pooled=None):
        """context: one for all cross-attentions, or a list with one for each."""
        if isinstance(context, list):
            hooks = []
            for m, c in zip(self.cross_attentions(), context, strict=True):
                own = lambda module, args, kwargs, c=c: (args, dict(kwargs, encoder_hidden_states=c))
                hooks.append(m.register_forward_pre_hook(own, with_kwargs=True))
            try:
                return self.predict(over, context[0], pooled)
            finally:
                for h in hooks:
                    h.remove()
        i = self.inputs
        context = i["context"].double() if context is None else context
        add = None
        if self.xl:
            add = {"text_embeds": i["pooled"].double() if pooled is None else pooled, "time_ids": i["time_ids"].double()}
        return functional_call(self.unet, over.get("unet", {}), (i["sample"].double(), i["timestep"], context),
                               {"added_cond_kwargs": add}).sample

    def loss(self, out):
        return ((out - self.inputs["target"].double()) ** 2).mean()


# ---- cases -----------------------------------------------------------------------------------------------------------

def pair(setup, net, picks, leaves, over):
    """LoRA of rank 3 with the scale 0.5 on the layers that are picked."""
    for name, p, w, _ in setup.layers(net):
        if w.dim() < 2 or not picks(p):
            continue
        fan = w[0].numel()
        down = leaves[name + "/down"] = leaf(name + "/down", (RANK, fan), 1 / math.sqrt(fan))
        up = leaves[name + "/up"] = leaf(name + "/up", (RANK, w.shape[0]), 0.3)
        over.setdefault(net, {})[p + ".weight"] = w + 0.5 * from_weft(up.T @ down, w)


def lora(setup):
    leaves, over = {}, {}
    pair(setup, "unet", lambda p: ".attn1." in p or ".attn2." in p, leaves, over)
    return leaves, over


def lora_all(setup):
    leaves, over = {}, {}
    pair(setup, "unet", lambda p: True, leaves, over)
    return leaves, over


def full(setup, picks=lambda p: True):
    leaves, over = {}, {}
    for name, p, w, b in setup.layers("unet"):
        if not picks(p):
            continue
        leaves[name + "/weight"] = to_weft(w.detach()).clone().requires_grad_(True)
        over.setdefault("unet", {})[p + ".weight"] = from_weft(leaves[name + "/weight"], w)
        if b is not None:
            leaves[name + "/bias"] = b.detach().clone().requires_grad_(True)
            over["unet"][p + ".bias"] = leaves[name + "/bias"]
    return leaves, over


def keys_values(setup):
    return full(setup, lambda p: p.endswith((".attn2.to_k", ".attn2.to_v")))


def text(setup):
    """Pairs on every linear layer of the text encoders; new words stay as they are."""
    leaves, over = {}, {}
    for net in setup.nets:
        if net != "unet":
            pair(setup, net, lambda p: True, leaves, over)
    return leaves, over


def words(setup):
    """Only two new words, a row in each encoder."""
    return {}, {}


def layered(setup):
    """Only the new words, which have rows of their own for each cross-attention, as ED-LoRA's."""
    return {}, {}


CASES = {"lora": (lora, False), "lora_all": (lora_all, False), "full": (full, False), "keys_values": (keys_values, False),
         "text": (text, True), "words": (words, True),
         "layered": (layered, True)}


def run(setup, case):
    """The loss, and {layer/what: gradient}, of a case."""
    make, encodes = CASES[case]
    with torch.enable_grad():
        leaves, over = make(setup)
        context = pooled = None
        if encodes:
            layers = len(list(setup.cross_attentions())) if case == "layered" else 1
            rows = [leaf("words%d" % k, (layers, 2, e.config.hidden_size), 0.05) for k, e in enumerate(setup.encoders)]
            if case != "text":
                leaves.update({"words%d/row" % k: r for k, r in enumerate(rows)})
            sets = [setup.encode(over, [r[j] for r in rows]) for j in range(layers)]
            context, pooled = [c for c, _ in sets] if layers > 1 else sets[0][0], sets[0][1]
        loss = setup.loss(setup.predict(over, context, pooled))
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for k, g in zip(leaves, grads):
        assert g is not None or "text_encoder." in k, k  # SDXL never runs the first encoder's last layer
    return loss.detach(), {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), grads)}


def main(args):
    names = [a for a in args if a.startswith("tiny")] or ["tiny-sd1", "tiny-sd2", "tiny-sdxl"]
    only = [a for a in args if not a.startswith("tiny")]
    for name in names:
        setup = Setup(name)
        tensors = {"in/" + k: v for k, v in setup.inputs.items()}
        for case in only or CASES:
            loss, grads = run(setup, case)
            tensors[case + "/loss"] = loss.reshape(1)
            tensors.update({case + "/" + k: digest(g).float() for k, g in grads.items()})
            print(name, case, "%.9g" % loss, len(grads))
        if not only:
            print(os.path.getsize(store("train_%s.safetensors" % name, tensors)))


if __name__ == "__main__":
    main(sys.argv[1:])
