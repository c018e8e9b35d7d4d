"""Fetch the weights of public models, once, checked.

    ros2 run atk_perception get_weights                 # what there is, what is here
    ros2 run atk_perception get_weights dinov2 bootstapir

They go to $ATK_WEIGHTS (default: atk/weights in the user's cache), a folder for each. Pinned checksums are held against what
arrives; all are noted, and checked whenever the weights are loaded. For a model whose licence must be agreed to on its page,
give your access token in HF_TOKEN.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from atk_perception.public_models import (
    HUB,
    MODELS,
    NOTE,
    NOTE_VERSION,
    BackendError,
    PublicModel,
    checksum,
    find_weights,
    weights_root,
)

BLOCK = 1 << 20


def fetch(name: str, model: PublicModel) -> Path:
    """Download what is missing or damaged of a model; returns its folder.

    Raises:
        BackendError: the publisher does not answer, refuses, or sends something else than what was pinned. What was complete
            before stays.
    """
    folder = weights_root() / name
    noted = {file: _download(model, file, folder / file) for file in model.files}
    (folder / NOTE).write_text(
        json.dumps({"format_version": NOTE_VERSION, "source": model.source, "sha256": noted}, indent=2) + "\n"
    )
    return folder


def _download(model: PublicModel, file: str, target: Path) -> str:
    """Fetch one file unless it is there with the pinned checksum; returns its SHA-256."""
    pinned = model.files[file]
    if pinned and target.is_file() and checksum(target) == pinned:
        return pinned
    request = urllib.request.Request(f"{model.source}/{file}")
    token = os.environ.get("HF_TOKEN")
    if token and model.source.startswith(HUB):
        # Not to the server that the hub redirects to: its URLs are signed, and it refuses a second authorisation.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    partial = target.with_name(target.name + ".partial")
    digest = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(request, timeout=60) as answer,
            partial.open("wb") as out,
            tqdm(
                total=int(answer.headers.get("Content-Length") or 0) or None,
                desc=file,
                unit="B",
                unit_scale=True,
                file=sys.stderr,
            ) as bar,
        ):
            while block := answer.read(BLOCK):
                out.write(block)
                digest.update(block)
                bar.update(len(block))
    except urllib.error.HTTPError as error:
        agree = (
            f": agree to the licence on {model.page}, and give your token in HF_TOKEN" if model.page else ""
        )
        raise BackendError(f"{request.full_url} was refused ({error.code} {error.reason}){agree}") from error
    except OSError as error:
        raise BackendError(
            f"{request.full_url} could not be fetched into {target.parent}: {error}. Give the same command again"
        ) from error
    if pinned and digest.hexdigest() != pinned:
        partial.unlink()
        raise BackendError(
            f"{request.full_url} has SHA-256 {digest.hexdigest()}, expected {pinned}: the publisher changed it, or it was "
            "damaged on the way. It was not installed"
        )
    partial.replace(target)
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry."""
    parser = argparse.ArgumentParser(
        prog="get_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"unknown model {', '.join(unknown)}; known: {', '.join(MODELS)}")
    try:
        for name in options.models:
            print(f"{name}: {fetch(name, MODELS[name])} (licence {MODELS[name].licence})")
    except BackendError as error:
        raise SystemExit(f"get_weights: {error}") from error
    if not options.models:
        for name, model in MODELS.items():
            print(f"{name:<12} {model.size_mb:>5} MB  {model.licence:<42} {_presence(name)}")


def _presence(name: str) -> str:
    try:
        return str(find_weights(name))
    except BackendError as error:
        return "damaged" if "damaged" in str(error) else "not installed"


if __name__ == "__main__":
    main()
