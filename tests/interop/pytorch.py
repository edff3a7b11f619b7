"""Checkpoint files to and from PyTorch: pytorch.py INTEROP_FORMATS"""
import collections
import subprocess
import sys
import tempfile

import torch

program = sys.argv[1]
NAMES = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16",
         torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8",
         torch.bool: "bool"}


def raw_bytes(tensor):
    tensor = tensor.detach().contiguous()
    return bytes(tensor.flatten().view(torch.uint8).tolist()) if tensor.numel() else b""


def dump(path):
    lines = subprocess.run([program, "dump", path], check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: (dtype, shape, data) for name, dtype, shape, data in (line.split("\t") for line in lines)}


def described(tensor):
    return NAMES[tensor.dtype], ",".join(map(str, tensor.shape)), raw_bytes(tensor).hex()


def state_dict():
    generator = torch.Generator().manual_seed(7)
    state = collections.OrderedDict()
    base = torch.randn(6, 10, generator=generator)
    state["plain"] = base
    state["transposed"] = base.t()
    state["columns"] = base[:, 3:8:2]
    state["middle"] = base[2:4]
    state["expanded"] = torch.randn(1, 4, generator=generator).expand(3, 4)
    state["permuted"] = torch.randn(2, 3, 4, 5, generator=generator).permute(2, 0, 3, 1)
    state["parameter"] = torch.nn.Parameter(torch.randn(3, generator=generator))
    state["frozen"] = torch.nn.Parameter(torch.randn(3, generator=generator), requires_grad=False)
    state["tied"] = state["parameter"]
    state["scalar"] = torch.tensor(3, dtype=torch.int64)
    state["empty"] = torch.zeros(2, 0, 3)
    for dtype, name in NAMES.items():
        values = torch.randint(0, 100, (5, 7), generator=generator).to(dtype)
        state["type." + name] = values
        state["strided." + name] = values[::2, ::3]
    return state


def check_reading(directory):
    module = torch.nn.TransformerEncoderLayer(8, 2, 16)
    for what, state in [("state", state_dict()), ("module", module.state_dict())]:
        for layout, settings in [("zip", {}), ("legacy", {"_use_new_zipfile_serialization": False}),
                                 ("protocol 4", {"pickle_protocol": 4})]:
            path = f"{directory}/{what} {layout}.pt"
            torch.save(state, path, **settings)
            expected = {name: described(tensor) for name, tensor in state.items()}
            found = dump(path)
            assert found == expected, (path, {k for k in expected if found.get(k) != expected[k]})
    nested = f"{directory}/nested.pt"
    torch.save({"state_dict": {"module." + k: v for k, v in state_dict().items()}, "epoch": 3}, nested)
    assert dump(nested) == {name: described(tensor) for name, tensor in state_dict().items()}


def check_writing(directory):
    path = f"{directory}/written.pt"
    subprocess.run([program, "write", "pt", path], check=True)
    state = torch.load(path, weights_only=True)
    assert type(state) is collections.OrderedDict, type(state)
    assert list(state)[0] == "model.f32" and list(state)[-1] == "größe" and len(state) == 11, list(state)
    for position, (name, tensor) in enumerate(state.items()):
        modulus = 2 if tensor.dtype == torch.bool else 64
        count = tensor.numel() * tensor.element_size()
        assert raw_bytes(tensor) == bytes((3 * i + position) % modulus for i in range(count)), name
        if name.startswith("model."):
            assert NAMES[tensor.dtype] == name[6:], name
        assert not tensor.requires_grad and tensor.is_contiguous(), name
    assert torch.load(path)["model.bf16"].shape == (2, 2, 2, 2), "without weights_only too"
    # What torch makes of our file is what we read back from it.
    again = f"{directory}/again.pt"
    torch.save(state, again)
    assert dump(again) == dump(path)


with tempfile.TemporaryDirectory() as directory:
    check_reading(directory)
    check_writing(directory)
print("all checks passed")
