"""What the matcher's and the tracker's evidence is worth: logistic regressions on generated scenes, from which their constants come.

    python -m atk_perception.training.fit_confidence matcher --scenes 300
    python -m atk_perception.training.fit_confidence tracker --clips 60

Scenes are of seeds that neither the network was trained on nor anything is measured on. Both backends turn evidence into log odds by
a sum with constants at the top of their files (`correspondence/atk.py`, `tracking/atk.py`); this prints them, and how well
they do: the last line of standard output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from atk_perception.correspondence.atk import IMPOSSIBLE, LARGEST_LEAD, AtkMatcher
from atk_perception.correspondence.protocol import Template
from atk_perception.evaluation import held_out
from atk_perception.evaluation.run import known_matches
from atk_perception.learned.backbone import Backbone
from atk_perception.learned.weights import load_network
from atk_perception.tracking.atk import AtkTracker
from atk_perception.training.clip import Clip
from atk_perception.training.generator import PLANAR, ROBOT
from atk_perception.training.planar import planar_clip
from atk_perception.training.robot_scenes import robot_clip

# Above what the generator writes, below what is held out.
FIRST_SEED = 700_000
CLOSE_PX = 8.0
Rows = NDArray[np.float64]
Truth = NDArray[np.bool_]


def scene_pair(number: int, points: int = 64) -> Clip:
    """Template and scene: other light, often another background; odd numbers are 3-D, every other pair is turned by any roll.

    A mixture, for a matcher is asked both kinds: things that were moved by a hand's width, and things turned over.
    """
    seed, size = FIRST_SEED + number, (held_out.HEIGHT, held_out.WIDTH)
    any_roll = number // 2 % 2 == 1
    if number % 2:
        kind = replace(
            ROBOT,
            new_scene_fraction=1.0,
            background_point_fraction=0.0,
            new_scene_yaw_rad=float(np.pi) if any_roll else 0.7,
        )
        return robot_clip(seed, 2, *size, kind, points)
    flat = replace(
        PLANAR,
        new_scene_fraction=1.0,
        background_point_fraction=0.0,
        new_scene_roll_rad=float(np.pi) if any_roll else 0.7,
        new_scene_scale_log=0.45 if any_roll else 0.15,
    )
    return planar_clip(seed, 2, *size, flat, points)


def fit(rows: Rows, right: Truth, weight: Rows | None = None, ridge: float = 1e-3) -> Rows:
    """(D + 1,) bias and weights of a logistic regression of (M,) `right` on (M, D) `rows`, by Newton's method."""
    columns = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
    weight = np.ones(len(rows)) if weight is None else weight
    found = np.zeros(columns.shape[1])
    for _ in range(50):
        probability = 1.0 / (1.0 + np.exp(-np.clip(columns @ found, -30, 30)))
        gradient = columns.T @ (weight * (right - probability)) - ridge * found
        curvature = weight * probability * (1.0 - probability)
        step = np.linalg.solve(
            (columns * curvature[:, None]).T @ columns + ridge * np.eye(len(found)), gradient
        )
        found = found + step
        if np.abs(step).max() < 1e-8:
            break
    return found


def matcher_evidence(
    scenes: int, weights: Path | None
) -> tuple[list[Rows], list[Truth], list[NDArray[np.int_]]]:
    """Per scene: (C, 6) evidence of every candidate, (C,) whether it is right, (C,) whose it is."""
    matcher = AtkMatcher(None if weights is None else Backbone(load_network(weights)))
    rows, right, owners = [], [], []
    for number in tqdm(range(scenes), desc="scenes", unit="scene", file=sys.stderr):
        pair = scene_pair(number)
        candidates, facts = matcher.evidence(Template(pair.video_rgb[0], pair.uv_px[:, 0]), pair.video_rgb[1])
        owner, rank = np.nonzero(candidates.support > 0.0)
        off_px = np.linalg.norm(candidates.uv_px[owner, rank] - pair.uv_px[owner, 1], axis=1)
        rows.append(facts[owner, rank].astype(np.float64))
        right.append((off_px <= CLOSE_PX) & pair.visible[owner, 1])
        owners.append(owner)
    return rows, right, owners


