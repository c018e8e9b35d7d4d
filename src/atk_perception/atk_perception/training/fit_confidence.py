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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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


def fit(rows: Rows, right: Truth, ridge: float = 1e-3) -> Rows:
    """(D + 1,) bias and weights of a logistic regression of (M,) `right` on (M, D) `rows`, by Newton's method."""
    columns = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
    found = np.zeros(columns.shape[1])
    for _ in range(50):
        probability = 1.0 / (1.0 + np.exp(-np.clip(columns @ found, -30, 30)))
        gradient = columns.T @ (right - probability) - ridge * found
        curvature = (columns * (probability * (1.0 - probability))[:, None]).T @ columns
        step = np.linalg.solve(curvature + ridge * np.eye(len(found)), gradient)
        found = found + step
        if np.abs(step).max() < 1e-8:
            break
    return found


@dataclass(frozen=True, eq=False)
class Evidence:
    """What spoke for C places in one image: (C, E) evidence, (C,) whether each was right, (C,) whose it was."""

    rows: Rows
    right: Truth
    owner: NDArray[np.int_]


def matcher_evidence(scenes: int, weights: Path | None) -> list[Evidence]:
    """Of every scene, its candidates."""
    matcher = AtkMatcher(None if weights is None else Backbone(load_network(weights)))
    found = []
    for number in tqdm(range(scenes), desc="scenes", unit="scene", file=sys.stderr):
        pair = scene_pair(number)
        candidates, facts = matcher.evidence(Template(pair.video_rgb[0], pair.uv_px[:, 0]), pair.video_rgb[1])
        owner, rank = np.nonzero(candidates.support > 0.0)
        right = _right(candidates.uv_px[owner, rank], pair, owner, 1)
        found.append(Evidence(facts[owner, rank].astype(np.float64), right, owner))
    return found


def tracker_evidence(clips: int, frames: int, weights: Path | None) -> list[Evidence]:
    """Of every frame, its proposals.

    The tracker goes on from what it settles with the constants it has: fit twice where they changed much.
    """
    tracker = AtkTracker(None if weights is None else Backbone(load_network(weights)))
    found = []
    for number in tqdm(range(clips), desc="clips", unit="clip", file=sys.stderr):
        name = held_out.CLASSES[number % len(held_out.CLASSES)]
        clip = held_out.class_clip(name, FIRST_SEED + number, frames, 32)
        template = Template(clip.video_rgb[0], clip.uv_px[:, 0])
        state = tracker.start(template, clip.video_rgb[0], known_matches(template.uv_px))
        for t in range(1, frames):
            proposals = tracker.propose(state, clip.video_rgb[t])
            mine = proposals.owner < state.count
            owner = proposals.owner[mine]
            right = _right(proposals.uv_px[mine], clip, owner, t)
            found.append(Evidence(proposals.evidence[mine].astype(np.float64), right, owner))
            state, _ = tracker.settle(state, proposals)
    return found


def _right(uv_px: NDArray[np.float32], clip: Clip, owner: NDArray[np.int_], frame: int) -> Truth:
    """(C,) which places are those of their points, and in view."""
    off_px = np.linalg.norm(uv_px - clip.uv_px[owner, frame], axis=1)
    return np.asarray((off_px <= CLOSE_PX) & clip.visible[owner, frame], np.bool_)


def fit_matcher(scenes: int, weights: Path | None) -> dict[str, object]:
    """Constants of the evidence, and of the confidence of the best candidate given its lead."""

    def claim(logit: Rows) -> list[float]:
        second = logit[1] if len(logit) > 1 else IMPOSSIBLE
        return [logit[0], min(logit[0] - second, LARGEST_LEAD)]

    return fit_both(matcher_evidence(scenes, weights), claim)


def fit_tracker(clips: int, frames: int, weights: Path | None) -> dict[str, object]:
    """Constants of the evidence, and of the confidence of the best proposal."""
    return fit_both(tracker_evidence(clips, frames, weights), lambda logit: [logit[0]])


def fit_both(found: Sequence[Evidence], claim: Callable[[Rows], list[float]]) -> dict[str, object]:
    """What evidence is worth, and then how sure the best place of each point is.

    Args:
        claim: of a point's log odds, the best first, what confidence follows from.
    """
    evidence = fit(np.concatenate([f.rows for f in found]), np.concatenate([f.right for f in found]))
    claims, hits = [], []
    for one in found:
        logit = evidence[0] + one.rows @ evidence[1:]
        for point in np.unique(one.owner):
            mine = np.flatnonzero(one.owner == point)
            best_first = mine[np.argsort(-logit[mine])]
            claims.append(claim(logit[best_first]))
            hits.append(one.right[best_first[0]])
    best, hit = np.array(claims), np.array(hits)
    confidence = fit(best, hit)
    sure = 1.0 / (1.0 + np.exp(-(confidence[0] + best @ confidence[1:])))
    return {
        "evidence": np.round(evidence, 3).tolist(),
        "confidence": np.round(confidence, 3).tolist(),
        "right_of_best": round(float(np.mean(hit)), 4),
        **figures(sure, hit),
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
