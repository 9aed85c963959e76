"""Opens the adapters that weft trains in diffusers, PEFT and LyCORIS, and holds their networks against weft's own.

    python check_trained_forms.py ../../build/libweft.so [recipe ..]

A few steps of each recipe of layers on tiny-sd2 (whose weights are 32-bit floats), beside the attentions and beside all layers,
saved in each dialect and opened by its tool. The truth is weft's: the plan with the trained adapter merged into a model
of its own, opened by diffusers. The UNet's predictions are compared, a line for each; what weft refuses to write is
listed with its reason. Full training is the model itself.
"""
import ctypes as C
import os
import sys
import tempfile
import warnings

import torch
from check_saved import by_diffusers, by_lycoris, by_peft
from check_trained_words import P, TrainOptions, TrainStep, Weft
from common import MODELS, load, max_rel, pipeline

warnings.simplefilter("ignore")
LIMIT = 1e-5
MODEL = os.path.join(MODELS, "tiny-sd2")
CONV, FEED, BOTH = 1 << 1, 1 << 2, 1 << 11
DIALECTS = {"kohya": (1, by_lycoris), "diffusers": (2, by_diffusers), "PEFT": (3, lambda pipe, path: by_peft(pipe, path, False))}
# recipe, flags, rank, alpha, factor
CASES = [("lora", 0, 4, 0, 0), ("lora", CONV | FEED, 4, 6, 0), ("dora", 0, 4, 2, 0), ("dora", CONV | FEED, 4, 0, 0),
         ("loha", 0, 2, 3, 0), ("loha", CONV | FEED, 2, 0, 0), ("lokr", 0, 2, 1, 0), ("lokr", CONV | FEED, 1, 2, 2),
         ("lokr", BOTH, 1, 2, 0), ("lokr", 0, 64, 9, 0), ("moslora", CONV | FEED, 4, 6, 0), ("blora", 0, 8, 0, 0)]


def train(w, model, case):
    recipe, flags, rank, alpha, factor = case
    o = TrainOptions(struct_size=C.sizeof(TrainOptions), flags=flags, recipe=w.lib.weft_recipe_from_name(recipe.encode()), rate=2e-2,
                     rank=rank, alpha=alpha, factor=factor, width=SIDE, height=SIDE, batch=1, steps=10, seed=1)
    t = w.make("weft_trainer_create", model, C.byref(o))
    g = torch.Generator().manual_seed(3)
    rgb = torch.randint(0, 256, (SIDE * SIDE * 3,), generator=g, dtype=torch.uint8).numpy().tobytes()
    w("weft_trainer_add_picture", t, rgb, C.c_size_t(len(rgb)), SIDE, SIDE, b"a photo of a cat", 1)
    for _ in range(4):
        s = TrainStep(struct_size=C.sizeof(TrainStep))
        w("weft_trainer_step", t, C.byref(s))
    return t


def merged(w, model, t, path):
    """weft's own weights, as a model."""
    adapter, plan = w.make("weft_trainer_adapter", t), w.make("weft_plan_create", model, None)
    w("weft_plan_add", plan, adapter, C.c_float(1), None)
    w("weft_plan_seal", plan, 1)
    w("weft_plan_save_model", plan, path.encode())
    w.free("weft_plan_free", plan)
    w.free("weft_adapter_free", adapter)


def predict(pipe):
    case = {k.split("/")[2]: v for k, v in load("nets_tiny-sd2.safetensors").items() if k.startswith("unet/times/")}
    with torch.no_grad():
        return pipe.unet(case["sample"], case["timestep"], case["context"]).sample


def check(w, model, case, base):
    failed = 0
    t = train(w, model, case)
    with tempfile.TemporaryDirectory() as tmp:
        merged(w, model, t, os.path.join(tmp, "model"))
        want = predict(pipeline(os.path.join(tmp, "model")))
        name = "%s rank %d alpha %g factor %d%s" % (case[0], case[2], case[3], case[4], " everywhere" if case[1] & CONV else " both" if case[1] else "")
        learnt = max_rel(want, base)
        assert learnt > 1e-3, (name, learnt)
        for dialect, (number, open_by) in DIALECTS.items():
            path = os.path.join(tmp, dialect + ("" if dialect == "PEFT" else ".safetensors"))
            head = "%-40s %-9s" % (name, dialect)
            try:
                w("weft_trainer_save", t, path.encode(), number, 0)
            except RuntimeError as e:
                print(head, "-", str(e)[:150])
                continue
            try:
                pipe = pipeline(MODEL)
                found, rel = open_by(pipe, path), None
                rel = max_rel(predict(pipe), want)
            except Exception as e:
                rel, found = float("inf"), "%s: %s" % (type(e).__name__, str(e)[:100])
            bad = not rel <= LIMIT
            print(head, "%.1e of %.1e, %s modules%s" % (rel, learnt, found, "  WRONG" if bad else ""))
            failed += bad
    w.free("weft_trainer_free", t)
    return failed


def full(w, model, base):
    t = train(w, model, ("full", 0, 0, 0, 0))
    with tempfile.TemporaryDirectory() as tmp:
        path, own = os.path.join(tmp, "full"), os.path.join(tmp, "model")
        w("weft_trainer_save", t, path.encode(), 0, 0)
        merged(w, model, t, own)
        got, want = predict(pipeline(path)), predict(pipeline(own))
    w.free("weft_trainer_free", t)
    print("%-40s %-9s %.1e of %.1e" % ("full", "model", max_rel(got, want), max_rel(want, base)))
    return not max_rel(got, want) <= LIMIT


def main():
    global SIDE
    w, only = Weft(os.path.abspath(sys.argv[1])), sys.argv[2:]
    for f in ("weft_trainer_free", "weft_plan_free", "weft_adapter_free", "weft_model_free"):
        getattr(w.lib, f).argtypes, getattr(w.lib, f).restype = [P], None
    pipe = pipeline(MODEL)
    SIDE, base = 8 * pipe.vae_scale_factor, predict(pipe)
    model = w.make("weft_model_open", MODEL.encode(), None)
    failed = sum(check(w, model, c, base) for c in CASES if not only or c[0] in only)
    if not only or "full" in only:
        failed += full(w, model, base)
    w.free("weft_model_free", model)
    print("%d wrong" % failed)
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
