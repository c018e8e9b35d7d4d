"""Weights come back as they were saved, and anything else is refused with what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atk_perception.learned.network import PointNetwork
from atk_perception.learned.weights import WeightsError, checksum, load_network, save_weights


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", PointNetwork())
    return tmp_path / "w.safetensors"


def test_weights_come_back_in_half_precision_and_under_4_mb(saved: Path) -> None:
    torch.manual_seed(0)
    original, loaded = PointNetwork().state_dict(), load_network(saved).state_dict()
    assert set(original) == set(loaded)
    for name, value in original.items():
        torch.testing.assert_close(loaded[name], value.half().float())
    assert saved.stat().st_size < 4_000_000


def test_a_missing_file_is_answered_with_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights at .*training\.train"):
        load_network(tmp_path / "none.safetensors")


def test_a_file_cut_short_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cut short"):
        load_network(saved)


def test_one_changed_value_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 0x01
    saved.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="damaged"):
        load_network(saved)


def test_another_format_version_is_refused(saved: Path) -> None:
    tensors = load_file(saved)
    save_file(tensors, saved, {"format_version": "99", "sha256": checksum(tensors)})
    with pytest.raises(WeightsError, match="format version 99"):
        load_network(saved)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    tensors = load_file(saved)
    tensors.pop("head.bias")
    save_file(tensors, saved, {"format_version": "1", "sha256": checksum(tensors)})
    with pytest.raises(WeightsError, match=r"(?s)another network.*head\.bias"):
        load_network(saved)
