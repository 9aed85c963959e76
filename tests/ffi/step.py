"""One denoising step through ctypes alone, as any language without a C compiler would take it.

    python3 tests/ffi/step.py build/libweft.so LAYOUT

The structs below are written from the headers by hand, which is the point: nothing here was
compiled against weft. Their fields are held to LAYOUT, which is what tests/abi/layout prints. A
step is run, a callback stops another one, a wrong call is refused with a text that could
be an exception's message, and everything is freed in an order that a garbage collector might choose.
"""
import ctypes as C
import math
import os
import re
import sys

OK, E_ARG, E_STATE, E_CANCELLED = 0, -1, -7, -8

Progress = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_char_p, C.c_int64, C.c_int64)
Floats = C.POINTER(C.c_float)


class Error(C.Structure):
    weft = "weft_error"
    _fields_ = [("code", C.c_int32), ("sys", C.c_int32), ("text", C.c_char * 504)]


class ModelInfo(C.Structure):
    weft = "weft_model_info"
    _fields_ = [("struct_size", C.c_uint32), ("base", C.c_int32), ("base_name", C.c_char_p), ("layout", C.c_char_p),
                ("parameters", C.c_int64), ("bytes", C.c_int64), ("derived_bytes", C.c_int64), ("layers", C.c_int64)] + [
        (name, C.c_int32)
        for name in ("latent_channels", "latent_size", "image_factor", "input_channels", "text_streams",
                     "text_encoders", "time_ids", "guidance_embed", "prediction", "zero_negative", "has_tokenizer",
                     "has_vae")
    ] + [("vae_scale", C.c_float), ("reserved0", C.c_int32), ("arithmetic", C.c_int32), ("emulated", C.c_int32),
         ("tier", C.c_char_p)]


class RunOptions(C.Structure):
    weft = "weft_run_options"
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("allocator", C.c_void_p), ("log", C.c_void_p),
                ("log_user", C.c_void_p), ("progress", Progress), ("progress_user", C.c_void_p)] + [
        (name, C.c_int32) for name in ("threads", "batch", "height", "width", "text_tokens", "tile")
    ]


class RunInfo(C.Structure):
    weft = "weft_run_info"
    _fields_ = [("struct_size", C.c_uint32), ("threads", C.c_int32), ("bytes", C.c_uint64), ("step_flops", C.c_double),
                ("side_flops", C.c_double), ("decode_flops", C.c_double), ("latent_len", C.c_size_t),
                ("extra_len", C.c_size_t), ("image_len", C.c_size_t)] + [
        (name, C.c_int32) for name in ("branches", "batch", "height", "width", "text_tokens", "text_streams")
    ]


class Text(C.Structure):
    weft = "weft_text"
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("data", Floats), ("len", C.c_size_t),
                ("tokens", C.c_int32), ("cross_layers", C.c_int32)]


class Encode(C.Structure):
    weft = "weft_encode"
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("prompt", C.c_char_p),
                ("text", C.POINTER(Text)), ("text_count", C.c_size_t)] + [
        (name, C.c_int32) for name in ("adapter", "clip_skip", "prompt_tokens", "dropped")
    ] + [("stamp", C.c_uint64)]


class Step(C.Structure):
    weft = "weft_step"
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("latent", Floats), ("latent_len", C.c_size_t),
                ("extra", Floats), ("extra_len", C.c_size_t), ("text", C.POINTER(Text)), ("text_count", C.c_size_t),
                ("negative", C.POINTER(Text)), ("negative_count", C.c_size_t), ("time_ids", Floats),
                ("time_ids_len", C.c_size_t), ("negative_time_ids", Floats), ("negative_time_ids_len", C.c_size_t),
                ("out", Floats), ("out_len", C.c_size_t), ("stamp", C.c_uint64), ("timestep", C.c_float),
                ("guidance", C.c_float), ("guidance_rescale", C.c_float), ("guidance_embed", C.c_float),
                ("call", C.c_int32), ("reserved0", C.c_int32)]


class SamplerOptions(C.Structure):
    weft = "weft_sampler_options"
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("allocator", C.c_void_p)] + [
        (name, C.c_int32)
        for name in ("kind", "steps", "spacing", "prediction", "betas", "train_steps", "steps_offset")
    ] + [("beta_start", C.c_float), ("beta_end", C.c_float), ("eta", C.c_float), ("origin_steps", C.c_int32),
         ("reserved0", C.c_int32), ("sigmas", Floats), ("sigmas_len", C.c_size_t)]


