"""A training in a process of its own, so that a test can kill it: `python training_process.py POLICY ENCODER FOLDER`.

Says `step K` on standard output at every record and leaves FOLDER/final.safetensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from synthetic_demonstrations import make_demonstrations

from atk_policy.augmentation import AugmentationConfig
from atk_policy.checkpoint import save_checkpoint
from atk_policy.distillation import PolicyConfig, StageConfig, TrainingData, distill

STEPS = 40


def train(policy: str, encoder: str, folder: Path, *, say: bool) -> bytes:
    """Choose and refit as `select` does, continuing what `folder` holds; returns the bytes of all final weights."""
    demonstrations, _, template = make_demonstrations(6, 16, steps=20)
    data, held_out = TrainingData.of(demonstrations[:5]), TrainingData.of(demonstrations[5:])

    def report(fraction: float, _: str) -> None:
        if say:
            print(f"step {round(fraction * STEPS)}", flush=True)

    weights = {}
    for masked in (True, False):
        name = "select" if masked else "refit"
        keep = "last" if masked else "best"
        outcome = distill(
            data,
            held_out,
            template,
            PolicyConfig(
                name=policy, encoder=encoder, horizon=4, history=2, sizes={"width": 16, "blocks": 1}
            ),
            AugmentationConfig(),
            StageConfig(
                steps=STEPS, batch=16, members=2 if masked else 1, learning_rate=3e-3, folds=2, keep=keep
            ),
            masked=masked,
            seed=3,
            report=report,
            checkpoint=folder / f"{name}.safetensors",
            records=10,
        )
        for number, member in enumerate(outcome.policies):
            weights |= {f"{name}.{number}.{k}": v for k, v in member.state_dict().items()}
        if outcome.retention is not None:
            weights["retention"] = outcome.retention
    final = folder / "final.safetensors"
    save_checkpoint(final, weights, {})
    return final.read_bytes()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], sys.argv[2], Path(sys.argv[3]), say=True)
