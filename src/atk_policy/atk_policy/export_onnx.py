"""Export the policy of a run folder as one ONNX graph, policy.onnx, and compare it with torch.

Normalisation, the joints' offsets and, for diffusion and flow, every step from the policy's own start noise are part of the
graph: keypoints and robot state in, absolute commands out. The policy node takes it with inference_backend:=onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atk_policy.inference import (
    INPUT_NAMES,
    OUTPUT_NAME,
    WEIGHTS_DIGEST,
    onnx_inference,
    torch_inference,
    weights_digest,
)
from atk_policy.policies.protocol import Policy, PolicyInput
from atk_policy.run_folder import ONNX_FILE, RunFolder, RunFolderError

# What float32 may differ by when sums are ordered in another way [rad, m]: far below what an arm can follow.
PARITY_LIMIT = 1e-4
PARITY_SAMPLES = 200


class ExportError(ValueError):
    """A policy that cannot be exported; the message says why and what to do."""


class _Graph(nn.Module):
    """`act` with the inputs that a graph has, one by one."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, uv_px: Tensor, visible: Tensor, robot: Tensor) -> Tensor:
        return self.policy.act(PolicyInput(uv_px, visible, robot))


def export_onnx(run: RunFolder) -> float:
    """Write policy.onnx beside the weights of a saved run folder.

    Returns:
        The largest difference from torch over random inputs [rad, m].

    Raises:
        ExportError: onnx is not installed, or the graph does not give what torch gives.
        RunFolderError: the run folder holds no weights, or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch.onnx needs it and would say so less clearly
    except ImportError as error:
        raise ExportError(
            f"to export, onnx and onnxscript are needed, which cannot be imported ({error}); install them: "
            "pip install -r requirements/onnx.txt"
        ) from error
    digest = weights_digest(run.path)
    example = tuple(torch.from_numpy(array)[None] for array in _random_input(run, np.random.default_rng(0)))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch about its own parts
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program: Any = torch.onnx.export(
            _Graph(run.policy).eval(),
            example,
            input_names=list(INPUT_NAMES),
            output_names=[OUTPUT_NAME],
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = WEIGHTS_DIGEST, digest
    path = run.path / ONNX_FILE
    partial = path.with_suffix(".partial")
    onnx.save(model, str(partial))
    os.replace(partial, path)
    difference = parity(run)
    if not difference <= PARITY_LIMIT:
        path.unlink()
        raise ExportError(
            f"the graph of policy '{run.file.policy}' differs from torch by up to {difference:.2e}, more than "
            f"{PARITY_LIMIT:.0e}; it was not kept. Use inference_backend 'torch'"
        )
    return difference


def parity(run: RunFolder) -> float:
    """Largest difference of the two backends' chunks over random inputs [rad, m]."""
    torch_infer, onnx_infer = torch_inference(run), onnx_inference(run)
    rng = np.random.default_rng(1)
    differences = []
    for _ in range(PARITY_SAMPLES):
        arrays = _random_input(run, rng)
        differences.append(np.abs(torch_infer(*arrays) - onnx_infer(*arrays)).max())
    return float(np.max(differences))


def _random_input(run: RunFolder, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays as `Inference` takes them: keypoints anywhere in the image, joints anywhere within a turn."""
    file = run.file
    points = (file.history, len(file.keypoint_ids))
    uv_px = rng.uniform(0.0, 1.0, (*points, 2)) * [file.image_width, file.image_height]
    robot = rng.uniform(-3.0, 3.0, (file.history, len(file.joint_names) + 1))
    return uv_px.astype(np.float32), (rng.random(points) < 0.9).astype(np.float32), robot.astype(np.float32)


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="export_policy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_folder", type=Path, help="written by 'select'")
    args = parser.parse_args()
    torch.set_num_threads(1)  # as on the robot
    try:
        run = RunFolder.load(args.run_folder)
        difference = export_onnx(run)
    except (ExportError, RunFolderError) as error:
        raise SystemExit(f"export_policy: {error}") from error
    path = run.path / ONNX_FILE
    print(
        f"{path}: differs from torch by at most {difference:.1e} rad (or m) over {PARITY_SAMPLES} random inputs"
    )
    print(
        json.dumps({"policy_onnx": str(path), "max_abs_difference": difference, "bytes": path.stat().st_size})
    )


if __name__ == "__main__":
    main()