def fit_matcher(scenes: int, weights: Path | None) -> dict[str, object]:
    """Constants of the evidence, and of the confidence of the best candidate given its lead."""
    rows, right, owners = matcher_evidence(scenes, weights)
    evidence = fit(np.concatenate(rows), np.concatenate(right))
    best, hit = [], []
    for facts, true, owner in zip(rows, right, owners, strict=True):
        logit = evidence[0] + facts @ evidence[1:]
        for point in np.unique(owner):
            mine = np.flatnonzero(owner == point)
            order = mine[np.argsort(-logit[mine])]
            second = logit[order[1]] if len(order) > 1 else IMPOSSIBLE
            best.append([logit[order[0]], min(logit[order[0]] - second, LARGEST_LEAD)])
            hit.append(true[order[0]])
    confidence = fit(np.array(best), np.array(hit))
    sure = 1.0 / (1.0 + np.exp(-(confidence[0] + np.array(best) @ confidence[1:])))
    return {
        "evidence": np.round(evidence, 3).tolist(),
        "confidence": np.round(confidence, 3).tolist(),
        "right_of_best": round(float(np.mean(hit)), 4),
        **figures(sure, np.array(hit)),
    }


def tracker_evidence(
    clips: int, frames: int, weights: Path | None
) -> tuple[list[Rows], list[Truth], list[NDArray[np.int_]]]:
    """Per frame: (K, E) evidence of every proposal, (K,) whether it is right, (K,) whose it is.

    The tracker goes on from what it settles with the constants it has: fit twice where they changed much.
    """
    tracker = AtkTracker(None if weights is None else Backbone(load_network(weights)))
    rows, right, owners = [], [], []
    names = tuple(held_out.CLASSES)
    for number in tqdm(range(clips), desc="clips", unit="clip", file=sys.stderr):
        name, seed = names[number % len(names)], FIRST_SEED + number
        size = (held_out.HEIGHT, held_out.WIDTH)
        if name in held_out.PLANAR_CLASSES:
            clip = planar_clip(seed, frames, *size, held_out.PLANAR_CLASSES[name], 32)
        else:
            clip = robot_clip(seed, frames, *size, held_out.ROBOT_CLASSES[name], 32)
        template = Template(clip.video_rgb[0], clip.uv_px[:, 0])
        state = tracker.start(template, clip.video_rgb[0], known_matches(template.uv_px))
        for t in range(1, frames):
            proposals = tracker.propose(state, clip.video_rgb[t])
            mine = proposals.owner < state.count
            owner = proposals.owner[mine]
            off_px = np.linalg.norm(proposals.uv_px[mine] - clip.uv_px[owner, t], axis=1)
            rows.append(proposals.evidence[mine].astype(np.float64))
            right.append((off_px <= CLOSE_PX) & clip.visible[owner, t])
            owners.append(owner)
            state, _ = tracker.settle(state, proposals)
    return rows, right, owners


def fit_tracker(clips: int, frames: int, weights: Path | None) -> dict[str, object]:
    """Constants of the evidence, and of the confidence of the best proposal."""
    rows, right, owners = tracker_evidence(clips, frames, weights)
    evidence = fit(np.concatenate(rows), np.concatenate(right))
    best, hit = [], []
    for facts, true, owner in zip(rows, right, owners, strict=True):
        logit = evidence[0] + facts @ evidence[1:]
        for point in np.unique(owner):
            mine = np.flatnonzero(owner == point)
            chosen = mine[np.argmax(logit[mine])]
            best.append([logit[chosen]])
            hit.append(true[chosen])
    confidence = fit(np.array(best), np.array(hit))
    sure = 1.0 / (1.0 + np.exp(-(confidence[0] + np.array(best) @ confidence[1:])))
    return {
        "evidence": np.round(evidence, 3).tolist(),
        "confidence": np.round(confidence, 3).tolist(),
        "right_of_best": round(float(np.mean(hit)), 4),
        **figures(sure, np.array(hit)),
    }


def figures(probability: Rows, right: Truth) -> dict[str, object]:
    """Of claims at one half and more: their share, how many are wrong; and the expected calibration error."""
    sure = probability >= 0.5
    bins = np.clip((probability * 10).astype(int), 0, 9)
    gaps = [
        (bins == b).mean() * abs(probability[bins == b].mean() - right[bins == b].mean())
        for b in range(10)
        if (bins == b).any()
    ]
    return {
        "claimed": round(float(sure.mean()), 4),
        "confident_wrong": round(float((sure & ~right).mean()), 4),
        "calibration_error": round(float(np.sum(gaps)), 4),
        "samples": len(right),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backend", choices=("matcher", "tracker"))
    parser.add_argument("--scenes", type=int, default=300, help="of the matcher; default: %(default)s")
    parser.add_argument("--clips", type=int, default=54, help="of the tracker; default: %(default)s")
    parser.add_argument("--frames", type=int, default=48, help="of a clip; default: %(default)s")
    parser.add_argument("--weights", type=Path, help="default: the packaged ones")
    options = parser.parse_args(arguments)
    found = (
        fit_matcher(options.scenes, options.weights)
        if options.backend == "matcher"
        else fit_tracker(options.clips, options.frames, options.weights)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
