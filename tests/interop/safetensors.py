"""An independent reader of safetensors files, by the format's description alone: safetensors.py INTEROP_FORMATS"""
import json
import subprocess
import sys
import tempfile

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
    subprocess.run([sys.argv[1], "write", "safetensors", file.name], check=True)
    content = open(file.name, "rb").read()
header_bytes = int.from_bytes(content[:8], "little")
header = json.loads(content[8:8 + header_bytes].decode("utf-8"))
data = content[8 + header_bytes:]
assert header_bytes % 8 == 0 and content[8:9] == b"{", "the header begins with { and is padded to 8 bytes"
assert header.pop("__metadata__") == {"format": "pt"}
assert list(header)[0] == "model.f32" and list(header)[-1] == "größe" and len(header) == 11, list(header)
end_before = 0
for position, (name, entry) in enumerate(header.items()):
    begin, end = entry["data_offsets"]
    count = SIZES[entry["dtype"]]
    for dimension in entry["shape"]:
        count *= dimension
    assert begin == end_before and end - begin == count, (name, entry)
    modulus = 2 if entry["dtype"] == "BOOL" else 64
    assert data[begin:end] == bytes((3 * i + position) % modulus for i in range(count)), name
    if name.startswith("model."):
        assert entry["dtype"].lower() == name[6:], name
    end_before = end
assert end_before == len(data), "the data are covered"
print("all checks passed")
