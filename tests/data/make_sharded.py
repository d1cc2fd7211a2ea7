"""Writes sharded/: python make_sharded.py (needs torch and huggingface_hub)."""
import pathlib

import torch
from huggingface_hub import save_torch_state_dict

tensors = {name: torch.arange(size, dtype=torch.float32) for name, size in (("a.weight", 6), ("b.weight", 5), ("c.bias", 1))}
save_torch_state_dict(tensors, pathlib.Path(__file__).parent / "sharded", max_shard_size=24, metadata={"format": "pt"})
