"""Writes torch/*.pt with Python's torch (2.13.0): python make_torch_files.py (needs torch and numpy).

What the values are is known to tests/core/format/torch_golden_test.cpp: mostly 0, 1, 2, ... in row-major order.
"""
import argparse
import collections
import enum
import os
import pathlib
import warnings

import numpy
import torch

warnings.filterwarnings("ignore")
FOLDER = pathlib.Path(__file__).parent / "torch"
DTYPES = ("bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 bfloat16 float32 float64 complex32 complex64 "
          "complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu").split()


def save(name, value, **options):
    torch.save(value, FOLDER / (name + ".pt"), **options)


def ramp(*shape, dtype=torch.float32):
    return torch.arange(int(numpy.prod(shape)), dtype=torch.float32).reshape(shape).to(dtype)


def model():
    return torch.nn.Sequential(
        collections.OrderedDict(conv=torch.nn.Conv2d(1, 2, 2), norm=torch.nn.BatchNorm2d(2),
                                flat=torch.nn.Flatten(), fc=torch.nn.Linear(2, 3)))


class Color(enum.Enum):
    RED = 1


class Hostile:
    def __reduce__(self):
        return os.system, ("echo never",)


class Buffers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kept", ramp(2))
        self.register_buffer("left_out", ramp(3), persistent=False)
        self.register_buffer("none", None)
        self.weight = torch.nn.Parameter(ramp(2, 2))
        self.register_parameter("bias", None)
        self.inner = torch.nn.Linear(2, 1)


def filled(module):
    """Parameters and buffers are 0, 1, 2, ..., so that tests know them."""
    with torch.no_grad():
        for tensor in list(module.parameters()) + list(module.buffers()):
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    return module


def make_dtypes():
    values = {name: ramp(2, 3, dtype=getattr(torch, name)) for name in DTYPES}
    save("dtypes", values)
    save("dtypes-legacy", values, _use_new_zipfile_serialization=False)


def shapes():
    base = ramp(4, 6)
    return {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "base": base,
        "tied": base,
        "row": base[2],
        "transposed": base.t(),
        "stepped": base[::2, 1::2],
        "overlapping": base.as_strided((3, 4), (2, 1)),
        "expanded": torch.tensor([7.0]).expand(3),
        "fortran": torch.from_numpy(numpy.asfortranarray(numpy.arange(6, dtype=numpy.float32).reshape(2, 3))),
    }


def make_nested():
    net = filled(model())
    save("state_dict", net.state_dict())
    training = {
        "epoch": 3,
        "model_state_dict": net.state_dict(),
        "optimizer": {"state": {0: {"step": torch.tensor(5.0), "exp_avg": ramp(2)}},
                      "param_groups": [{"lr": 0.1, "params": [0]}]},
        "list": [ramp(1), (ramp(2), None)],
        "parameter": torch.nn.Parameter(ramp(2)),
        "frozen": torch.nn.Parameter(ramp(2), requires_grad=False),
        "buffer": torch.nn.Buffer(ramp(2)),
        "default": collections.defaultdict(list, {"inside": ramp(1)}),
        "counter": collections.Counter("aab"),
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "complex": 1j,
        "big": 1 << 70,
    }
    training["parameter"].note = "a state"
    for protocol in (2, 3, 4, 5):
        save(f"training-protocol{protocol}", training, pickle_protocol=protocol)
        save(f"training-legacy-protocol{protocol}", training, pickle_protocol=protocol,
             _use_new_zipfile_serialization=False)


def make_foreign():
    save("foreign", {
        "weight": ramp(2, 2),
        "args": argparse.Namespace(lr=0.1, tensor=ramp(1)),
        "scalar": numpy.float64(0.5),
        "array": numpy.arange(3),
        "color": Color.RED,
        "hostile": Hostile(),
        "meta": torch.zeros(2, device="meta"),
        "class": argparse.Namespace,
        "last": ramp(3),
    })


def make_special():
    indices = torch.tensor([[0, 1], [1, 2]])
    save("sparse", {
        "coo": torch.sparse_coo_tensor(indices, ramp(2), (2, 3)),
        "hybrid": torch.sparse_coo_tensor(indices, ramp(2, 4), (2, 3, 4)).coalesce(),
        "csr": ramp(2, 3).to_sparse_csr(),
        "bsr": ramp(2, 4).to_sparse_bsr((1, 2)),
    })
    save("quantized", {
        "tensor": torch.quantize_per_tensor(ramp(2, 3), 0.5, 3, torch.qint8),
        "channel": torch.quantize_per_channel(ramp(2, 3), torch.tensor([0.5, 0.25]), torch.tensor([0, 1]), 0, torch.quint8),
        "int32": torch.quantize_per_tensor(ramp(2), 0.5, 3, torch.qint32),
    })
    save("conjugated", {"plain": ramp(2), "z": ramp(2, dtype=torch.complex64).conj()})
    save("tensor", ramp(2, 3))


def make_modules():
    save("module", filled(Buffers()))
    save("module-protocol1", filled(Buffers()), pickle_protocol=1)
    save("module-legacy", filled(Buffers()), _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.trace(filled(model()).eval(), torch.zeros(1, 1, 2, 2)), FOLDER / "traced.pt")
    torch.jit.save(torch.jit.script(filled(Buffers2())), FOLDER / "scripted.pt")


class Buffers2(torch.nn.Module):
    """What a script can hold beside tensors."""
    lookup: dict[str, torch.Tensor]
    several: list[torch.Tensor]

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 3)
        self.register_buffer("steps", torch.zeros(2, dtype=torch.int64))
        self.lookup = {"a": ramp(2)}
        self.several = [ramp(1), ramp(2)]
        self.sizes = [1, 2]
        self.packed = torch.ao.nn.quantized.dynamic.Linear(2, 2)

    def forward(self, x):
        return self.fc(x) + self.lookup["a"].sum() + self.several[0] + float(self.sizes[0])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    make_dtypes()
    save("shapes", shapes())
    save("shapes-legacy", shapes(), _use_new_zipfile_serialization=False)
    make_nested()
    make_foreign()
    make_special()
    make_modules()
