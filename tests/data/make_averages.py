"""Writes averages/: what torch.optim.swa_utils makes of a small model, for tests/libtorch/averager_test.cpp and
update_bn_test.cpp.

    python make_averages.py        (torch and safetensors)

averages.safetensors   `<step>.<name>`: the values of the model at each of six updates; `ema.<name>` (decay 0.9),
                       `swa.<name>`, `ema_buffers.<name>` (use_buffers=True): the averages after all of them.
batch_norm.safetensors `model.<name>`: a model; `batch<i>`: batches of different sizes; `updated.<name>`: the model after
                       update_bn over them.
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

FOLDER = pathlib.Path(__file__).parent / "averages"
STEPS = 6


def model():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Flatten(),
                              torch.nn.Linear(3 * 4 * 4, 2), torch.nn.BatchNorm1d(2, momentum=0.3))
    return net


def averages(generator):
    net = model()
    made = {"ema": AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)), "swa": AveragedModel(net),
            "ema_buffers": AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)}
    out = {}
    for step in range(STEPS):
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator))
            else:
                value.fill_(step)
            out[f"{step}.{name}"] = value.clone()
        for averaged in made.values():
            averaged.update_parameters(net)
    for kind, averaged in made.items():
        out.update({f"{kind}.{name}": value for name, value in averaged.module.state_dict().items()})
    return out


def batch_norm(generator):
    net = model().eval()
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    out = {f"model.{name}": value.clone() for name, value in net.state_dict().items()}
    batches = [torch.randn([size, 1, 6, 6], generator=generator) + size for size in (5, 2, 8)]
    update_bn(batches, net)
    out.update({f"batch{i}": batch for i, batch in enumerate(batches)})
    out.update({f"updated.{name}": value for name, value in net.state_dict().items()})
    return out


def main():
    FOLDER.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    save_file(averages(generator), FOLDER / "averages.safetensors")
    save_file(batch_norm(generator), FOLDER / "batch_norm.safetensors")


main()
