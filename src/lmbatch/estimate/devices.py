"""What devices can do, and which one a name means. No torch: a login node asks too."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
_GIB = 2**30
_GB = 10**9
# GDDR6 cards of data centres keep their error correction in the memory itself: a sixteenth of it.
_INLINE_ECC = 15 / 16


@dataclass(frozen=True)
class Device:
    """One accelerator.

    ``memory`` is what it is sold with and ``usable`` the share of it that its driver hands out, ``bandwidth`` is bytes
    per second of its memory, ``peaks`` are dense FLOP/s (no sparsity): matrix products with float32 accumulation for
    bf16 and fp16, float32 without tensor cores, since TF32 is not switched on. ``words`` are the words of a CUDA
    device name, in small letters, by which it is known.
    """

    name: str
    memory: int
    bandwidth: float
    peaks: dict[Precision, float]
    words: tuple[str, ...]
    usable: float = 0.985
    source: str = field(default="", compare=False)

    def peak(self, precision: str) -> float | None:
        """Peak FLOP/s in ``precision``, or None for one that it cannot do."""
        return {str(key): value for key, value in self.peaks.items()}.get(precision)


def _half(both: float, single: float) -> dict[Precision, float]:
    return {"bf16": both * 1e12, "fp16": both * 1e12, "fp32": single * 1e12}


_AMPERE, _ADA = "NVIDIA GA102 whitepaper v2", "NVIDIA Ada whitepaper v2"

# The more special name first: the first entry whose words are all in a name is the one.
DEVICES: tuple[Device, ...] = (
    Device("H200", 141 * _GB, 4.8e12, _half(989.4, 67), ("h200",), source="NVIDIA H200 data sheet"),
    Device("H100 PCIe", 80 * _GIB, 2.0e12, _half(756, 51), ("h100", "pcie"), source="NVIDIA H100 data sheet"),
    Device("H100 SXM", 80 * _GIB, 3.35e12, _half(989.4, 67), ("h100",), source="NVIDIA H100 data sheet"),
    Device("H800", 80 * _GIB, 3.35e12, _half(989.4, 67), ("h800",), source="NVIDIA H800 data sheet"),
    Device("H20", 96 * _GB, 4.0e12, _half(148, 44), ("h20",), source="NVIDIA H20 data sheet"),
    Device("A100 80GB", 80 * _GIB, 2.039e12, _half(312, 19.5), ("a100", "80"), source="NVIDIA A100 data sheet"),
    Device("A100 40GB", 40 * _GIB, 1.555e12, _half(312, 19.5), ("a100",), source="NVIDIA A100 data sheet"),
    Device("A800 80GB", 80 * _GIB, 2.039e12, _half(312, 19.5), ("a800",), source="NVIDIA A800 data sheet"),
    Device("V100 32GB", 32 * _GIB, 0.9e12, {"fp16": 125e12, "fp32": 15.7e12}, ("v100", "32"),
           source="NVIDIA V100 data sheet"),
    Device("V100 16GB", 16 * _GIB, 0.9e12, {"fp16": 125e12, "fp32": 15.7e12}, ("v100",),
           source="NVIDIA V100 data sheet"),
    Device("L40S", 48 * _GIB, 0.864e12, _half(362, 91.6), ("l40s",), _INLINE_ECC, "NVIDIA L40S data sheet"),
    Device("L40", 48 * _GIB, 0.864e12, _half(181, 90.5), ("l40",), _INLINE_ECC, "NVIDIA L40 data sheet"),
    Device("RTX A6000", 48 * _GIB, 0.768e12, _half(154.8, 38.7), ("a6000",), source=_AMPERE),
    Device("A10", 24 * _GIB, 0.6e12, _half(125, 31.2), ("a10",), _INLINE_ECC, "NVIDIA A10 data sheet"),
    Device("L4", 24 * _GIB, 0.3e12, _half(121, 30.3), ("l4",), _INLINE_ECC, "NVIDIA L4 data sheet"),
    Device("T4", 16 * _GIB, 0.32e12, {"fp16": 65e12, "fp32": 8.1e12}, ("t4",), _INLINE_ECC, "NVIDIA T4 data sheet"),
    Device("RTX 4090", 24 * _GIB, 1.008e12, _half(165.2, 82.6), ("4090",), source=_ADA),
    Device("RTX 3090 Ti", 24 * _GIB, 1.008e12, _half(80, 40), ("3090ti",), source=_AMPERE),
    Device("RTX 3090", 24 * _GIB, 0.936e12, _half(71, 35.6), ("3090",), source=_AMPERE),
)  # fmt: skip


def find_device(name: str) -> Device | None:
    """The device that a CUDA name (``NVIDIA A100-SXM4-80GB``) or a short one (``A100 80``) means, if it is known."""
    said = _words_of(name)
    return next((device for device in DEVICES if said.issuperset(device.words)), None)


def _words_of(name: str) -> set[str]:
    """The words of a name, also two neighbours as one (``3090 Ti``), a size without its unit, and no makers' names.

    Whole words: an L40 is no L4, and an RTX A1000 no A100.
    """
    parts = re.findall(r"[a-z0-9]+", re.sub(r"nvidia|geforce|tesla|rtx", " ", name.lower()))
    return {*parts, *map("".join, pairwise(parts)), *(part.removesuffix("gb") for part in parts)}


def peak_flops(device_name: str, precision: str) -> float | None:
    """Peak FLOP/s of one device by its CUDA name, or None where it is not known (a CPU, for one)."""
    device = find_device(device_name)
    return None if device is None else device.peak(precision)
