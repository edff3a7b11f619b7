"""The files that the PyTorch peer shares with qkv: safetensors, a Hugging Face directory, and batch traces.

A batch trace holds the exact batches of a training run, so that two programs can be trained on the same tokens. All
little-endian int32: eight header words (magic 0x51424154, version 1, steps, sequences per step B, sequence length T,
vocabulary, flags, 0), then for each step tokens[B*T], targets[B*T] (-100: not counted), a count of documents n and
n+1 document offsets over the B*T packed tokens.
"""

import json
import struct
from pathlib import Path

from torch_runtime import PeerError, torch
from llama_model import Llama, LlamaShape

TRACE_MAGIC = 0x51424154
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
           "I32": torch.int32}


def read_safetensors(path):
    """Every tensor of a safetensors file, by name."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    if len(data) < 8:
        raise PeerError(f"[{path}] length: expected at least 8 bytes, found {len(data)}")
    (header_length,) = struct.unpack_from("<Q", data)
    if header_length > len(data) - 8:
        raise PeerError(f"[{path}] header: expected at most {len(data) - 8} bytes, found {header_length}")
    header = json.loads(data[8 : 8 + header_length])
    body = memoryview(data)[8 + header_length :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if entry["dtype"] not in _DTYPES:
            raise PeerError(f"[{path}] {name}: expected one of {sorted(_DTYPES)}, found {entry['dtype']}")
        if not 0 <= begin <= end <= len(body):
            raise PeerError(f"[{path}] {name}: expected offsets inside the file, found {begin} to {end}")
        dtype = _DTYPES[entry["dtype"]]
        # Copied through uint8, because a tensor may start at an offset that its dtype cannot.
        raw = torch.empty(end - begin, dtype=torch.uint8)
        if end > begin:
            raw.copy_(torch.frombuffer(body[begin:end], dtype=torch.uint8))
        tensors[name] = raw.view(dtype).view(entry["shape"])
    return tensors


def _field(config, path, key):
    if key not in config:
        raise PeerError(f"[{path}] {key}: expected a value, found none")
    return config[key]


def read_shape(directory):
    """The LlamaShape of a Hugging Face directory's config.json; refuses what this peer does not compute."""
    path = Path(directory) / "config.json"
    config = json.loads(path.read_text())
    plain = {"model_type": "llama", "hidden_act": "silu", "rope_scaling": None, "attention_bias": False,
             "mlp_bias": False}
    for key, expected in plain.items():
        if config.get(key, expected) != expected:
            raise PeerError(f"[{path}] {key}: expected {expected}, found {config[key]}")
    heads = _field(config, path, "num_attention_heads")
    return LlamaShape(
        vocab=_field(config, path, "vocab_size"),
        dim=_field(config, path, "hidden_size"),
        layers=_field(config, path, "num_hidden_layers"),
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        hidden=_field(config, path, "intermediate_size"),
        tied=config.get("tie_word_embeddings", False),
        head_dim=config.get("head_dim") or 0,
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_theta=config.get("rope_theta", 10000.0),
        initializer_range=config.get("initializer_range", 0.02),
    )


def load_llama(directory):
    """The model of a Hugging Face directory, weights as float32."""
    model = Llama(read_shape(directory))
    files = sorted(Path(directory).glob("model*.safetensors"))
    if not files:
        raise PeerError(f"[{directory}] weights: expected model*.safetensors, found none")
    tensors = {}
    for path in files:
        tensors.update(read_safetensors(path))
    if model.shape.tied:
        tensors.pop("lm_head.weight", None)
    parameters = dict(model.named_parameters())
    if parameters.keys() != tensors.keys():
        raise PeerError(f"[{directory}] tensors: expected the names of a Llama, found these to differ: "
                        f"{sorted(parameters.keys() ^ tensors.keys())[:4]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                raise PeerError(f"[{directory}] {name}: expected shape {list(parameter.shape)}, "
                                f"found {list(tensors[name].shape)}")
            parameter.copy_(tensors[name])
    return model


class BatchTrace:
    """A batch trace; iterating gives (tokens, targets, documents) per step, each (B, T) int64.

    documents is None where every row is one document, which allows the one causal mask for all.
    """

    def __init__(self, path):
        self.path = Path(path)
        with open(path, "rb") as file:
            header = self._words(file, 8, "header").tolist()
        if header[0] != TRACE_MAGIC or header[1] != 1:
            raise PeerError(f"[{path}] header: expected magic {TRACE_MAGIC:#x} version 1, "
                            f"found {header[0]:#x} version {header[1]}")
        self.steps, self.sequences, self.length, self.vocab = header[2:6]
        if min(header[2:6]) < 1:
            raise PeerError(f"[{path}] header: expected positive sizes, found {header[2:6]}")

    def __iter__(self):
        rows = (self.sequences, self.length)
        count = self.sequences * self.length
        with open(self.path, "rb") as file:
            file.seek(8 * 4)
            for step in range(self.steps):
                where = f"step {step}"
                tokens = self._words(file, count, where)
                targets = self._words(file, count, where)
                n_documents = self._words(file, 1, where).item()
                if not 0 <= n_documents <= count:
                    raise PeerError(f"[{self.path}] {where}: expected 0 to {count} documents, found {n_documents}")
                offsets = self._words(file, n_documents + 1, where)
                if not (0 <= int(tokens.min()) and int(tokens.max()) < self.vocab and int(targets.max()) < self.vocab):
                    raise PeerError(f"[{self.path}] {where}: expected tokens below {self.vocab}, found one outside")
                yield tokens.view(rows), targets.view(rows), self._documents(offsets, count, where)
            if file.read(1):
                raise PeerError(f"[{self.path}] end: expected {self.steps} steps, found bytes after them")

    def _documents(self, offsets, count, where):
        lengths = offsets.diff()
        if offsets[0] != 0 or offsets[-1] != count or bool((lengths < 0).any()):
            raise PeerError(f"[{self.path}] {where}: expected document offsets rising from 0 to {count}, found others")
        ids = torch.repeat_interleave(torch.arange(lengths.numel()), lengths).view(self.sequences, self.length)
        return None if bool((ids == ids[:, :1]).all()) else ids

    def _words(self, file, count, where):
        data = bytearray(file.read(4 * count))
        if len(data) != 4 * count:
            raise PeerError(f"[{self.path}] {where}: expected {4 * count} bytes, found {len(data)}")
        return torch.frombuffer(data, dtype=torch.int32).long()


def write_trace(path, vocab, batches):
    """Write batches of (tokens (B, T), targets (B, T), document offsets) as a batch trace."""
    sequences, length = batches[0][0].shape
    with open(path, "wb") as file:
        file.write(struct.pack("<8i", TRACE_MAGIC, 1, len(batches), sequences, length, vocab, 0, 0))
        for tokens, targets, offsets in batches:
            words = tokens.flatten().tolist() + targets.flatten().tolist() + [len(offsets) - 1] + list(offsets)
            file.write(struct.pack(f"<{len(words)}i", *words))
