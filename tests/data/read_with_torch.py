"""Reads files with Python's torch and tells what it found: one line of JSON for each argument HOW:PATH.

HOW: load     torch.load(weights_only=True)
     mmap     the same with mmap=True
     offsets  the same with places of records computed, not looked up, and checked against the file
     jit      torch.jit.load: {"parameters": [[name, tensor], ...], "buffers": [[name, tensor], ...]}
     safe     safetensors.torch.load_file

A tensor is {"dtype", "shape", "hex": its elements in order, "grad": whether it asks for gradients, "storage": the number
of its storage, counted as they are met}; a float {"float": its hex form}, a dictionary {"dict": [[key, value], ...],
"ordered": whether it is an OrderedDict, "metadata": its _metadata}, a tuple {"tuple": [...]}; what fails to load
{"error": why}.
"""

import collections
import json
import os
import sys

os.environ["TORCH_SERIALIZATION_DEBUG"] = "1"  # compare computed places with those in the file

import torch
from torch.utils.serialization import config


def tell(value, storages):
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, torch.Tensor):
        detached = value.detach()
        elements = b""
        if detached.numel():
            elements = detached.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        storage = value.untyped_storage()._cdata
        return {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": list(value.shape),
            "hex": elements.hex(),
            "grad": value.requires_grad,
            "storage": storages.setdefault(storage, len(storages)),
        }
    if isinstance(value, dict):
        metadata = getattr(value, "_metadata", None)
        return {
            "dict": [[tell(k, storages), tell(v, storages)] for k, v in value.items()],
            "ordered": type(value) is collections.OrderedDict,
            "metadata": tell(metadata, storages),
        }
    if isinstance(value, tuple):
        return {"tuple": [tell(item, storages) for item in value]}
    if isinstance(value, list):
        return [tell(item, storages) for item in value]
    if isinstance(value, torch.jit.ScriptModule):
        found = {"parameters": value.named_parameters, "buffers": value.named_buffers}
        return {k: [[n, tell(t, storages)] for n, t in list_of(remove_duplicate=False)] for k, list_of in found.items()}
    raise TypeError(f"no form for {type(value)}")


def read(how, path):
    if how == "load":
        return torch.load(path, weights_only=True)
    if how == "mmap":
        return torch.load(path, weights_only=True, mmap=True)
    if how == "offsets":
        config.load.calculate_storage_offsets = True
        try:
            return torch.load(path, weights_only=True, mmap=True)
        finally:
            config.load.calculate_storage_offsets = False
    if how == "jit":
        return torch.jit.load(path)
    if how == "safe":
        import safetensors.torch

        return safetensors.torch.load_file(path)
    raise ValueError(how)


for argument in sys.argv[1:]:
    try:
        value = read(*argument.split(":", 1))
        told = tell(value, {})
    except Exception as error:  # whatever torch throws at a file it cannot read
        told = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(told))
