"""Writes safetensors/python.safetensors with Python's safetensors: python make_safetensors.py (needs torch)."""
import pathlib

import torch
from safetensors.torch import save_file

names = ("bool uint8 int8 int16 uint16 int32 uint32 int64 uint64 float16 bfloat16 float32 float64 complex64 "
         "float8_e4m3fn float8_e5m2").split()
tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names}
tensors["scalar"] = torch.tensor(2.5)
tensors["empty"] = torch.zeros(0, 4)
folder = pathlib.Path(__file__).parent / "safetensors"
save_file(tensors, folder / "python.safetensors", {"format": "pt", 'a "key"': "valu\u00e9\n"})
