"""The other peer of tests/bench/suite: stable-diffusion.cpp by its Python package (stable-diffusion-cpp-python), as pip
builds it, with its default settings. Driven by lines as peer.py is:

    hello
    load MODEL THREADS      a single file
    step SIZE COUNT         mean seconds of COUNT guided steps: clock, processor

It has no call for one step, so a picture is made and the time between its steps is taken; its first is not counted."""
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the library prints is no answer

import stable_diffusion_cpp  # noqa: E402

model = None


def hello():
    return ("stable-diffusion-cpp-python=" + stable_diffusion_cpp.__version__,)


def load(path, threads):
    global model
    begun = time.monotonic(), time.process_time()
    model = stable_diffusion_cpp.StableDiffusion(model_path=path, n_threads=int(threads))
    return time.monotonic() - begun[0], time.process_time() - begun[1]


def step(size, count):
    seen, count = [], int(count)

    def progress(step, steps, seconds):
        if steps == count + 1:  # decoding has its own count
            seen.append((time.monotonic(), time.process_time()))

    model.generate_image(prompt="a red circle on a blue background", width=int(size), height=int(size), cfg_scale=7.5,
                         sample_steps=count + 1, sample_method="euler", seed=1, progress_callback=progress)
    first, last = seen[-count - 1], seen[-1]
    return (last[0] - first[0]) / count, (last[1] - first[1]) / count


COMMANDS = {f.__name__: f for f in (hello, load, step)}

for line in sys.stdin:
    command, *words = line.rstrip("\n").split("\t")
    try:
        answer = COMMANDS[command](*words) or ()
        text = "\t".join(["ok"] + ["%.9g" % a if isinstance(a, float) else a for a in answer])
    except Exception as e:  # whatever it is, the benchmark goes on without
        text = "no\t" + " ".join(("%s: %s" % (type(e).__name__, e)).split())[:400]
    answers.write(text + "\n")
    answers.flush()
