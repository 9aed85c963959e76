"""Holds the adapters that weft writes against the tools whose spelling they are in.

    python check_saved.py ../../build/libweft.so [name ..]

Every file of the families' goldens is written by weft_adapter_save() in kohya's, diffusers' and PEFT's spelling, opened by LyCORIS
(kohya's), diffusers and PEFT, and the tool's own forward in f32 is compared with the stored outputs of the formulas in f64. A line for
each; what weft refuses to write is listed with its reason. It also writes golden/saved.json, of these names or of all: what stands in
the files of SHOWN, key by key, which is how the C tests know that weft still writes what was opened here.
"""
import ctypes as C
import json
import logging
import os
import sys
import tempfile
import warnings

import torch
from common import DATA, GOLDEN, MODELS, load, max_rel, pipeline, read_json, write_json
from make_families import outputs
from safetensors import safe_open

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

DIALECTS = {"kohya": 1, "diffusers": 2, "PEFT": 3}
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
SHOWN = ("peft_lora", "peft_dora", "peft_loha_tucker", "peft_lokr", "peft_lokr_tucker", "peft_adalora", "peft_oft", "peft_oft_coft",
         "peft_boft", "peft_ia3", "peft_lora_bias", "lyco_locon_tucker", "lyco_dora", "lyco_dora_columns", "lyco_loha", "lyco_lokr_full",
         "lyco_xl_locon", "lyco_oft_rescale", "lyco_glora", "moslora_peft",
         "peft_pissa", "peft_olora", "peft_c3a", "peft_miss_mini", "peft_miss_bat", "peft_delora", "peft_gralora_hybrid", "peft_randlora_seed")


# What the tools themselves cannot open, or open without all of it; the file is right, which the C tests show by reading it again.
LIMITS = {
    ("kohya", "lora_B.bias"): (("peft_lora_bias", "diffusers_bias", "kohya_bias"), "LyCORIS reads no diff_b beside LoRA's factors"),
    ("kohya", "lokr"): (("peft_lokr", "peft_lokr_tucker", "lyco_lokr_tucker"), "LyCORIS guesses other factors than the file's"),
    ("kohya", "ia3"): (("lyco_ia3", "lyco_xl_ia3"), "LyCORIS cannot open its own (IA)^3"),
    ("kohya", "columns"): (("lyco_dora_columns", "lyco_dora_lokr", "lyco_sd2_dora", "onetrainer_dora"), "LyCORIS opens magnitudes of rows alone"),
    ("kohya", "glora"): (("glora_tucker",), "LyCORIS never makes GLoRA's Tucker core"),
    ("kohya", "oft"): (("kohya_oft", "kohya_xl_oft"), "LyCORIS makes no blocks larger than their number"),
    ("diffusers", "dora"): (("peft_dora_te", "diffusers_dora", "lyco_dora"), "diffusers drops a text encoder's magnitudes"),
    ("diffusers", "fc1"): (("lyco_xl_locon", "lyco_xl_dora", "kohya_xl_ldm", "kohya_xl_diffusers", "comfy_xl_lora", "onetrainer_xl",
                           "onetrainer_omi"),
                           "diffusers wants an attention's module in each text encoder"),
    ("PEFT", "boft"): (("peft_boft_stages",), "PEFT makes one stage without its CUDA extension"),
}


def limit_of(name, dialect):
    return next((why for (n, _), (names, why) in LIMITS.items() if n == dialect and name in names), None)


class Error(C.Structure):
    _fields_ = [("code", C.c_int32), ("sys", C.c_int32), ("text", C.c_char * 504)]


class SaveOptions(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("dialect", C.c_int32), ("reserved0", C.c_int32)]


class Weft:
    def __init__(self, path):
        self.lib = C.CDLL(path)
        for name in ("weft_model_free", "weft_adapter_free"):
            getattr(self.lib, name).argtypes = [C.c_void_p]
            getattr(self.lib, name).restype = None
        self.models = {}

    def open(self, what, path):
        handle, err = C.c_void_p(), Error()
        if getattr(self.lib, "weft_%s_open" % what)(path.encode(), None, C.byref(handle), C.byref(err)) != 0:
            raise RuntimeError(err.text.decode())
        return handle

    def save(self, adapter, model, path, dialect):
        if model not in self.models:
            self.models[model] = self.open("model", os.path.join(MODELS, model))
        handle, err = self.open("adapter", adapter), Error()
        try:
            options = SaveOptions(C.sizeof(SaveOptions), 0, DIALECTS[dialect], 0)
            st = self.lib.weft_adapter_save(handle, self.models[model], path.encode(), C.byref(options), C.byref(err))
        finally:
            self.lib.weft_adapter_free(handle)
        if st != 0:
            raise RuntimeError(err.text.decode())


# ---- the tools -----------------------------------------------------------------------------------------------------

