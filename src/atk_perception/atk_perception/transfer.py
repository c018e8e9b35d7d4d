"""Transfer of a keypoint set into a new scene: a verified estimate, accepted or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matcher, Matches, Template


@dataclass(frozen=True)
class TransferParameters:
    """When a transfer is believed.

    Attributes:
        min_confidence: a point counts as found from here on.
        min_found_fraction: share of the set that must be found. Scenes that do not show the objects reach a quarter
            by chance (look-alike patches); a half would refuse random candidates, some of which lie on a background
            that is not there.
        min_found: points that must be found at least (or all, for a smaller set): three fix an affine map.
    """

    min_confidence: float = 0.5
    min_found_fraction: float = 0.4
    min_found: int = 3


@dataclass(frozen=True, eq=False)
class Transfer:
    """What the matcher found and whether it is good enough to act on.

    Attributes:
        matches: of all N points.
        found: (N,) bool, points at or above the confidence threshold.
        accepted: whether tracking may start.
        reason: one sentence for a person, also when accepted.
    """

    matches: Matches
    found: NDArray[np.bool_]
    accepted: bool
    reason: str


def transfer(
    matcher: Matcher, template: Template, scene_rgb: NDArray[np.uint8], parameters: TransferParameters
) -> Transfer:
    """Place the template's points in `scene_rgb`, (H, W, 3) uint8, and judge the result."""
    matches = matcher.match(template, scene_rgb)
    found = matches.confidence >= parameters.min_confidence
    total = len(template)
    needed = min(total, max(parameters.min_found, int(np.ceil(parameters.min_found_fraction * total))))
    accepted = int(found.sum()) >= needed
    reason = (
        f"{int(found.sum())} of {total} keypoints found with confidence {parameters.min_confidence:g} or more, "
        f"{needed} needed"
    )
    return Transfer(matches, found, accepted, reason)
