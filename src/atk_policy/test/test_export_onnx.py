"""The exported graph commands what the policy commands, and every way in which it cannot be used is explained."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from run_folders import HORIZON, ROBOT, write_run_folder

from atk_policy.inference import ONNX_FILE, make_inference
from atk_policy.policy_runner import PolicyRunner
from atk_policy.run_folder import RunFolderError


def test_a_missing_graph_says_how_to_make_one(tmp_path):
    run = write_run_folder(tmp_path / "run")
    with pytest.raises(
        RunFolderError, match=r"policy\.onnx does not exist; write it with 'ros2 run atk_policy exp"
    ):
        PolicyRunner(run, ROBOT, inference_backend="onnxruntime")


def test_a_missing_onnxruntime_says_how_to_get_it(tmp_path, monkeypatch):
    run = write_run_folder(tmp_path / "run")
    (run.path / ONNX_FILE).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what Python takes for 'cannot be imported'
    with pytest.raises(
        RunFolderError, match=r"pip install -r requirements/onnx\.txt, or use inference_backend 'torch'"
    ):
        make_inference("onnxruntime", run)


def test_a_missing_exporter_says_how_to_get_it(tmp_path, monkeypatch):
    from atk_policy.export_onnx import ExportError, export_onnx

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"pip install -r requirements/onnx\.txt"):
        export_onnx(write_run_folder(tmp_path / "run"))


def needs_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install -r requirements/onnx.txt")


@pytest.mark.parametrize(
    ("policy", "encoder", "history"),
    [
        ("mlp", "concat", 1),
        ("gaussian", "attention", 2),
        ("diffusion", "concat", 1),
        ("flow", "attention", 2),
    ],
)
def test_the_graph_gives_what_torch_gives(tmp_path, policy, encoder, history):
    needs_onnx()
    from atk_policy.export_onnx import export_onnx, parity

    run = write_run_folder(tmp_path / "run", policy_name=policy, encoder=encoder, history=history)
    assert export_onnx(run) < 1e-5
    assert parity(run) < 1e-5
    chunk = make_inference("onnxruntime", run)(
        np.full((history, 4, 2), 300.0, np.float32),
        np.ones((history, 4), np.float32),
        np.zeros((history, 8), np.float32),
    )
    assert chunk.shape == (HORIZON, 8)
    assert chunk.dtype == np.float32
    assert not list(run.path.glob("*.partial*")), "one file, nothing left over"


def test_a_graph_of_other_weights_is_refused_and_a_damaged_one_too(tmp_path):
    needs_onnx()
    from atk_policy.export_onnx import export_onnx

    run = write_run_folder(tmp_path / "run")
    export_onnx(run)
    graph = (run.path / ONNX_FILE).read_bytes()
    # Selected again: other weights, the graph of before.
    run.policy.uv_mean_px.fill_(100.0)
    run.save()
    with pytest.raises(RunFolderError, match=r"was not made of the policy\.safetensors beside it"):
        make_inference("onnxruntime", run)
    (run.path / ONNX_FILE).write_bytes(graph[: len(graph) // 2])
    with pytest.raises(RunFolderError, match="no graph that onnxruntime can run"):
        make_inference("onnxruntime", run)


def test_the_command_line_exports_and_explains(tmp_path):
    needs_onnx()
    run = write_run_folder(tmp_path / "run")
    command = [sys.executable, "-m", "atk_policy.export_onnx"]
    done = subprocess.run([*command, str(run.path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"max_abs_difference"' in done.stdout.splitlines()[-1]
    assert (run.path / ONNX_FILE).is_file()
    done = subprocess.run([*command, str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("export_policy: run folder")
