"""Fills ../fuzz/corpus/<target> with seeds from the golden files beside it: python make_fuzz_corpus.py.

Those of `manifest` are what `ckpt` wrote and stay as they are: Python has no XXH3 of its own for their check."""
import collections
import io
import json
import pathlib
import pickle
import pickletools
import shutil
import zipfile

data = pathlib.Path(__file__).parent
corpus = data.parent / "fuzz" / "corpus"
for target in ("zip", "pickle", "archive", "torch_file", "pt2", "safetensors", "shards", "manifest"):
    (corpus / target).mkdir(parents=True, exist_ok=True)

archives = data / "archives"
for stem in ("tensor-1.13.1", "tensor-2.13.0", "values-2.13.0", "sgd-1.13.1"):
    archive = archives / f"{stem}.pt"
    shutil.copy(archive, corpus / "archive" / archive.name)
    with zipfile.ZipFile(archive) as file:
        pickled = file.read(f"{stem}/data.pkl")
    (corpus / "archive" / f"{stem}.pkl").write_bytes(pickled)
    (corpus / "pickle" / f"{stem}.pkl").write_bytes(pickled)
shutil.copy(archives / "tensor-2.13.0.pt", corpus / "zip" / "torch.zip")

for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as file:
        for record in ("a/b", "a/c/d"):
            file.writestr(zipfile.ZipInfo(record), record * 20, method)
    (corpus / "zip" / f"{name}.zip").write_bytes(memory.getvalue())

value = [1, -(2**40), 2**80, 0.5, None, True, "caf\u00e9", b"bytes", (1, 2, 3, 4), {"k": [set(), frozenset({1})]},
         collections.OrderedDict(a=1), complex(1, 2), bytearray(b"x")]
value.append(value)
for protocol in range(6):
    (corpus / "pickle" / f"protocol{protocol}.pkl").write_bytes(pickletools.optimize(pickle.dumps(value, protocol)))

shutil.copy(data / "safetensors" / "python.safetensors", corpus / "safetensors" / "python.safetensors")
header = b'{"__metadata__":{"a":"b"},"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
(corpus / "safetensors" / "small.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"xy")

for stem in ("tensor", "state_dict", "foreign", "sparse", "quantized", "conjugated", "scripted", "module",
             "training-protocol5"):
    with zipfile.ZipFile(data / "torch" / f"{stem}.pt") as file:
        (corpus / "torch_file" / f"{stem}.pkl").write_bytes(file.read(f"{stem}/data.pkl"))
for stem in ("shapes-legacy", "training-legacy-protocol2", "training-legacy-protocol4", "tensor"):
    shutil.copy(data / "torch" / f"{stem}.pt", corpus / "torch_file" / f"{stem}.pt")

number = {"as_int": 2}
meta = {"dtype": 7, "sizes": [number, {"as_expr": {"expr_str": "s0", "hint": {"as_int": 3}}}], "requires_grad": True,
        "device": {"type": "cpu", "index": None}, "strides": [{"as_int": 3}, {"as_int": 1}],
        "storage_offset": {"as_int": 0}, "layout": 7}
weight = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}
(corpus / "pt2" / "table.json").write_text(json.dumps({"config": {"w": weight, "v": weight}}))
pickled = {"path_name": "weight_1", "is_param": False, "use_pickle": True, "tensor_meta": None, "new": [1.5]}
(corpus / "pt2" / "pickled.json").write_text(json.dumps({"config": {"w": pickled}, "more": 1}))
with zipfile.ZipFile(data / "pt2" / "two.pt2") as whole, zipfile.ZipFile(corpus / "pt2" / "two.zip", "w") as small:
    for record in whole.namelist():
        if "/data/weights/" in record or record.endswith(("archive_format", "archive_version", "byteorder")):
            small.writestr(zipfile.ZipInfo(record), whole.read(record))

index = {"metadata": {"total_size": 3}, "weight_map": {"x": "a", "y": "a", "z": "b"}}
(corpus / "shards" / "index.json").write_text(json.dumps(index))
shutil.copy(data / "sharded" / "model.safetensors.index.json", corpus / "shards" / "huggingface.json")
(corpus / "torch_file" / "one-byte.pkl").write_bytes(b"\x80")  # once crashed the target itself
