"""A training that is killed with SIGKILL and started again ends with the weights of an unbroken one, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_process import train

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def one_thread():
    """As the process that is killed: the order of a sum decides the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start(policy: str, encoder: str, folder: Path) -> subprocess.Popen[str]:
    script = [sys.executable, str(HERE / "training_process.py"), policy, encoder, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(
    ("policy", "encoder"),
    [("mlp", "concat"), ("gaussian", "attention"), ("diffusion", "concat"), ("flow", "attention")],
)
def test_killed_and_continued_is_unbroken(tmp_path, policy, encoder):
    unbroken = train(policy, encoder, tmp_path / "unbroken", say=False)
    folder = tmp_path / "killed"
    process = start(policy, encoder, folder)
    # In the first stage when its file has been written, so that there is something to continue.
    for line in process.stdout:
        if line == "step 20\n":
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "final.safetensors").exists()
    assert (folder / "select.safetensors").exists()
    process = start(policy, encoder, folder)
    steps = process.stdout.read().split("\n")
    assert process.wait() == 0
    assert steps[0] != "step 4", "it went on where it was"
    assert (folder / "final.safetensors").read_bytes() == unbroken
