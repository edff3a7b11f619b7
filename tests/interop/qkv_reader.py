"""An independent reader of .qkv files, by docs/formats/qkv.md alone; slow and plain.
  qkv_reader.py make MODEL.safetensors             tensors that every codec is the best for
  qkv_reader.py compare MODEL.safetensors FILE.qkv  every tensor's bytes
"""
import ctypes
import ctypes.util
import json
import random
import struct
import sys


def plane(data, at, n, alphabet):
    """A coded plane of n symbols at `at`: the symbols, and where it ends."""
    first, last = struct.unpack_from("<HH", data, at)
    at += 4
    assert first <= last < alphabet
    lengths = {}
    for i in range(last - first + 1):
        length = data[at + i // 2] >> (4 * (i % 2)) & 15
        if length:
            lengths[first + i] = length
    at += (last - first + 2) // 2
    sizes = struct.unpack_from("<III", data, at)
    at += 12
    symbol_of, code, previous = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - previous
        previous = length
        symbol_of[(length, code)] = symbol
        code += 1
    symbols = []
    for stream in range(4):
        bit = at * 8
        for _ in range(n * (stream + 1) // 4 - n * stream // 4):
            code = length = 0
            while (length, code) not in symbol_of:
                assert length < 12
                code = code << 1 | (data[bit >> 3] >> (bit & 7) & 1)
                length += 1
                bit += 1
            symbols.append(symbol_of[(length, code)])
        end = (bit + 7) // 8 + 8
        assert stream == 3 or end == at + sizes[stream]
        at = end
    return symbols, at


def split(data, size):
    kind, at = data[0], 1

    def byte_plane(n, at):
        if data[at] == 0:
            return list(data[at + 1:at + 1 + n]), at + 1 + n
        return plane(data, at + 1, n, 256)

    if kind == 1:
        n = size // 2
        field, at = plane(data, at, n, 512)
        coded = data[at] == 1
        at += 1
        if coded:
            rest, at = plane(data, at, n, 128)
        else:
            rest = []
            for _ in range((n + 7) // 8):
                group = int.from_bytes(data[at:at + 7], "little")
                rest += [group >> 7 * i & 127 for i in range(8)]
                at += 7
        assert at == len(data)
        return b"".join(struct.pack("<H", f << 6 | (r & 64) << 9 | r & 63) for f, r in zip(field, rest))
    if kind == 2:
        planes = []
        for _ in range(4):
            symbols, at = byte_plane(size // 4, at)
            planes.append(symbols)
        assert at == len(data)
        return b"".join(struct.pack("<I", e << 23 | (a & 128) << 24 | (a & 127) << 16 | b << 8 | c)
                        for e, a, b, c in zip(*planes))
    symbols, at = byte_plane(size, at)
    assert kind == 0 and at == len(data)
    return bytes(symbols)


def dictionary(data, size):
    n, bits, whole, at = size // 2, data[0], data[1], 2
    codebook = [data[at + 2 * i:at + 2 * i + 2] for i in range(1 << bits)]
    at += 2 << bits
    covered = [True] * n
    if not whole:
        covered = [bool(data[at + i // 8] >> i % 8 & 1) for i in range(n)]
        at += (n + 7) // 8
    packed_bytes = (sum(covered) * bits + 7) // 8
    packed = int.from_bytes(data[at:at + packed_bytes], "little")
    at += packed_bytes + (0 if bits == 8 else 8)
    words = []
    for known in covered:
        if known:
            words.append(codebook[packed & (1 << bits) - 1])
            packed >>= bits
        else:
            words.append(data[at:at + 2])
            at += 2
    assert at == len(data)
    return b"".join(words)


def zstd(data, size):
    library = ctypes.util.find_library("zstd")
    if library is None:
        print("libzstd is not installed", file=sys.stderr)
        sys.exit(77)
    decompress = ctypes.CDLL(library).ZSTD_decompress
    decompress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(size)
    assert decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data))) == size
    return out.raw


CODECS = {"raw": lambda data, size: data, "split": split, "dictionary": dictionary, "zstd": zstd}


def read(path):
    content = open(path, "rb").read()
    at = struct.unpack("<Q", content[-64:-56])[0]

    def number(size):
        nonlocal at
        at += size
        return int.from_bytes(content[at - size:at], "little")

    def text():
        nonlocal at
        size = number(8)
        at += size
        return content[at - size:at].decode()

    codecs = [(text(), text())[0] for _ in range(number(8))]
    assert number(8) == 0, "metadata, which this test does not write"
    records = {}
    for _ in ("files", "tensors"):
        for _ in range(number(8)):
            name, _ = text(), text()
            dims = [number(8) for _ in range(number(4))]
            left, chunk_bytes, offset = number(8), number(8), number(8)
            for dim in dims[:-1]:
                left *= dim
            data = b""
            while left:
                codec, size, _ = number(4), number(8), number(8)
                raw = min(left, chunk_bytes)
                data += CODECS[codecs[codec]](content[offset:offset + size], raw)
                left -= raw
                offset += size
            records[name] = data
    return records


def make(path):
    random.seed(5)
    normal = [random.gauss(0, 0.02) for _ in range(6144)]
    few = [random.randrange(16) * 977 for _ in range(320)]
    mixed = [random.randrange(200) * 251 if random.random() < 0.9 else random.randrange(65536) for _ in range(4096)]
    tensors = {
        "normal": ("BF16", [64, 96], b"".join(struct.pack("<f", x)[2:] for x in normal)),
        "half": ("F16", [64, 96], struct.pack("<6144e", *normal)),
        "float": ("F32", [64, 96], struct.pack("<6144f", *normal)),
        "few": ("F16", [16, 20], struct.pack("<320H", *few)),
        "mixed": ("BF16", [16, 256], struct.pack("<4096H", *mixed)),
        "repeats": ("I64", [8, 16], struct.pack("<128q", *(i % 16 for i in range(128)))),
        "skewed": ("U8", [40, 51], bytes(min(255, int(random.expovariate(0.1))) for _ in range(2040))),
        "noise": ("U8", [3, 17], bytes(random.randrange(256) for _ in range(51))),
    }
    header, data = {}, b""
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)


def compare(original, packed):
    content = open(original, "rb").read()
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    found = read(packed)
    for name, entry in json.loads(content[8:begin]).items():
        first, last = entry["data_offsets"]
        assert found[name] == content[begin + first:begin + last], name


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    compare(sys.argv[2], sys.argv[3])