def check_mirrors(path, mirrors):
    """Each struct above has the fields of the layout in their order, at their offsets and of their
    sizes. Of one that grew, it may have those of an older release."""
    layout = {}
    with open(path, encoding="ascii") as lines:
        for line in lines:
            found = re.fullmatch(r"(\w+)\.(\w+) at (\d+) size (\d+)", line.rstrip())
            if found:
                layout.setdefault(found[1], []).append((int(found[3]), int(found[4]), found[2]))
    for mirror in mirrors:
        fields = [(getattr(mirror, name).offset, getattr(mirror, name).size, name)
                  for name, _ in mirror._fields_]
        wanted = sorted(layout[mirror.weft])
        for mine, real in zip(fields, wanted):
            assert mine == real, "%s: field %s, and the layout has %s" % (mirror.weft, mine, real)
        assert len(fields) <= len(wanted), "%s has no field %s" % (mirror.weft, fields[len(wanted)][2])


def find_model():
    """The bundled model with its first adapter, else the tests' tiny one."""
    bundled = "examples/model/adapters"
    if os.path.isfile("examples/model/model_index.json") and os.path.isdir(bundled):
        files = sorted(f for f in os.listdir(bundled) if f.endswith(".safetensors"))
        if files:
            return "examples/model", os.path.join(bundled, files[0])
    tests = os.path.join(os.environ.get("WEFT_TESTS", "tests"), "data")
    tiny = os.path.join(tests, "models/tiny-sd1"), os.path.join(tests, "adapters/sd1_kohya.safetensors")
    return tiny if os.path.isdir(tiny[0]) and os.path.isfile(tiny[1]) else None


class Weft:
    """The library, with `must` around every call that can fail."""

    def __init__(self, path):
        self.lib = C.CDLL(os.path.abspath(path))
        self.err = Error()
        self.lib.weft_status_name.restype = C.c_char_p
        self.lib.weft_version.restype = C.c_uint32
        self.lib.weft_sampler_kind_at.argtypes = [C.c_size_t]
        self.lib.weft_sampler_name.restype = C.c_char_p
        self.lib.weft_sampler_find.argtypes = [C.c_char_p]
        self.lib.weft_sampler_traits.restype = C.c_uint32
        for free in ("model", "adapter", "plan", "run", "sampler", "noise"):
            getattr(self.lib, "weft_%s_free" % free).argtypes = [C.c_void_p]
            getattr(self.lib, "weft_%s_free" % free).restype = None

    def call(self, name, *args):
        f = getattr(self.lib, name)
        f.restype = C.c_int32
        return f(*args, C.byref(self.err))

    def must(self, name, *args):
        status = self.call(name, *args)
        if status != OK:
            raise RuntimeError("%s: %s: %s" % (name, self.lib.weft_status_name(status).decode(),
                                               self.err.text.decode()))

    def open(self, name, *args):
        handle = C.c_void_p()
        self.must(name, *args, C.byref(handle))
        return handle

    def sized(self, cls, init):
        """A struct through its _init function, which fills the bytes that we wrote down."""
        s = cls()
        getattr(self.lib, init)(C.byref(s), C.c_size_t(C.sizeof(cls)))
        return s


def floats(n):
    return (C.c_float * n)()


def make_texts(weft, run, count, chunks):
    """An array with an entry for each stream: the library says how long each is, we bring the floats."""
    texts, kept = (Text * count)(), []
    for i in range(count):
        weft.lib.weft_text_init(C.byref(texts[i]), C.c_size_t(C.sizeof(Text)))
        weft.must("weft_run_text", run, C.c_int32(i), C.c_int32(chunks), C.byref(texts[i]))
        kept.append(floats(texts[i].len))
        texts[i].data = C.cast(kept[i], Floats)
    return texts, kept


def fill(step, name, array):
    setattr(step, name, C.cast(array, Floats))
    setattr(step, name + "_len", len(array))


