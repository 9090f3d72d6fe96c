"""Writes the seeds of checkpoint_fuzz: small files of torch.save, their pickles, and an index.

    python tests/fuzz/make_corpus.py corpus
"""

import json
import pathlib
import struct
import sys
import warnings
import zipfile

import torch


def dicts():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    base = torch.arange(24.0).view(4, 6)
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16,
              torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128)
    yield "one", {"w": torch.ones(3)}
    yield "state_dict", module.state_dict()
    yield "checkpoint", {"model_state_dict": module.state_dict()}
    yield "parameters", dict(module.named_parameters())
    yield "views", {"base": base, "column": base[:, 2], "t": base.t(), "part": base[1:3, 2:5:2],
                    "expanded": torch.arange(3.0).expand(5, 3), "nothing": base[4:]}
    yield "scalars", {"w": torch.tensor(1.0), "none": None, "i": 2**40, "f": 0.5, "s": "text", "b": True}
    yield "training", {"model_state_dict": dict(module.state_dict()),
                       "optimizer": {"state": {0: {"step": 1}}, "groups": [{"betas": (0.9, 0.99)}]}}
    yield "dtypes", {str(dtype): torch.zeros(2, dtype=dtype) for dtype in dtypes}


def as_zip64(archive):
    """Adds the end records of files above 4 GiB (APPNOTE.TXT 4.3.14, 4.3.15) to one that is small."""
    end = len(archive) - 22
    entries, size, offset = struct.unpack("<10xHII", archive[end:end + 20])
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    return archive[:end] + record + locator + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in dicts():
        path = folder / f"{name}.ckpt"
        torch.save(values, path)
        with zipfile.ZipFile(path) as archive:
            (folder / f"{name}.pkl").write_bytes(archive.read(f"{name}/data.pkl"))
    torch.save({"w": torch.ones(3)}, folder / "protocol4.ckpt", pickle_protocol=4)
    torch.save({"w": torch.ones(3)}, folder / "legacy.ckpt", _use_new_zipfile_serialization=False)
    (folder / "zip64.ckpt").write_bytes(as_zip64((folder / "one.ckpt").read_bytes()))
    index = {"metadata": {"total_size": 12}, "weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(pathlib.Path(sys.argv[1]))
