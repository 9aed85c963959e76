"""Opens the words that weft trains in diffusers, and holds the networks with them against weft's own.

    python check_trained_words.py ../../build/libweft.so

Textual Inversion on tiny-sd1, tiny-sd2 and tiny-sdxl, and Custom Diffusion on tiny-sd1: two steps by weft, the files saved, loaded by
diffusers' load_textual_inversion and its reader of Custom Diffusion. Then the hidden states of a prompt with the word, and the UNet's prediction, are
compared with a weft run whose plan has the trained concept. ED-LoRA's flat file is nested again and saved as the .pth of the authors'
program, which weft must read as the same concept. A line for each.
"""
import ctypes as C
import os
import sys
import tempfile

import torch
from common import MODELS, REPO, max_rel, noise, pipeline
from safetensors.torch import load_file

sys.path.insert(0, os.path.join(REPO, "tests", "ffi"))
from step import Encode, Error, RunOptions, Step, Text  # noqa: E402

LIMIT = 2e-5
P = C.c_void_p


class TrainOptions(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32)] + [(n, P) for n in ("allocator", "log", "log_user", "progress", "progress_user")] + [
        (n, C.c_char_p) for n in ("modules", "tokens", "initial", "name")] + [("content", P), ("style", P), ("seed", C.c_uint64)] + [
        (n, C.c_double) for n in ("rate", "text_rate", "token_rate", "beta1", "beta2", "epsilon", "weight_decay", "clip", "alpha", "noise_offset",
                                  "min_snr", "prior_weight", "dropout", "ema", "similarity")] + [
        (n, C.c_int32) for n in ("recipe", "steps", "batch", "accumulate", "rank", "factor", "vectors", "optimiser", "rates", "warmup", "width",
                                 "height", "threads", "reserved0")]


class TrainStep(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("step", C.c_int64)] + [
        (n, C.c_double) for n in ("loss", "prior_loss", "other_loss", "gradient_norm", "rate")]


class ConceptOptions(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("allocator", P), ("log", P), ("log_user", P), ("tokens", C.c_char_p),
                ("second", C.c_char_p)]


class Weft:
    def __init__(self, path):
        self.lib, self.err = C.CDLL(path), Error()

    def __call__(self, name, *args):
        if getattr(self.lib, name)(*args, C.byref(self.err)) != 0:
            raise RuntimeError("%s: %s" % (name, self.err.text.decode()))

    def make(self, name, *args):
        out = P()
        self(name, *args, C.byref(out))
        return out

    def free(self, name, p):
        getattr(self.lib, name)(p)

    def train(self, model, side, recipe, tokens, vectors, captions):
        o = TrainOptions(struct_size=C.sizeof(TrainOptions), recipe=self.lib.weft_recipe_from_name(recipe), tokens=tokens, vectors=vectors,
                         rate=1e-2, width=side, height=side, batch=1, steps=10, seed=1)
        t = self.make("weft_trainer_create", model, C.byref(o))
        g = torch.Generator().manual_seed(3)
        for i, c in enumerate(captions):
            rgb = torch.randint(0, 256, (side * side * 3,), generator=g, dtype=torch.uint8).numpy().tobytes()
            self("weft_trainer_add_picture", t, rgb, C.c_size_t(len(rgb)), side, side, c, i + 1)
        for _ in range(2):
            s = TrainStep(struct_size=C.sizeof(TrainStep))
            self("weft_trainer_step", t, C.byref(s))
        return t

    def predict(self, model, concept, prompt, x, t, time_ids, tokens, dim, pooled):
        """(hidden states, pooled, prediction) of one prompt."""
        plan = self.make("weft_plan_create", model, None)
        self("weft_plan_add_concept", plan, concept, C.c_float(1), None)
        self("weft_plan_seal", plan, 1)
        o = RunOptions(struct_size=C.sizeof(RunOptions), height=x.shape[2], width=x.shape[3])
        run = self.make("weft_run_create", plan, C.byref(o))
        hidden, pool = (C.c_float * (tokens * dim))(), (C.c_float * max(pooled, 1))()
        texts = (Text * 2)(Text(C.sizeof(Text), 0, hidden, tokens * dim, tokens, 0), Text(C.sizeof(Text), 0, pool, pooled, 1, 0))
        streams = 2 if pooled else 1
        e = Encode(struct_size=C.sizeof(Encode), prompt=prompt.encode(), text=texts, text_count=streams)
        self("weft_run_encode", run, C.byref(e))
        n = x.numel()
        out, latent = (C.c_float * n)(), (C.c_float * n)(*x.flatten().tolist())
        ids = (C.c_float * 6)(*time_ids)
        s = Step(struct_size=C.sizeof(Step), latent=latent, latent_len=n, text=texts, text_count=streams, out=out, out_len=n, timestep=t,
                 time_ids=ids if pooled else None, time_ids_len=6 if pooled else 0)
        self("weft_run_step", run, C.byref(s))
        self.free("weft_run_free", run)
        self.free("weft_plan_free", plan)
        return torch.tensor(hidden[:]).reshape(tokens, dim), torch.tensor(pool[:pooled]), torch.tensor(out[:]).reshape(x.shape)


def report(what, got, want):
    rel = max(max_rel(a, b) for a, b in zip(got, want))
    print("%-44s %.1e%s" % (what, rel, "" if rel <= LIMIT else "  WRONG"))
    return rel <= LIMIT


