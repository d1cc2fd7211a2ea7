# Writes elements/table.safetensors: numbers of each floating dtype, and what they are in each other one, as PyTorch
# converts them. PyTorch takes float64 to float16 and bfloat16 by way of float32 and so rounds twice; for these two the
# table has what one rounding gives (numpy for float16, exact arithmetic for bfloat16).
#
# Names are "<from>/<to>" for results and "<from>" for what they were made of; all are bytes.
import os
import random
import struct
from fractions import Fraction

import numpy as np
import torch
from safetensors.torch import save_file

random.seed(4)
FLOATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
SMALL = {n: getattr(torch, n) for n in
         ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")}


def tensor_of(data, dtype):
    return torch.frombuffer(bytearray(data), dtype=dtype)


def bytes_of(tensor):
    return tensor.contiguous().view(torch.uint8).clone()


def near(value, ulp):
    """The value, the middle to the next number of a coarser dtype, and what lies close to that on both sides."""
    middle = value + ulp / 2
    return [value, middle, middle * (1 + 2.0**-22), middle * (1 - 2.0**-22), middle * (1 + 2.0**-45),
            middle * (1 - 2.0**-45)]


def interesting():
    values = [0.0, 1.0, float("inf"), float("nan"), 65504.0, 65519.999, 65520.0, 65536.0, 3.3895313892515355e38,
              3.3961775292304603e38, 3.4028234663852886e38, 3.4028235677973366e38, 1e39, 1e300, 5e-324, 1e-310, 1e-45,
              1.4e-45, 7e-46, 9.183549615799121e-41, 4.591774807899561e-41, 4.6e-41, 1.1754943508222875e-38,
              5.960464477539063e-08, 2.980232238769531e-08, 2.9802322387695312e-08 * (1 + 2.0**-30), 6.1e-05,
              6.103515625e-05, 6.097555160522461e-05]
    for exponent in (-149, -140, -133, -127, -126, -25, -24, -20, -15, -14, -3, 0, 5, 14, 15, 16, 100, 127):
        for digits in (10, 7):  # of float16 and bfloat16
            fraction = random.getrandbits(digits) / 2.0**digits
            values += near((1 + fraction) * 2.0**exponent, 2.0 ** (exponent - digits))
    return values + [-v for v in values]


def bfloat16_of_double(value):
    """The bits of the nearest bfloat16, ties to even."""
    sign = 0x8000 if np.signbit(value) else 0
    if np.isnan(value):
        return 0x7FC0
    if np.isinf(value):
        return sign | 0x7F80
    exact = abs(Fraction(float(value)))
    low, high = 0, 0x7F80  # 0x7F80 stands for 2^128 here
    number = lambda bits: Fraction(struct.unpack("<f", struct.pack("<I", bits << 16))[0]) if bits < 0x7F80 else Fraction(2**128)
    while high - low > 1:
        middle = (low + high) // 2
        if number(middle) <= exact:
            low = middle
        else:
            high = middle
    if exact >= number(high):
        return sign | high
    below, above = exact - number(low), number(high) - exact
    return sign | (low if below < above or (below == above and low % 2 == 0) else high)


inputs = {name: bytes(range(256)) for name in SMALL}
inputs["float16"] = b"".join(struct.pack("<H", random.getrandbits(16)) for _ in range(400)) + bytes(range(256))
inputs["bfloat16"] = inputs["float16"]
with np.errstate(over="ignore"):
    values = np.array(interesting(), dtype=np.float64)
    inputs["float32"] = values.astype(np.float32).tobytes()
inputs["float32"] += b"".join(struct.pack("<I", random.getrandbits(32)) for _ in range(300))
inputs["float64"] = values.tobytes()
inputs["float64"] += b"".join(struct.pack("<Q", random.getrandbits(64)) for _ in range(100))

table = {}
for source, data in inputs.items():
    elements = tensor_of(data, {**FLOATS, **SMALL}[source])
    table[source] = bytes_of(elements)
    for target, dtype in FLOATS.items():
        if target == source:
            continue
        if (source, target) == ("float64", "float16"):
            with np.errstate(over="ignore"):
                table[f"{source}/{target}"] = bytes_of(torch.from_numpy(elements.numpy().astype(np.float16)))
        elif (source, target) == ("float64", "bfloat16"):
            bits = np.array([bfloat16_of_double(v) for v in elements.numpy()], dtype=np.uint16)
            table[f"{source}/{target}"] = torch.frombuffer(bytearray(bits.tobytes()), dtype=torch.uint8)
        else:
            table[f"{source}/{target}"] = bytes_of(elements.to(dtype))
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "elements", "table.safetensors")
save_file(table, path, metadata={"torch": torch.__version__.split("+")[0]})
