"""A training through ctypes alone: pictures from memory, the loop, a checkpoint, and what was learned in a plan.

    python3 tests/ffi/train.py build/libweft.so LAYOUT FOLDER

As in step.py nothing here was compiled against weft. Two trainers take four steps, one of them with a break after the
second: the losses are equal to the last bit, and so are the files in FOLDER.
"""
import ctypes as C
import math
import os
import sys

from step import Error, Progress, Weft, E_ARG, E_CANCELLED, check_mirrors, find_model

LORA, INSTANCE = 1, 1


class TrainOptions(C.Structure):
    weft = "weft_train_options"
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("allocator", C.c_void_p), ("log", C.c_void_p),
                ("log_user", C.c_void_p), ("progress", Progress), ("progress_user", C.c_void_p)] + [
        (name, C.c_char_p) for name in ("modules", "tokens", "initial", "name")
    ] + [("content", C.c_void_p), ("style", C.c_void_p), ("seed", C.c_uint64)] + [
        (name, C.c_double)
        for name in ("rate", "text_rate", "token_rate", "beta1", "beta2", "epsilon", "weight_decay", "clip", "alpha",
                     "noise_offset", "min_snr", "prior_weight", "dropout", "ema", "similarity")
    ] + [
        (name, C.c_int32)
        for name in ("recipe", "steps", "batch", "accumulate", "rank", "factor", "vectors", "optimiser", "rates",
                     "warmup", "width", "height", "threads", "reserved0")
    ]


class TrainStep(C.Structure):
    weft = "weft_train_step"
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("step", C.c_int64)] + [
        (name, C.c_double) for name in ("loss", "prior_loss", "other_loss", "gradient_norm", "rate")
    ]


class TrainerInfo(C.Structure):
    weft = "weft_trainer_info"
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("parameters", C.c_int64), ("step", C.c_int64)] + [
        (name, C.c_uint64) for name in ("state_bytes", "step_bytes", "weight_bytes", "cache_bytes")
    ] + [(name, C.c_int32) for name in ("recipe", "layers", "pictures", "class_pictures")]


def disc(side, n):
    """An orange disc on blue, a little further right in each picture."""
    rgb = bytearray()
    for y in range(side):
        for x in range(side):
            inside = math.hypot(x - side * (0.35 + 0.1 * n), y - side / 2) < side / 4
            rgb += bytes((240, 140, 20) if inside else (30, 60, 160))
    return bytes(rgb)


class Training:
    """A trainer with its pictures. `stop` makes the callback cancel the step that runs."""

    def __init__(self, weft, model, side):
        self.weft, self.stop = weft, False
        self.callback = Progress(lambda user, what, done, total: 1 if self.stop else 0)  # must outlive the trainer
        options = weft.sized(TrainOptions, "weft_train_options_init")
        options.recipe, options.steps, options.batch, options.rank, options.rate = LORA, 4, 2, 4, 1e-3
        options.seed, options.threads, options.progress = 5, 2, self.callback
        self.handle = weft.open("weft_trainer_create", model, C.byref(options))
        for n in range(3):
            rgb = disc(side, n)
            weft.must("weft_trainer_add_picture", self.handle, rgb, C.c_size_t(len(rgb)), C.c_int32(side),
                      C.c_int32(side), b"an orange disc", C.c_int32(INSTANCE))

    def step(self):
        step = self.weft.sized(TrainStep, "weft_train_step_init")
        status = self.weft.call("weft_trainer_step", self.handle, C.byref(step))
        return status, step

    def steps(self, count):
        losses = []
        for _ in range(count):
            status, step = self.step()
            assert status == 0, self.weft.err.text.decode()
            assert math.isfinite(step.loss) and step.loss > 0 and step.gradient_norm > 0
            losses.append(step.loss)
        return losses

    def free(self):
        self.weft.lib.weft_trainer_free(self.handle)


def main():
    check_mirrors(sys.argv[2], (Error, TrainOptions, TrainStep, TrainerInfo))
    found, folder = find_model(), sys.argv[3]
    if not found:
        print("SKIP no model")
        return 77
    weft = Weft(sys.argv[1])
    weft.lib.weft_trainer_free.argtypes, weft.lib.weft_trainer_free.restype = [C.c_void_p], None
    model = weft.open("weft_model_open", found[0].encode(), None)
    files = [os.path.join(folder, name).encode() for name in ("whole.safetensors", "broken.safetensors", "checkpoint")]
    side = 64

    whole = Training(weft, model, side)
    losses = whole.steps(4)
    weft.must("weft_trainer_save", whole.handle, files[0], C.c_int32(0), C.c_int32(0))

    # Two steps and a checkpoint, another trainer, a step that is cancelled and taken again.
    first = Training(weft, model, side)
    broken = first.steps(2)
    weft.must("weft_trainer_checkpoint", first.handle, files[2])
    first.free()
    second = Training(weft, model, side)
    weft.must("weft_trainer_resume", second.handle, files[2])
    second.stop = True
    status, _ = second.step()
    assert status == E_CANCELLED, "a callback that returned 1 got status %d" % status
    second.stop = False
    broken += second.steps(2)
    assert broken == losses, "a break shows in the losses: %s, %s" % (broken, losses)
    weft.must("weft_trainer_save", second.handle, files[1], C.c_int32(0), C.c_int32(0))
    with open(files[0], "rb") as a, open(files[1], "rb") as b:
        assert a.read() == b.read(), "a break shows in the file"

    info = weft.sized(TrainerInfo, "weft_trainer_info_init")
    weft.must("weft_trainer_get_info", second.handle, C.byref(info))
    assert info.step == 4 and info.pictures == 3 and info.layers > 0 and info.parameters > 0 and info.step_bytes > 0

    # It is an adapter like any other.
    adapter = weft.open("weft_trainer_adapter", second.handle)
    plan = weft.open("weft_plan_create", model, None)
    weft.must("weft_plan_add", plan, adapter, C.c_float(1), None)
    weft.must("weft_plan_seal", plan, C.c_int32(1))
    weft.lib.weft_adapter_free(adapter)
    weft.lib.weft_plan_free(plan)

    third, rgb = Training(weft, model, side), disc(side, 0)
    status = weft.call("weft_trainer_add_picture", third.handle, rgb, C.c_size_t(len(rgb) - 1), C.c_int32(side),
                       C.c_int32(side), b"too short", C.c_int32(INSTANCE))
    assert status == E_ARG and weft.err.text, "a short buffer got status %d" % status
    print("refused as it should be: %s" % weft.err.text.decode())
    third.free()
    weft.lib.weft_model_free(model)
    second.free()
    whole.free()
    weft.lib.weft_trainer_free(None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