def take_one_step(weft, prediction):
    """Each solver begins an image and takes one call; a call without a begin is refused."""
    kinds, noise = [], weft.open("weft_noise_create", C.c_uint64(1), None)
    while weft.lib.weft_sampler_kind_at(len(kinds)):
        kinds.append(weft.lib.weft_sampler_kind_at(len(kinds)))
    assert len(kinds) >= 9
    for kind in kinds:
        assert weft.lib.weft_sampler_find(weft.lib.weft_sampler_name(kind)) == kind
        options = weft.sized(SamplerOptions, "weft_sampler_options_init")
        options.kind, options.steps = kind, 4
        sampler = weft.open("weft_sampler_create", C.byref(options))
        n, x = C.c_size_t(len(prediction)), floats(len(prediction))
        early = weft.call("weft_sampler_step", sampler, C.c_int32(0), prediction, x, n, noise)
        assert early == E_STATE, "a step of an image that was not begun got status %d" % early
        weft.must("weft_sampler_begin", sampler, C.c_int32(0), n)
        weft.must("weft_sampler_step", sampler, C.c_int32(0), prediction, x, n, noise)
        assert all(math.isfinite(v) for v in x) and any(v != 0 for v in x)
        weft.lib.weft_sampler_free(sampler)
    weft.lib.weft_noise_free(noise)


def main():
    check_mirrors(sys.argv[2], (Error, ModelInfo, RunOptions, RunInfo, Text, Encode, Step, SamplerOptions))
    found = find_model()
    if not found:
        print("SKIP no model: neither examples/model nor the tests' tiny-sd1 is there with an adapter")
        return 77
    weft = Weft(sys.argv[1])
    assert weft.lib.weft_version() >> 16 == 0

    reports = []

    def progress(user, what, done, total):
        """Count the calls; stop when asked to. A wrapper catches everything: nothing may cross the library."""
        try:
            reports.append((what, done, total))
            return 1 if stop else 0
        except Exception:
            return 1

    stop = False
    callback = Progress(progress)                # must outlive the run

    model = weft.open("weft_model_open", found[0].encode(), None)
    adapter = weft.open("weft_adapter_open", found[1].encode(), None)
    plan = weft.open("weft_plan_create", model, None)
    weft.must("weft_plan_add", plan, adapter, C.c_float(0.8), None)
    weft.must("weft_plan_seal", plan, C.c_int32(2))

    info = weft.sized(ModelInfo, "weft_model_info_init")
    weft.must("weft_model_info_get", model, C.byref(info))

    options = weft.sized(RunOptions, "weft_run_options_init")
    options.threads = 2
    options.progress = callback
    run = weft.open("weft_run_create", plan, C.byref(options))

    # The plan keeps what it uses, and the run keeps the plan.
    weft.lib.weft_model_free(model)
    weft.lib.weft_plan_free(plan)
    weft.lib.weft_adapter_free(adapter)

    shape = weft.sized(RunInfo, "weft_run_info_init")
    weft.must("weft_run_info_get", run, C.byref(shape))
    assert shape.batch == 1 and shape.text_streams == info.text_streams

    text, kept = make_texts(weft, run, shape.text_streams, 1)
    negative, zeros = make_texts(weft, run, shape.text_streams, 1)
    if info.has_tokenizer:
        encode = weft.sized(Encode, "weft_encode_init")
        encode.prompt = b"a red circle"
        encode.text, encode.text_count = text, len(text)
        weft.must("weft_run_encode", run, C.byref(encode))
        assert encode.prompt_tokens > 0 and encode.dropped == 0
        assert all(any(v != 0 for v in stream) for stream in kept)

    n = shape.latent_len
    latent, out = floats(n), floats(n)
    for i in range(n):
        latent[i] = math.sin(0.37 * i)
    step = weft.sized(Step, "weft_step_init")
    fill(step, "latent", latent)
    step.text, step.text_count = text, len(text)
    step.negative, step.negative_count = negative, len(negative)
    fill(step, "out", out)
    step.timestep, step.guidance = 981.0, 5.0

    weft.must("weft_run_step", run, C.byref(step))
    assert all(math.isfinite(v) for v in out) and any(v != 0 for v in out)
    assert reports, "no progress was reported"
    first = bytes(out)
    take_one_step(weft, out)

    stop = True                                   # the same step, stopped by the callback
    status = weft.call("weft_run_step", run, C.byref(step))
    assert status == E_CANCELLED, "a callback that returned 1 got status %d" % status
    assert weft.err.code == E_CANCELLED and weft.err.text

    stop = False                                  # and the run is as good as before
    weft.must("weft_run_step", run, C.byref(step))
    assert bytes(out) == first, "the same step gave other bits after a cancel"

    step.out_len -= 1
    status = weft.call("weft_run_step", run, C.byref(step))
    assert status == E_ARG, "a short buffer got status %d" % status
    print("refused as it should be: %s" % weft.err.text.decode())

    weft.lib.weft_run_free(run)
    weft.lib.weft_run_free(None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
