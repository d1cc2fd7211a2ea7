"""Fills ../fuzz/corpus/<target> with seeds from the golden files beside it: python make_fuzz_corpus.py (needs torch, numpy).

Those of `manifest` are what `ckpt` wrote and stay as they are: Python has no XXH3 of its own for their check."""
import argparse
import collections
import io
import json
import pathlib
import pickle
import pickletools
import shutil
import sys
import types
import zipfile

import numpy
import torch

data = pathlib.Path(__file__).parent
corpus = data.parent / "fuzz" / "corpus"
for target in ("zip", "pickle", "archive", "torch_file", "pt2", "safetensors", "shards", "manifest",
               "weights", "training_state", "python_checkpoint"):
    (corpus / target).mkdir(parents=True, exist_ok=True)

archives = data / "archives"
for stem in ("tensor-1.13.1", "tensor-2.13.0", "values-2.13.0", "sgd-1.13.1"):
    archive = archives / f"{stem}.pt"
    shutil.copy(archive, corpus / "archive" / archive.name)
    with zipfile.ZipFile(archive) as file:
        pickled = file.read(f"{stem}/data.pkl")
    (corpus / "archive" / f"{stem}.pkl").write_bytes(pickled)
    (corpus / "pickle" / f"{stem}.pkl").write_bytes(pickled)
shutil.copy(archives / "tensor-2.13.0.pt", corpus / "zip" / "torch.zip")

for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as file:
        for record in ("a/b", "a/c/d"):
            file.writestr(zipfile.ZipInfo(record), record * 20, method)
    (corpus / "zip" / f"{name}.zip").write_bytes(memory.getvalue())

value = [1, -(2**40), 2**80, 0.5, None, True, "caf\u00e9", b"bytes", (1, 2, 3, 4), {"k": [set(), frozenset({1})]},
         collections.OrderedDict(a=1), complex(1, 2), bytearray(b"x")]
value.append(value)
for protocol in range(6):
    (corpus / "pickle" / f"protocol{protocol}.pkl").write_bytes(pickletools.optimize(pickle.dumps(value, protocol)))

shutil.copy(data / "safetensors" / "python.safetensors", corpus / "safetensors" / "python.safetensors")
header = b'{"__metadata__":{"a":"b"},"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
(corpus / "safetensors" / "small.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"xy")

for stem in ("tensor", "state_dict", "foreign", "sparse", "quantized", "conjugated", "scripted", "module",
             "training-protocol5"):
    with zipfile.ZipFile(data / "torch" / f"{stem}.pt") as file:
        (corpus / "torch_file" / f"{stem}.pkl").write_bytes(file.read(f"{stem}/data.pkl"))
for stem in ("shapes-legacy", "training-legacy-protocol2", "training-legacy-protocol4", "tensor"):
    shutil.copy(data / "torch" / f"{stem}.pt", corpus / "torch_file" / f"{stem}.pt")

number = {"as_int": 2}
meta = {"dtype": 7, "sizes": [number, {"as_expr": {"expr_str": "s0", "hint": {"as_int": 3}}}], "requires_grad": True,
        "device": {"type": "cpu", "index": None}, "strides": [{"as_int": 3}, {"as_int": 1}],
        "storage_offset": {"as_int": 0}, "layout": 7}
weight = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}
(corpus / "pt2" / "table.json").write_text(json.dumps({"config": {"w": weight, "v": weight}}))
pickled = {"path_name": "weight_1", "is_param": False, "use_pickle": True, "tensor_meta": None, "new": [1.5]}
(corpus / "pt2" / "pickled.json").write_text(json.dumps({"config": {"w": pickled}, "more": 1}))
with zipfile.ZipFile(data / "pt2" / "two.pt2") as whole, zipfile.ZipFile(corpus / "pt2" / "two.zip", "w") as small:
    for record in whole.namelist():
        if "/data/weights/" in record or record.endswith(("archive_format", "archive_version", "byteorder")):
            small.writestr(zipfile.ZipInfo(record), whole.read(record))

index = {"metadata": {"total_size": 3}, "weight_map": {"x": "a", "y": "a", "z": "b"}}
(corpus / "shards" / "index.json").write_text(json.dumps(index))
shutil.copy(data / "sharded" / "model.safetensors.index.json", corpus / "shards" / "huggingface.json")
(corpus / "torch_file" / "one-byte.pkl").write_bytes(b"\x80")  # once crashed the target itself


def pickled_by_torch(value):
    """data.pkl of torch.save."""
    memory = io.BytesIO()
    torch.save(value, memory)
    with zipfile.ZipFile(memory) as file:
        return file.read("archive/data.pkl")


# Training states over the storages that the targets put beside a pickle (../core/weights/training_zip.h): as views of one
# tensor, all are in "0".
six = torch.arange(1.0, 7.0)
weight, bias, step = six.view(2, 3), six[:2], six[2].view(())


def checkpoint(options, like_parameters=(), **state):
    """One of Python. `like_parameters`: fields of the optimizer's state that have the shape of their parameter."""
    states = {i: {**state, **{name: tensor for name in like_parameters}} for i, tensor in enumerate((weight, bias))}
    return {"iterations": 5, "epoch": 1, "model_state_dict": collections.OrderedDict(w=weight, b=bias),
            "optim_state_dict": {"state": states, "param_groups": [{**options, "params": [0, 1]}]},
            "best_metric": 0.5, "gradient_scaler_state_dict": {}}


