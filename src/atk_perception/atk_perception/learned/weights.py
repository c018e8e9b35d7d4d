"""Weights on disk: safetensors in half precision, with a format version and a checksum over all tensors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from atk_perception.learned.network import PointNetwork
from atk_perception.public_models import BackendError

FORMAT_VERSION = "1"
PACKAGED = Path(__file__).parent / "atk.safetensors"


class WeightsError(BackendError):
    """Weights are missing, damaged or made for another network."""


def checksum(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and half precision values, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].to(torch.float16).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save_weights(path: Path, network: PointNetwork) -> None:
    """Write the network's weights, half precision."""
    tensors = {
        name: value.detach().cpu().to(torch.float16).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(tensors, path, {"format_version": FORMAT_VERSION, "sha256": checksum(tensors)})


def load_network(path: Path = PACKAGED) -> PointNetwork:
    """The network with the weights at `path`, ready for inference.

    Raises:
        WeightsError: no such file, another format version, a checksum that does not fit, or tensors of another network.
    """
    if not path.is_file():
        raise WeightsError(
            f"no weights at {path}. Those of this package are learned/atk.safetensors: is the installation whole? "
            "Others are trained as learned/MODEL_CARD.md says (python -m atk_perception.training.train --help)"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file, or was cut short: {error}") from error
    version = about.get("format_version")
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format version {version}; this code reads {FORMAT_VERSION}. Update one of the two"
        )
    if checksum(tensors) != about.get("sha256"):
        raise WeightsError(
            f"{path} is damaged: its tensors do not have the checksum it states. Fetch it again"
        )
    network = PointNetwork()
    try:
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise WeightsError(f"{path} holds weights of another network: {error}") from error
    return network.eval().requires_grad_(False)
