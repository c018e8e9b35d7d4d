"""What a policy's network runs in on the robot: torch, or onnxruntime on the graph that `export_policy` wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atk_policy.policies.protocol import PolicyInput
from atk_policy.run_folder import ONNX_FILE, WEIGHTS_FILE, RunFolder, RunFolderError

Array = npt.NDArray[np.float32]
# (K, N, 2) uv [px], (K, N) visible, (K, J + 1) robot [rad, m] -> (H, J + 1) chunk [rad, m]; see PolicyInput.
Inference = Callable[[Array, Array, Array], Array]

INPUT_NAMES = ("uv_px", "visible", "robot")
OUTPUT_NAME = "chunk"
WEIGHTS_DIGEST = "weights_sha256"  # entry of the graph's metadata: which weights it was made of


def torch_inference(run: RunFolder) -> Inference:
    """The policy itself."""

    def infer(*arrays: Array) -> Array:
        with torch.inference_mode():
            seen = PolicyInput(*(torch.from_numpy(array)[None] for array in arrays))
            return np.asarray(run.policy.act(seen)[0].numpy())

    return infer


def onnx_inference(run: RunFolder) -> Inference:
    """policy.onnx of the run folder, on one thread: so small a network only loses by handing work to others.

    Raises:
        RunFolderError: onnxruntime is not installed; the graph is missing, damaged or of other weights.
    """
    path = run.path / ONNX_FILE
    again = f"'ros2 run atk_policy export_policy {run.path}'"
    if not path.is_file():
        raise RunFolderError(
            f"{path} does not exist; write it with {again}, or use inference_backend 'torch'"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise RunFolderError(
            f"inference_backend is 'onnxruntime', which cannot be imported ({error}); install it: "
            "pip install -r requirements/onnx.txt, or use inference_backend 'torch'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base but this
        raise RunFolderError(
            f"{path} is no graph that onnxruntime can run ({error}); write it again with {again}"
        ) from error
    made_of = session.get_modelmeta().custom_metadata_map.get(WEIGHTS_DIGEST, "")
    if made_of != weights_digest(run.path):
        raise RunFolderError(
            f"{path} was not made of the {WEIGHTS_FILE} beside it; write it again with {again}"
        )

    def infer(*arrays: Array) -> Array:
        feed = {name: array[None] for name, array in zip(INPUT_NAMES, arrays, strict=True)}
        return np.asarray(session.run([OUTPUT_NAME], feed)[0][0])

    return infer


INFERENCES: dict[str, Callable[[RunFolder], Inference]] = {
    "torch": torch_inference,
    "onnxruntime": onnx_inference,
}
DEFAULT_INFERENCE = "torch"


def make_inference(name: str, run: RunFolder) -> Inference:
    """The inference of this name for a run folder.

    Raises:
        ValueError: no such backend.
        RunFolderError: see `onnx_inference`.
    """
    if name not in INFERENCES:
        raise ValueError(f"unknown inference_backend '{name}'; known: {', '.join(sorted(INFERENCES))}")
    return INFERENCES[name](run)


def weights_digest(folder: Path) -> str:
    """Which weights a run folder holds.

    Raises:
        RunFolderError: there are none.
    """
    try:
        return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    except OSError as error:
        raise RunFolderError(f"{folder / WEIGHTS_FILE} cannot be read: {error.strerror}") from error
