"""Which device a name means."""

from __future__ import annotations

import pytest

from lmbatch.estimate.devices import DEVICES, find_device, peak_flops
from lmbatch.estimate.machine import parse_gpu


def test_peaks_are_known_by_a_part_of_the_name() -> None:
    assert peak_flops("NVIDIA GeForce RTX 3090", "bf16") == 71e12
    assert peak_flops("NVIDIA GeForce RTX 3090 Ti", "bf16") == 80e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_flops("Tesla V100-SXM2-32GB", "bf16") is None
    assert peak_flops("cpu", "fp32") is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("Tesla V100-SXM2-16GB", "V100 16GB"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA L40", "L40"),
        ("rtx 4090", "RTX 4090"),
        ("RTX3090Ti", "RTX 3090 Ti"),
    ],
)
def test_the_names_that_drivers_give(name: str, found: str) -> None:
    device = find_device(name)
    assert device is not None
    assert device.name == found


@pytest.mark.parametrize("name", ["NVIDIA RTX A1000", "NVIDIA A1000 Laptop GPU", "NVIDIA L400", "cpu", ""])
def test_a_name_that_only_begins_alike_is_another_device(name: str) -> None:
    assert find_device(name) is None


def test_every_device_is_found_by_its_own_name() -> None:
    assert [find_device(device.name) for device in DEVICES] == list(DEVICES)
    assert all(device.source for device in DEVICES)


def test_what_the_driver_says() -> None:
    assert parse_gpu("NVIDIA GeForce RTX 3090, 24576\nNVIDIA GeForce RTX 3090, 24576\n") == (
        "NVIDIA GeForce RTX 3090",
        24576 * 2**20,
    )
    assert parse_gpu("") == (None, None)
    assert parse_gpu("NVIDIA Tegra, [N/A]") == (None, None)