def by_lycoris(pipe, path):
    from lycoris.wrapper import LycorisNetwork, create_lycoris_from_weights
    found = 0
    xl = getattr(pipe, "text_encoder_2", None) is not None
    for c, prefix in zip(COMPONENTS, ("lora_unet", "lora_te1" if xl else "lora_te", "lora_te2")):
        net = getattr(pipe, c, None)
        if net is None:
            continue
        if c != "unet" and not hasattr(net, "text_model"):
            prefix += "_text_model"
        LycorisNetwork.LORA_PREFIX = prefix
        made, _ = create_lycoris_from_weights(1.0, path, net)
        for one in made.loras:
            one.eval().float()
            one.apply_to()
        found += len(made.loras)
    return found


def by_diffusers(pipe, path):
    pipe.load_lora_weights(os.path.dirname(path), weight_name=os.path.basename(path), adapter_name="x")
    nets = [n for n in (getattr(pipe, c, None) for c in COMPONENTS) if n is not None]
    return sum(hasattr(m, "lora_A") and len(m.lora_A) > 0 for n in nets for m in n.modules())


def by_peft(pipe, path, merge):
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    found = 0
    for c in COMPONENTS:
        folder = os.path.join(path, c)
        if not os.path.isdir(folder):
            continue
        net = PeftModel.from_pretrained(getattr(pipe, c), folder)
        net.float().eval()
        found += sum(isinstance(m, BaseTunerLayer) for m in net.modules())
        if merge:
            net.merge_adapter()
    return found


def compare(case, dialect, path, T):
    pipe = pipeline(os.path.join(MODELS, case["model"]))
    t = T[case["model"]]
    merge = case["family"] == "OFT"  # PEFT's forward of a 3x3 convolution is not its merge
    found = by_lycoris(pipe, path) if dialect == "kohya" else by_diffusers(pipe, path) if dialect == "diffusers" else by_peft(pipe, path, merge)
    prefix = case["cases"][0]["prefix"]
    got = outputs(pipe, t, case["unet"] > 0, case["text"] > 0)
    wrong = {k: max_rel(v, t[prefix + "/" + k]) for k, v in got.items() if prefix + "/" + k in t}
    return found, max(wrong.values())


# ---- what stands in them -----------------------------------------------------------------------------------------------

def contents(path):
    if os.path.isdir(path):
        return {c: contents(os.path.join(path, c, "adapter_model.safetensors")) | {
            "config": open(os.path.join(path, c, "adapter_config.json")).read()} for c in sorted(os.listdir(path))}
    with safe_open(path, "pt") as f:
        made = {"tensors": [[k, f.get_slice(k).get_dtype(), list(f.get_slice(k).get_shape())] for k in sorted(f.keys())]}
        about = (f.metadata() or {}).get("lora_adapter_metadata")
    return made if about is None else made | {"config": about}


def main():
    weft, only = Weft(os.path.abspath(sys.argv[1])), sys.argv[2:]
    files, T = [], {}
    for stem in ("families", "families_peft", "families_peft2"):
        files += read_json(stem + ".json")["files"]
        for m in ("tiny-sd1", "tiny-sd2", "tiny-sdxl"):
            T[m] = T.get(m, {}) | load("%s_%s.safetensors" % (stem, m))
    shown, worst, count = {}, 0.0, {"same": 0, "refused": 0, "limits": 0, "failed": 0}
    for case in files:
        if only and case["name"] not in only:
            continue
        for dialect in DIALECTS:
            with tempfile.TemporaryDirectory() as tmp:
                path = os.path.join(tmp, "saved" + ("" if dialect == "PEFT" else ".safetensors"))
                head = "%-20s %-9s" % (case["name"], dialect)
                try:
                    weft.save(os.path.join(DATA, case["path"]), case["model"], path, dialect)
                except RuntimeError as e:
                    count["refused"] += 1
                    print(head, "-", str(e)[:150])
                    continue
                held = contents(path) if case["name"] in SHOWN else None
                try:
                    found, err = compare(case, dialect, path, T)
                except Exception as e:
                    why = limit_of(case["name"], dialect)
                    count["failed" if why is None else "limits"] += 1
                    print(head, "CANNOT OPEN", why or (type(e).__name__, str(e).replace("\n", " ")[:200]))
                    continue
                good = err <= 1e-5 and found == case["modules"]
                if good and held is not None:
                    shown.setdefault(case["name"], {})[dialect] = held
                why = None if good else limit_of(case["name"], dialect)
                count["same" if good else "limits" if why else "failed"] += 1
                worst = max(worst, err if good else 0)
                print(head, "%.1e" % err, "%d of %d modules" % (found, case["modules"]), "" if good else why or "DIFFERENT")
    print(count, "worst of the same: %.1e" % worst)
    write_json("saved.json", (read_json("saved.json") if only else {}) | shown)
    return count["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
