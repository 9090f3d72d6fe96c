"""Writes the seeds of the fuzzers: small files of torch.save, their pickles, an index, safetensors,
GGUF and NumPy.

    python tests/fuzz/make_corpus.py corpus
"""

import collections
import json
import pathlib
import struct
import sys
import warnings
import zipfile

import numpy
import torch


def dicts():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    base = torch.arange(24.0).view(4, 6)
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16,
              torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128)
    yield "one", {"w": torch.ones(3)}
    yield "state_dict", module.state_dict()
    yield "checkpoint", {"model_state_dict": module.state_dict()}
    yield "with_config", {"model_state_dict": module.state_dict(), "config.json": '{"model_type": "gemma"}'}
    yield "parameters", dict(module.named_parameters())
    yield "views", {"base": base, "column": base[:, 2], "t": base.t(), "part": base[1:3, 2:5:2],
                    "expanded": torch.arange(3.0).expand(5, 3), "nothing": base[4:]}
    yield "scalars", {"w": torch.tensor(1.0), "none": None, "i": 2**40, "f": 0.5, "s": "text", "b": True}
    yield "training", {"model_state_dict": dict(module.state_dict()),
                       "optimizer": {"state": {0: {"step": 1}}, "groups": [{"betas": (0.9, 0.99)}]}}
    yield "lightning", {"epoch": 3, "state_dict": module.state_dict()}
    yield "beside", {"model_state_dict": {"w": torch.ones(3)}, **beside()}
    yield "dtypes", {str(dtype): torch.zeros(2, dtype=dtype) for dtype in dtypes}


def beside():
    """What is no weight: one of each form that torch.load(weights_only=True) reads."""
    attributed = torch.ones(2)
    attributed.note = "x"
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    conjugated = torch.zeros(2, dtype=torch.complex64).conj()
    return {"values": [torch.bfloat16, torch.Size([1]), torch.device("cpu"), torch.strided, {1, 2}, 1 + 2j, b"abc",
                       bytearray(b"a"), collections.Counter("aab"), 1 << 80, "\ud800", {(1, 2): 3, None: 1.5}],
            "tensors": [torch.zeros(4).to(torch.float8_e4m3fn), torch.zeros(2, dtype=torch.uint16),
                        torch.eye(3).to_sparse(), quantised, conjugated, torch.empty(3, device="meta"),
                        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
                        torch.nn.Parameter(torch.ones(2)), attributed, torch.ones(2).untyped_storage()]}


def as_zip64(archive):
    """Adds the end records of files above 4 GiB (APPNOTE.TXT 4.3.14, 4.3.15) to one that is small."""
    end = len(archive) - 22
    entries, size, offset = struct.unpack("<10xHII", archive[end:end + 20])
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    return archive[:end] + record + locator + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)


def gguf_file(version, keys, tensors, alignment=32):
    """keys: name -> (type, bytes); tensors: name -> (innermost size first, type, bytes)."""
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for key, (kind, value) in keys.items():
        header += text(key) + struct.pack("<I", kind) + value
    data = b""
    for name, (sizes, kind, content) in tensors.items():
        header += text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, len(data))
        data += content + bytes(-len(content) % alignment)
    return header + bytes(-len(header) % alignment) + data


def gguf_files():
    scalars = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
    string = struct.pack("<Q", 3) + b"abc"
    keys = {f"k{kind}": (kind, struct.pack(form, 1)) for kind, form in scalars.items()}
    keys["text"] = (8, string)
    keys["texts"] = (9, struct.pack("<IQ", 8, 2) + string * 2)
    keys["numbers"] = (9, struct.pack("<IQ2f", 6, 2, 0.5, 1.5))
    keys["nested"] = (9, struct.pack("<IQ", 9, 2) + struct.pack("<IQB", 0, 1, 7) * 2)
    blocks = {2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144), 13: (256, 176), 14: (256, 210)}
    tensors = {f"t{kind}": ((size, 2), kind, bytes(range(nbytes)) * 2) for kind, (size, nbytes) in blocks.items()}
    yield "keys", gguf_file(3, keys, {})
    yield "blocks", gguf_file(3, {}, tensors)
    yield "plain", gguf_file(2, {}, {"f": ((3,), 0, bytes(12)), "h": ((2, 2), 1, bytes(8)), "b": ((), 30, bytes(2))})
    yield "aligned", gguf_file(3, {"general.alignment": (4, struct.pack("<I", 64))}, {"f": ((3,), 0, bytes(12))}, 64)
def safetensors():
    """Headers over the 24 bytes of data that safetensors_fuzz puts behind them."""
    whole = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    yield "one", {"w": whole, "__metadata__": {"format": "pt"}}
    halves = ({"dtype": "BF16", "shape": [6], "data_offsets": [at, at + 12]} for at in (0, 12))
    yield "two", dict(zip("ab", halves))
    yield "none", {"none": {"dtype": "I8", "shape": [0, 7], "data_offsets": [0, 0]}, "w": whole}
    yield "scalars", {"i": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]},
                      "c": {"dtype": "C64", "shape": [2], "data_offsets": [0, 16]}}


def npz_arrays():
    yield "floats", numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    yield "half", numpy.zeros((2, 1, 3), dtype=numpy.float16, order="F")
    yield "bfloat16", numpy.zeros(3, dtype="V2")
    yield "scalar", numpy.int64(3)
    yield "empty", numpy.zeros((0, 4), dtype=numpy.uint8)
    yield "objects", numpy.array([None], dtype=object)
    yield "texts", numpy.array(["a"])
    yield "fields", numpy.zeros(1, dtype=[("a", "<f4")])


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in gguf_files():
        (folder / f"{name}.gguf").write_bytes(content)
    for name, values in dicts():
        path = folder / f"{name}.ckpt"
        torch.save(values, path)
        with zipfile.ZipFile(path) as archive:
            (folder / f"{name}.pkl").write_bytes(archive.read(f"{name}/data.pkl"))
    torch.save({"w": torch.ones(3)}, folder / "protocol4.ckpt", pickle_protocol=4)
    torch.save({"w": torch.ones(3), **beside()}, folder / "protocol5.ckpt", pickle_protocol=5)
    torch.save({"w": torch.ones(3)}, folder / "legacy.ckpt", _use_new_zipfile_serialization=False)
    (folder / "zip64.ckpt").write_bytes(as_zip64((folder / "one.ckpt").read_bytes()))
    for name, header in safetensors():
        text = json.dumps(header).encode()
        (folder / f"{name}.json").write_bytes(text)
        (folder / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    arrays = dict(npz_arrays())
    for name, array in arrays.items():
        numpy.save(folder / f"{name}.npy", array)
    numpy.savez(folder / "arrays.npz", **{name: arrays[name] for name in ("floats", "half", "bfloat16", "scalar", "empty")})
    index = {"metadata": {"total_size": 12}, "weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(pathlib.Path(sys.argv[1]))
