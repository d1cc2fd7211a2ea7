"""Trains a small network with each of the optimizers that LibTorch has, and writes training checkpoints of this lineage.

  python python_checkpoints.py make FOLDER      inputs.pt and, for each case, <case>.pt: the checkpoint after STEPS
                                                steps, with "expected", the weights after as many more; odd.pt. The
                                                files under tests/data/python_checkpoints were made so, with torch 2.13.
  python python_checkpoints.py resume FOLDER    goes on from each <case>.in.pt for STEPS steps: <case>.out.pt
"""

import argparse
import copy
import os
import sys

import numpy
import torch
from torch import nn

STEPS = 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, bias=False)  # before the BatchNorm a bias would have a gradient of noise alone
        self.norm = nn.BatchNorm2d(2)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(18, 3)

    def forward(self, x):
        return self.fc(self.relu(self.norm(self.conv(x))).flatten(1))


def all_parameters(net):
    return net.parameters()


def two_groups(**second):
    def groups(net):
        weights = [net.conv.weight, net.fc.weight]
        return [{"params": weights}, {"params": [net.norm.weight, net.norm.bias, net.fc.bias], **second}]

    return groups


O = torch.optim
CASES = {
    "sgd": lambda n: O.SGD(n.parameters(), lr=0.05),
    "sgd_momentum": lambda n: O.SGD(
        two_groups(lr=0.02, weight_decay=0.0)(n), lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True
    ),
    "sgd_dampening": lambda n: O.SGD(n.parameters(), lr=0.05, momentum=0.8, dampening=0.1),
    "adam": lambda n: O.Adam(n.parameters(), lr=0.01, betas=(0.8, 0.95), eps=1e-7, weight_decay=0.02),
    "adam_amsgrad": lambda n: O.Adam(n.named_parameters(), lr=0.01, amsgrad=True),
    "adamw": lambda n: O.AdamW(two_groups(weight_decay=0.0)(n), lr=0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda n: O.RMSprop(n.parameters(), lr=torch.tensor(0.01), weight_decay=0.01),
    "rmsprop_centered": lambda n: O.RMSprop(n.parameters(), lr=0.005, alpha=0.9, centered=True, momentum=0.5),
    "adagrad": lambda n: O.Adagrad(n.parameters(), lr=0.05, lr_decay=0.01, initial_accumulator_value=0.1),
    "lbfgs": lambda n: O.LBFGS(n.parameters(), lr=0.1, max_iter=3, history_size=4),
    "lbfgs_first": lambda n: O.LBFGS(n.parameters(), lr=1.0, max_iter=1),
    "lbfgs_wolfe": lambda n: O.LBFGS(n.parameters(), lr=0.2, max_iter=2, line_search_fn="strong_wolfe"),
}


def train(net, ema, optimizer, inputs, first, last):
    for step in range(first, last):
        x, target = inputs["x"][step], inputs["target"][step]
        if isinstance(optimizer, O.LBFGS):
            # All samples at once: from batch to batch it turns a last bit into 1e-3, with Python alone, too.
            x, target = inputs["x"].flatten(0, 1), inputs["target"].flatten()

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), target)
            loss.backward()
            return loss

        optimizer.step(closure)
        for averaged, live in zip(ema.parameters(), net.parameters()):
            averaged.data.mul_(0.9).add_(live.data, alpha=0.1)


def checkpoint(case, net, ema, optimizer, iterations):
    """The scaler is one that is on for "adam", and off for the rest."""
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 100, "_growth_tracker": 7}
    return {
        "iterations": iterations,
        "epoch": 1,
        "model_state_dict": net.state_dict(),
        "optim_state_dict": optimizer.state_dict(),
        "best_metric": numpy.float64(0.875) if case == "adam" else 0.875,
        "gradient_scaler_state_dict": scaler if case == "adam" else {},
        "ema_state_dict": ema.state_dict(),
    }


def make(folder):
    torch.manual_seed(0)
    inputs = {"x": torch.randn(2 * STEPS, 4, 1, 5, 5), "target": torch.randint(3, (2 * STEPS, 4))}
    torch.save(inputs, os.path.join(folder, "inputs.pt"))
    for case, make_optimizer in CASES.items():
        torch.manual_seed(1)
        net = Net()
        ema = copy.deepcopy(net)
        optimizer = make_optimizer(net)
        train(net, ema, optimizer, inputs, 0, 1 if case == "lbfgs_first" else STEPS)
        saved = copy.deepcopy(checkpoint(case, net, ema, optimizer, STEPS))
        train(net, ema, optimizer, inputs, STEPS, 2 * STEPS)
        saved["expected"] = net.state_dict()
        saved["expected_ema"] = ema.state_dict()
        torch.save(saved, os.path.join(folder, case + ".pt"))
    make_odd_ones(folder)


def make_odd_ones(folder):
    """Numbers as programs come to have them, wrapped modules, and what else people put into such a file."""
    torch.manual_seed(0)
    net = nn.DataParallel(Net())
    optimizer = O.SGD(net.named_parameters(), lr=numpy.float64(0.25), momentum=torch.tensor(0.5, dtype=torch.float64))
    saved = {
        "iterations": numpy.int64(7000000000),
        "epoch": torch.tensor(12),
        "model_state_dict": net.state_dict(),
        "optim_state_dict": optimizer.state_dict(),
        "best_metric": numpy.float32(0.1),
        "gradient_scaler_state_dict": {"scale": 2.0, "_growth_tracker": numpy.int32(3)},
        "ema_state_dict": torch.optim.swa_utils.AveragedModel(net.module).state_dict(),
        "args": argparse.Namespace(lr=0.1),
    }
    torch.save(saved, os.path.join(folder, "odd.pt"))


def resume(folder):
    inputs = torch.load(os.path.join(folder, "inputs.pt"), weights_only=True)
    for case, make_optimizer in CASES.items():
        loaded = torch.load(os.path.join(folder, case + ".in.pt"), weights_only=True)
        torch.manual_seed(2)
        net = Net()
        ema = Net()
        optimizer = make_optimizer(net)
        net.load_state_dict(loaded["model_state_dict"])
        ema.load_state_dict(loaded["ema_state_dict"])
        optimizer.load_state_dict(loaded["optim_state_dict"])
        scaler = loaded["gradient_scaler_state_dict"]
        assert (scaler["_growth_tracker"] == 7) if case == "adam" else (scaler == {}), scaler
        assert loaded["best_metric"] == 0.875 and loaded["epoch"] == 1
        first = loaded["iterations"]
        train(net, ema, optimizer, inputs, first, first + STEPS)
        torch.save(checkpoint(case, net, ema, optimizer, first + STEPS), os.path.join(folder, case + ".out.pt"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"make": make, "resume": resume}[sys.argv[1]](sys.argv[2])
