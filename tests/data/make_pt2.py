"""Writes pt2/net.pt2 (one model) and pt2/two.pt2 (two) with torch.export: python make_pt2.py (torch >= 2.8)."""
import pathlib
import warnings

import torch
from torch import nn
from torch.export.pt2_archive._package import package_pt2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.embedding.weight = nn.Parameter(torch.arange(15.0).reshape(5, 3))
        self.norm = nn.BatchNorm1d(3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embedding.weight
        self.low = nn.Parameter(torch.arange(6.0).reshape(2, 3).to(torch.bfloat16))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4)[:, 1:3])
        self.register_buffer("transposed", torch.arange(6.0).reshape(2, 3).t())
        self.register_buffer("scalar", torch.tensor(3))
        self.register_buffer("empty", torch.zeros(0, 3))

    def forward(self, x):
        scale = self.scratch[0] * self.scalar
        added = self.low.float().sum() + self.view.sum() + self.transposed.sum() + self.empty.sum()
        return self.out(self.norm(self.embedding(x))) * scale + added


class Small(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.w = nn.Parameter(torch.full((2,), value))

    def forward(self, x):
        return x + self.w


warnings.simplefilter("ignore")
folder = pathlib.Path(__file__).parent / "pt2"
torch.export.save(torch.export.export(Net().eval(), (torch.tensor([0, 1]),)), folder / "net.pt2")
programs = {name: torch.export.export(Small(value), (torch.zeros(2),)) for name, value in (("a", 1.0), ("b", 2.0))}
package_pt2(str(folder / "two.pt2"), exported_programs=programs)
