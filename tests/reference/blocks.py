"""Weights by block, B-LoRA and ZipLoRA: the re-statement that blocks.json comes from, on top of compose.py.

Written from the formulas alone. Blocks are numbered as LDM does (lora.sgm_name). A coefficient with a number for each
column of the delta is a tensor (K) in the order of the stored weight, (in, ky, kx).
"""
import re

import lora
import torch
from compose import Merge
from safetensors.torch import load_file


# ---------------------------------------------------------------- weights by block

def block_of(unet, module):
    """"IN04", "MID", "OUT00", or None for a layer outside of all blocks."""
    c = unet.config
    name = lora.sgm_name(module, c.layers_per_block, ["CrossAttn" in t for t in c.up_block_types])
    m = re.match(r"(input_blocks|output_blocks)\.(\d+)\.", name)
    if m:
        return "%s%02d" % ("IN" if m[1] == "input_blocks" else "OUT", int(m[2]))
    return "MID" if name.startswith("middle_block") else None


def slots(unet):
    """Names of all blocks in the vectors' order, and of BASE and those with attention."""
    names = [n for n, m in unet.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    seen = {block_of(unet, n) for n in names} - {None}
    order = lambda have: (["BASE"] + sorted(x for x in have if x.startswith("IN")) + ["MID"] * ("MID" in have) +
                          sorted(x for x in have if x.startswith("OUT")))
    return order(seen), order({block_of(unet, n) for n in names if lora.group(n, None) == "attn"})


def factor_of(unet, numbers):
    """factor(component, module) of a vector of one of the two lengths."""
    full, short = slots(unet)
    assert len(numbers) in (len(full), len(short)), (len(numbers), len(full), len(short))
    table = dict(zip(full if len(numbers) == len(full) else short, numbers))
    def factor(component, module):
        block = block_of(unet, module) if component == "unet" else "BASE"
        return 1.0 if block is None else table.get(block, 0.0)
    return factor


# ---------------------------------------------------------------- B-LoRA

class BLora(Merge):
    """content, style = adapters (one alone is both). Each acts in its own blocks; squared: alpha on both factors.
    SDXL: the two published transformers. Else the finer half of the levels with attention is style, the rest content."""

    def __init__(self, adapters, unet, content=None, style=None, squared=False):
        Merge.__init__(self, adapters)
        self.te, self.squared = [], squared
        c = unet.config
        if c.addition_embed_type == "text_time":
            own = (r"up_blocks\.0\.attentions\.0\.", r"up_blocks\.0\.attentions\.1\.")
        else:
            with_attention = [i for i, t in enumerate(c.down_block_types) if "CrossAttn" in t]
            fine, last = with_attention[:(len(with_attention) + 1) // 2], len(c.down_block_types) - 1
            these = lambda levels: "|".join(r"down_blocks\.%d\.|up_blocks\.%d\." % (i, last - i) for i in levels)
            own = (these([i for i in with_attention if i not in fine]) + r"|mid_block\.", these(fine))
        self.content, self.style = content or own[0], style or own[1]

    def layer_cell(self, n, N, module):
        in_c, in_s = bool(re.match(self.content, module)), bool(re.match(self.style, module))
        here = [in_c or in_s] if len(self.adapters) == 1 else [in_c, in_s]
        return [(a.weight ** 2 if self.squared else a.weight) * h for a, h in zip(self.adapters, here)]


# ---------------------------------------------------------------- ZipLoRA

def column(a, b, lam):
    """The least of a (m-1)^2 + b (n-1)^2 + 2 lam sqrt(a b) m n over m, n >= 0, by trying every face of the quadrant."""
    if a <= 0 or b <= 0:
        return 1.0, 1.0
    k = lam * (a * b) ** 0.5
    f = lambda m, n: a * (m - 1) ** 2 + b * (n - 1) ** 2 + 2 * k * m * n
    tries = [(1.0, 0.0), (0.0, 1.0)]
    if lam < 1:
        m, n = torch.linalg.solve(torch.tensor([[a, k], [k, b]], dtype=torch.float64), torch.tensor([a, b], dtype=torch.float64)).tolist()
        tries += [(m, n)] if m >= 0 and n >= 0 else []
    return min(tries, key=lambda t: f(*t))


class Zip(Merge):
    """content, style = adapters: D_c diag(m_c) + w_s D_s diag(m_s); coefficients of a file, else our closed form."""

    def __init__(self, adapters, lam=1.0, style=1.0, coefficients=None, network=None):
        Merge.__init__(self, adapters)
        c, s = (a.unet() for a in adapters)
        self.style, self.m = style, {}
        given = load_file(coefficients) if coefficients else {}
        network = {k: v.double() for k, v in torch.load(network).items()} if network else None
        for module in sorted(set(c) | set(s)):
            if coefficients:
                self.m[module] = [given.get("unet.%s.zip.%s" % (module, e)) for e in ("m_c", "m_s")]
            elif network:
                if module in c and module in s and module.endswith((".to_q", ".to_out.0")):
                    self.m[module] = self.ask(network, [lora.delta(e[module]).double() for e in (c, s)])
            elif module in c and module in s:
                d = [lora.delta(e[module]).flatten(1).pow(2).sum(0) for e in (c, s)]
                share = [(x / x.sum() if x.sum() > 0 else x).tolist() for x in d]
                pairs = [column(a, b, lam) for a, b in zip(*share)]
                self.m[module] = [torch.tensor(v, dtype=torch.float64) for v in zip(*pairs)]

    @staticmethod
    def ask(network, deltas):
        """The published program's network: an input for each height of column, then a ReLU and two outputs."""
        x = torch.cat([d.T for d in deltas], 1)
        for k in [k for k in network if k.startswith("input_") and k.endswith(".weight") and network[k].shape[1] == x.shape[1]]:
            hidden = torch.nn.functional.linear(x, network[k], network[k.replace(".weight", ".bias")])
            y = torch.nn.functional.linear(hidden.relu(), network["output.1.weight"], network["output.1.bias"])
            return [y[:, 0], y[:, 1]]
        return [None, None]

    def layer_cell(self, n, N, module):
        out = []
        for a, v, w in zip(self.adapters, self.m.get(module, [None, None]), (1.0, self.style)):
            e = a.unet().get(module)
            if v is not None and e is not None:      # one number for each input stands for all places of a kernel
                taps = e["A"][0, 0].numel()
                v = v if len(v) != e["A"].shape[1] else v.repeat_interleave(taps)
            out.append(a.weight * w if v is None or e is None else a.weight * w * v.double())
        return out
