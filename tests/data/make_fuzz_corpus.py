"""Fills ../fuzz/corpus/<target> with seeds from the golden files beside it: python make_fuzz_corpus.py."""
import collections
import io
import pathlib
import pickle
import pickletools
import shutil
import zipfile

data = pathlib.Path(__file__).parent
corpus = data.parent / "fuzz" / "corpus"
for target in ("zip", "pickle", "archive", "safetensors"):
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
