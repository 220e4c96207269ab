"""Safetensors read with the standard library alone: a GPU machine without a network need not have any package."""

import array
import json
import struct

CODES = {"F32": "f", "I64": "q", "U8": "B", "I32": "i"}


def load(path):
    """{name: (shape, flat array)}; bf16 and f16 are widened to f32."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    out = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        raw = data[begin:end]
        if info["dtype"] == "BF16":
            words = array.array("H", raw)
            values = array.array("f", struct.pack(f"<{len(words)}I", *(w << 16 for w in words)))
        elif info["dtype"] == "F16":
            values = array.array("f", struct.unpack(f"<{len(raw) // 2}e", raw))
        else:
            values = array.array(CODES[info["dtype"]], raw)
        out[name] = (info["shape"], values)
    return out


def rows(tensor):
    """A matrix as a list of lists."""
    (height, width), values = tensor
    return [list(values[i * width:(i + 1) * width]) for i in range(height)]