adam = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "maximize": False,
        "decoupled_weight_decay": False}
moments = ("exp_avg", "exp_avg_sq")
scaler = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 100, "_growth_tracker": 7}
lbfgs = {"lr": 1, "max_iter": 3, "max_eval": None, "tolerance_grad": 1e-7, "tolerance_change": 1e-9, "history_size": 4,
         "line_search_fn": None, "params": [0]}
flat = {"func_evals": 3, "n_iter": 2, "d": six, "t": 0.5, "old_dirs": [six], "old_stps": [six], "ro": [step],
        "H_diag": step, "prev_flat_grad": six, "prev_loss": 0.25, "al": [None]}
ema = {"module.w": weight, "module.b": bias, "n_averaged": step}
odd = {"iterations": numpy.int64(7), "epoch": step, "best_metric": numpy.float32(0.1), "more": argparse.Namespace(a=1)}
checkpoints = {
    "sgd": checkpoint({"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False},
                      ["momentum_buffer"]),
    "adam": {**checkpoint(adam, moments, step=step), "gradient_scaler_state_dict": scaler, "ema_state_dict": ema},
    "odd": {**checkpoint({**adam, "param_names": ["w", "b"]}, moments, step=3), **odd},
    "rmsprop": checkpoint({"lr": 0.1, "alpha": 0.9, "eps": 1e-8, "weight_decay": 0, "momentum": 0.5, "centered": True},
                          ["square_avg", "momentum_buffer", "grad_avg"], step=step),
    "adagrad": checkpoint({"lr": 0.1, "lr_decay": 0, "weight_decay": 0, "initial_accumulator_value": 0, "eps": 1e-10},
                          ["sum"], step=step),
    "lbfgs": {**checkpoint({}), "model_state_dict": {"w": weight},
              "optim_state_dict": {"state": {0: flat}, "param_groups": [lbfgs]}},
}
for name, value in checkpoints.items():
    (corpus / "python_checkpoint" / f"{name}.pkl").write_bytes(pickled_by_torch(value))


class Module:
    """A level of a state.pt (src/core/format/state_layout.h)."""

    def __init__(self, **members):
        self.__dict__.update(members)


Module.__module__ = "__torch__"
sys.modules["__torch__"] = types.SimpleNamespace(Module=Module)


def described(value, **members):
    return Module(description=json.dumps(value), **members)


def state(kinds, **parts):
    head = {"parts": {name: {"kind": kind} for name, kind in kinds.items()}, "epoch": 1, "iteration": 5,
            "metrics": {"loss": 0.5}, "best_metric": None, "metadata": {}}
    return Module(ckpt=Module(version=1, description=json.dumps(head)), **parts)


names = ["model/w", "model/b"]
adam_options = {key: adam[key] for key in ("lr", "betas", "eps", "weight_decay", "amsgrad")}
adam_part = described(
    {"type": "Adam", "groups": [{"options": adam_options, "parameters": names}], "state": {n: {"step": 3} for n in names}},
    state=Module(**{field: Module(**{"model/w": weight, "model/b": bias}) for field in moments}))
lists = {name: 1 for name in ("old_dirs", "old_stps", "ro")}
flat_part = described(
    {"type": "LBFGS", "groups": [{"options": {k: v for k, v in lbfgs.items() if k != "params"}, "parameters": names[:1]}],
     "state": {names[0]: {"func_evals": 3, "n_iter": 2, "t": 0.5, "prev_loss": "NaN", **lists}}},
    state=Module(**{name: Module(**{"model/w": six}) for name in ("d", "H_diag", "prev_flat_grad")},
                 **{f"{name}.0": Module(**{"model/w": six}) for name in lists}))
states = {
    "adam": state({"model": "module", "ema": "module", "optimizer": "optimizer", "scaler": "scaler"},
                  model=Module(w=weight, b=bias), ema=Module(w=weight, b=bias), optimizer=adam_part,
                  scaler=described({**scaler, "growth_tracker": 7})),
    "lbfgs": state({"model": "module", "o": "optimizer", "data": "sampler"}, model=Module(w=weight), o=flat_part,
                   data=described({"size": 1}), rng=Module(cpu=bias)),
}
for name, value in states.items():
    (corpus / "training_state" / f"{name}.pkl").write_bytes(pickled_by_torch(value))

net = collections.OrderedDict([("module.w", weight), ("module.b", bias.t()), ("module.tied", weight)])
net._metadata = collections.OrderedDict([("", {"version": 1}), ("module", {"version": 2})])
for name, value in {"wrapped": {"epoch": 1, "model": net, "ema": {"w": six[1::2]}, "args": argparse.Namespace(a=1)},
                    "list": [six, (step, {7: six.expand(2, 6)})], "adam": checkpoints["adam"],
                    "state": states["adam"]}.items():
    (corpus / "weights" / f"{name}.pkl").write_bytes(pickled_by_torch(value))
shutil.copy(data / "torch" / "tensor.pt", corpus / "weights" / "tensor.pt")
shutil.copy(data / "torch" / "shapes-legacy.pt", corpus / "weights" / "shapes-legacy.pt")
for name in ("small", "python"):
    shutil.copy(corpus / "safetensors" / f"{name}.safetensors", corpus / "weights" / f"{name}.safetensors")
