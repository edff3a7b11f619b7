"""Writes the PyTorch files beside it, with Debian's python3-torch: python3 make_pytorch.py DIRECTORY"""
import collections
import sys
import zipfile

import numpy
import torch

directory = sys.argv[1]


def state_dict():
    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    tied = torch.arange(4, dtype=torch.float32) / 4
    rows = torch.arange(20, dtype=torch.float32).reshape(5, 4)
    state = collections.OrderedDict()
    state["matrix"] = matrix
    state["transposed"] = matrix.t()  # shares the storage, strides (1, 3)
    state["rows"] = rows[1:4]  # contiguous, from the middle of its storage
    state["every_other"] = rows[::2, 1::2]
    state["expanded"] = torch.tensor([1.5]).expand(2, 2)
    state["tied.a"] = torch.nn.Parameter(tied)
    state["tied.b"] = torch.nn.Parameter(tied)
    state["scalar"] = torch.tensor(7.25, dtype=torch.float64)
    state["empty"] = torch.zeros(0, 3)
    state["four"] = torch.arange(16, dtype=torch.int32).reshape(2, 2, 2, 2).permute(3, 1, 0, 2)
    for name, dtype in [("f64", torch.float64), ("f16", torch.float16), ("bf16", torch.bfloat16),
                        ("i64", torch.int64), ("i32", torch.int32), ("i16", torch.int16), ("i8", torch.int8),
                        ("u8", torch.uint8)]:
        state["type." + name] = torch.tensor([1, 2, 100]).to(dtype)
    state["type.bool"] = torch.tensor([True, False, True])
    return state


def training():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape) + 10 * i)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.125)
    model(torch.ones(1, 2)).sum().backward()
    weights = {"_orig_mod." + name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    return {"model": weights, "optimizer": optimizer.state_dict(), "iter_num": 12, "name": "tales",
            "best_val_loss": numpy.float64(1.75), "config": {"layers": 2, "dropout": 0.5, "bias": False,
                                                             "betas": (0.9, 0.95), "dtype": torch.bfloat16}}


torch.save(state_dict(), f"{directory}/zip.pt")
torch.save(state_dict(), f"{directory}/legacy.pt", _use_new_zipfile_serialization=False)
torch.save(training(), f"{directory}/training.pt")
torch.save([torch.ones(2), {"x": torch.zeros(1)}], f"{directory}/protocol5.pt", pickle_protocol=5)
torch.save(torch.nn.Linear(1, 1), f"{directory}/module.pt")
with zipfile.ZipFile(f"{directory}/zip.pt") as stored, \
        zipfile.ZipFile(f"{directory}/deflated.pt", "w", zipfile.ZIP_DEFLATED) as deflated:
    for name in stored.namelist():
        deflated.writestr(zipfile.ZipInfo(name), stored.read(name), zipfile.ZIP_DEFLATED)