def judge(w, model, pipe, concept, prompt, what, xl):
    x, t, ids = noise(11, 1, 4, 8, 8), 321.0, [64.0, 64.0, 0.0, 0.0, 64.0, 64.0]
    if xl:
        text, _, pooled, _ = pipe.encode_prompt(prompt=prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        more = {"text_embeds": pooled, "time_ids": torch.tensor([ids])}
        want = [text[0], pooled[0], pipe.unet(x, t, text, added_cond_kwargs=more).sample]
    else:
        text = pipe.encode_prompt(prompt=prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
        want = [text[0], torch.zeros(0), pipe.unet(x, t, text).sample]
    got = w.predict(model, concept, prompt, x, t, ids, *text[0].shape, want[1].numel())
    keep = (0, 1, 2) if xl else (0, 2)
    return report(what, [got[i] for i in keep], [want[i] for i in keep])


def words(w, folder, name, vectors):
    xl = "xl" in name
    pipe = pipeline(os.path.join(MODELS, name))
    side = 8 * (pipe.vae_scale_factor)
    model = w.make("weft_model_open", os.path.join(MODELS, name).encode(), None)
    t = w.train(model, side, b"textual-inversion", b"<new1>", vectors, [b"a photo of {}"])
    path = os.path.join(folder, name + ".safetensors")
    w("weft_trainer_save", t, path.encode(), 0, 0)
    concept = w.make("weft_trainer_concept", t)
    file = load_file(path)
    if xl:
        pipe.load_textual_inversion(file["clip_l"], token="<new1>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
        pipe.load_textual_inversion(file["clip_g"], token="<new1>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    else:
        pipe.load_textual_inversion(path)
    good = judge(w, model, pipe, concept, "a photo of <new1> on the mat", "%s, %d vectors" % (name, vectors), xl)
    w.free("weft_concept_free", concept)
    w.free("weft_trainer_free", t)
    w.free("weft_model_free", model)
    return good


def custom(w, folder):
    pipe = pipeline(os.path.join(MODELS, "tiny-sd1"))
    model = w.make("weft_model_open", os.path.join(MODELS, "tiny-sd1").encode(), None)
    t = w.train(model, 8 * pipe.vae_scale_factor, b"custom-diffusion", b"<new1>", 1, [b"a photo of a {} cat", b"a photo of a cat"])
    path = os.path.join(folder, "cd.safetensors")
    w("weft_trainer_save", t, path.encode(), 0, 0)
    concept = w.make("weft_trainer_concept", t)
    # load_attn_procs() itself wants a .bin, in which self-attentions are there and empty, and sets nothing without a pipeline
    pipe.unet.set_attn_processor({**pipe.unet.attn_processors, **pipe.unet._process_custom_diffusion(load_file(path))})
    pipe.load_textual_inversion(os.path.join(folder, "cd.words.safetensors"))
    good = judge(w, model, pipe, concept, "a photo of a <new1> cat", "tiny-sd1, custom diffusion", False)
    w.free("weft_concept_free", concept)
    w.free("weft_trainer_free", t)
    w.free("weft_model_free", model)
    return good


def nested(w, folder):
    """The .pth that docs/training-recipes.md makes is the file."""
    model = w.make("weft_model_open", os.path.join(MODELS, "tiny-sd1").encode(), None)
    pipe = pipeline(os.path.join(MODELS, "tiny-sd1"))
    t = w.train(model, 8 * pipe.vae_scale_factor, b"ed-lora", b"<c1>,<c2>", 1, [b"a photo of {}"])
    path = os.path.join(folder, "ed.safetensors")
    w("weft_trainer_save", t, path.encode(), 0, 0)
    params = {"new_concept_embedding": {}, "text_encoder": {}, "unet": {}}
    for name, tensor in load_file(path).items():
        part, key = name.split(".", 2)[1:]
        params[part][key] = tensor
    torch.save({"params": params}, os.path.join(folder, "ed.pth"))
    folds = []
    for f in ("ed.safetensors", "ed.pth"):
        o = ConceptOptions(struct_size=C.sizeof(ConceptOptions))
        c = w.make("weft_concept_open", os.path.join(folder, f).encode(), C.byref(o))
        plan = w.make("weft_plan_create", model, None)
        w("weft_plan_add_concept", plan, c, C.c_float(1), None)
        w("weft_plan_seal", plan, 1)
        a = w.make("weft_plan_fold", plan, None)
        w("weft_adapter_save", a, model, os.path.join(folder, "fold.safetensors").encode(), None)
        folds.append(load_file(os.path.join(folder, "fold.safetensors")))
        for free, p in (("adapter", a), ("plan", plan), ("concept", c)):
            w.free("weft_%s_free" % free, p)
    w.free("weft_trainer_free", t)
    w.free("weft_model_free", model)
    assert folds[0].keys() == folds[1].keys()
    return report("tiny-sd1, ed-lora as .pth", [folds[0][k] for k in folds[0]], [folds[1][k] for k in folds[0]])


if __name__ == "__main__":
    weft = Weft(os.path.abspath(sys.argv[1]))
    with tempfile.TemporaryDirectory() as tmp:
        ok = [words(weft, tmp, m, n) for m, n in (("tiny-sd1", 1), ("tiny-sd1", 3), ("tiny-sd2", 2), ("tiny-sdxl", 2))]
        ok += [custom(weft, tmp), nested(weft, tmp)]
    sys.exit(0 if all(ok) else 1)
