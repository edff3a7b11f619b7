"""Cuts quantized.safetensors out of the reference vectors of the quantizers' own code (bitsandbytes, AutoGPTQ,
llm-awq): python3 make_quantized.py REFERENCE.safetensors OUT.safetensors"""
import json
import sys

import numpy

TYPES = {"F64": numpy.float64, "F32": numpy.float32, "I32": numpy.int32, "I64": numpy.int64, "U8": numpy.uint8}
content = open(sys.argv[1], "rb").read()
size = int.from_bytes(content[:8], "little")
header = json.loads(content[8:8 + size])


def read(name):
    entry = header[name]
    begin, end = (8 + size + offset for offset in entry["data_offsets"])
    return numpy.frombuffer(content[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])


out = {}
for group in ["gptq_actorder", "gptq_asym"]:  # (outputs, inputs), the first 32 outputs
    out[group + ".codes"] = read(group + ".codes")[:32]
    for name in ["scale", "zero", "dequant"]:
        out[f"{group}.{name}"] = read(f"{group}.{name}")[:32].astype(numpy.float32)
    out[group + ".g_idx"] = read(group + ".g_idx")
scale, zero, weight = (read("awq.rtn_zero_point." + name)[:32] for name in ["scale", "zero", "dequant"])
codes = numpy.round(weight / numpy.repeat(scale, 32, 1) + numpy.repeat(zero, 32, 1))
assert codes.min() >= 0 and codes.max() <= 15
out["awq.codes"] = codes.astype(numpy.uint8)
for name, values in [("scale", scale), ("zero", zero), ("dequant", weight)]:
    out["awq." + name] = values.astype(numpy.float32)
ROWS = 10  # of 192 values, so 30 blocks of 64
for group in ["nf4", "fp4"]:
    out[group + ".packed"] = read(group + ".packed")[:ROWS * 96]
    for name in ["absmax", "dq_absmax_u8", "dq_absmax_dequant"]:
        out[f"{group}.{name}"] = read(f"{group}.{name}")[:ROWS * 3]
    for name in ["code", "dq_absmax2", "dq_offset"]:
        out[f"{group}.{name}"] = read(f"{group}.{name}")
    for name in ["dequant", "dequant_doublequant"]:
        out[f"{group}.{name}"] = read(f"{group}.{name}")[:ROWS]
out["dynamic8.code"] = read("dynamic8.code")

NAMES = {numpy.dtype(t): name for name, t in TYPES.items()}
entries, position = {}, 0
out = dict(sorted(out.items(), key=lambda item: (-item[1].itemsize, item[0])))
for name, values in out.items():
    entries[name] = {"dtype": NAMES[values.dtype], "shape": list(values.shape),
                     "data_offsets": [position, position + values.nbytes]}
    position += values.nbytes
text = json.dumps(entries, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
with open(sys.argv[2], "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text + b"".join(values.tobytes() for values in out.values()))
