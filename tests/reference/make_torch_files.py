"""Files of torch.save in each of its forms, and what is in them: tests/data/torch.

Each file is written by torch itself. expected.safetensors holds its tensors again, under "file:name", where the names
are flattened here and the numbers are those that torch made; expected.json holds the scalars.
"""
import argparse
import collections
import datetime
import io
import json
import os
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

from common import DATA

torch.set_num_threads(1)
OUT = os.path.join(DATA, "torch")
os.makedirs(OUT, exist_ok=True)


def count(*shape, dtype=torch.float32, start=0.0):
    n = int(np.prod(shape)) if shape else 1
    return (torch.arange(n, dtype=torch.float64) * 0.5 + start).to(dtype).reshape(shape)


def checkpoint_class():
    """A class such as training programs leave in their files, in a module that nobody has at reading."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    exec("class ModelCheckpoint:\n    def __init__(self): self.best = 0.5; self.tensor = None\n", module.__dict__)
    module.ModelCheckpoint.__module__ = name
    for i in range(1, 4):
        sys.modules[".".join(name.split(".")[:i])] = module if i == 3 else types.ModuleType("x")
    return module.ModelCheckpoint


def all_types():
    kinds = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32",
             "uint64", "float8_e4m3fn", "float8_e5m2"]
    tensors = {kind: count(2, 3, dtype=getattr(torch, kind)) for kind in kinds}
    tensors["bool"] = torch.tensor([True, False, True])
    tensors["complex64"] = torch.tensor([1 + 2j, -0.5j], dtype=torch.complex64)
    return tensors


def views():
    base = count(4, 6)
    image = count(2, 3, 4, 5)
    return {
        "base": base,
        "row": base[2],
        "column": base[:, 3],
        "transposed": base.t(),
        "steps": base[1:4:2, 1::2],
        "twice": base,
        "expanded": count(3).expand(4, 3),
        "one_everywhere": count(1, start=7).expand(2, 2, 2),
        "channels_last": image.to(memory_format=torch.channels_last),
        "permuted": image.permute(3, 0, 2, 1),
        "half_transposed": count(3, 5, dtype=torch.float16).t(),
        "empty": torch.empty(0, 3),
        "empty_view": base[4:],
        "scalar": torch.tensor(2.5),
        "thin": count(1, 5, 1).transpose(0, 2),
        "rank8": count(1, 2, 1, 2, 1, 2, 1, 2).transpose(1, 7),
    }


def checkpoint():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(count(*p.shape, start=i))
    ModelCheckpoint = checkpoint_class()
    marked = torch.nn.Parameter(count(2, start=3))
    marked.origin = "here"
    attributed = count(2, start=4)
    attributed.note = 1
    return {
        "epoch": 6,
        "global_step": 2 ** 40,
        "learning_rate": 0.1,
        "negative": -5,
        "done": True,
        "stopped": False,
        "nothing": None,
        "version": "1.4.2",
        "state_dict": net.state_dict(),
        "parameter": torch.nn.Parameter(count(2, 2)),
        "marked": marked,
        "attributed": attributed,
        "parameters": torch.nn.ParameterDict({"*": torch.nn.Parameter(count(3)), "plain": count(2, start=9)}),
        "hyper_parameters": argparse.Namespace(lr=0.1, hidden=count(2)),
        "callbacks": {ModelCheckpoint: {"best": count(1)}, "named": ModelCheckpoint(), "kept": "yes"},
        "optimizer_states": [{"state": {0: {"exp_avg": count(2)}, 1: {"exp_avg": count(2, start=1)}},
                              "param_groups": [{"lr": 0.5, "params": [0, 1]}]}],
        "betas": (0.25, 0.75),
        "numpy": np.float64(3.0),
        "size": torch.Size([1, 2]),
        "when": datetime.date(2020, 1, 2),
        "set": {1, 2},
        "bytes": b"raw",
        "big": 2 ** 100,
        "empty_dict": {},
        "empty_list": [],
        "default": collections.defaultdict(list, {"x": [count(1)]}),
    }


# What weft leaves out: objects of other classes, whatever they hold.
LEFT_OUT = {"hyper_parameters", "callbacks.named", "numpy", "size", "when", "set", "bytes", "big", "default"}


def flatten(value, name, tensors, scalars):
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
    elif name in LEFT_OUT or value is None:
        return
    elif isinstance(value, torch.nn.ParameterDict):
        for key, item in value.items():
            flatten(item, f"{name}.{key}", tensors, scalars)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, (str, int)):
                flatten(item, f"{name}.{key}" if name else str(key), tensors, scalars)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            flatten(item, f"{name}.{i}" if name else str(i), tensors, scalars)
    elif isinstance(value, bool):
        scalars[name] = "true" if value else "false"
    elif isinstance(value, float):
        scalars[name] = np.format_float_positional(np.float32(value), trim="-")
    else:
        scalars[name] = str(value)


def main():
    types_, views_, checkpoint_ = all_types(), views(), checkpoint()
    legacy_types = {k: v for k, v in types_.items() if "8_" not in k and k not in ("uint16", "uint32", "uint64")}
    # The legacy form keeps the source text of every module's class, path and all: no module goes into it here.
    legacy_checkpoint = {k: v for k, v in checkpoint_.items() if k != "parameters"}
    files = [
        ("zip_types.pt", types_, {}),
        ("zip_views.pt", views_, {}),
        ("zip_checkpoint.ckpt", checkpoint_, {}),
        ("zip_protocol4.pt", views_, {"pickle_protocol": 4}),
        ("zip_protocol5.pt", {"a": {"b": [count(2)]}, "c": checkpoint_["marked"]}, {"pickle_protocol": 5}),
        ("legacy_types.pt", legacy_types, {"_use_new_zipfile_serialization": False}),
        ("legacy_views.pt", views_, {"_use_new_zipfile_serialization": False}),
        ("legacy_checkpoint.ckpt", legacy_checkpoint, {"_use_new_zipfile_serialization": False}),
        ("zip_tuple.pt", (count(2), [count(3)], {"k": count(1)}), {}),
        ("zip_tensor.pt", count(2, 2), {}),
    ]
    expected, scalars = {}, {}
    for name, content, options in files:
        torch.save(content, os.path.join(OUT, name), **options)
        tensors, scalars[name] = {}, {}
        if name == "zip_tensor.pt":
            tensors, scalars[name] = {"0": content}, {"weft.root": "tensor"}
        else:
            flatten(content, "", tensors, scalars[name])
        if isinstance(content, tuple):
            scalars[name]["weft.root"] = "list"
        for key, tensor in tensors.items():
            expected[f"{name}:{key}"] = tensor
    save_file(expected, os.path.join(OUT, "expected.safetensors"))
    with open(os.path.join(OUT, "expected.json"), "w", encoding="utf-8") as f:
        json.dump({name: {"tensors": sum(key.startswith(name + ":") for key in expected), "metadata": scalars[name]}
                   for name, _, _ in files}, f, indent=1, sort_keys=True)
        f.write("\n")

    # What is no dict of tensors.
    torch.save(torch.nn.Linear(2, 1), os.path.join(OUT, "whole_module.pt"))
    torch.save("text", os.path.join(OUT, "string.pt"))
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Identity()), script)
    with open(os.path.join(OUT, "torchscript.pt"), "wb") as f:
        f.write(script.getvalue())
    for name in os.listdir(OUT):
        os.chmod(os.path.join(OUT, name), 0o644)


main()
