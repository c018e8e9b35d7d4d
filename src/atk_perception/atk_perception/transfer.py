"""Transfer of a keypoint set into a new scene: a verified estimate, accepted or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matcher, Matches, Template
from atk_perception.local_affine import fit_local_affine
from atk_perception.part_placement import RigidParts, place_parts

# On the template: how far a found point speaks for one that was not found. About an object's radius.
NEIGHBOURHOOD_PX = 25.0
# A found point within some 60 px must stand behind a guess.
GUESS_WEIGHT_MIN = 0.05


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
        matches: of all N points; one that was not found is where the found ones around it put it, if there are any.
        found: (N,) bool, points at or above the confidence threshold.
        accepted: whether tracking may start.
        reason: one sentence for a person, also when accepted.
    """

    matches: Matches
    found: NDArray[np.bool_]
    accepted: bool
    reason: str


def transfer(
    matcher: Matcher,
    template: Template,
    scene_rgb: NDArray[np.uint8],
    parameters: TransferParameters,
    parts: RigidParts | None = None,
) -> Transfer:
    """Place the template's points in `scene_rgb`, (H, W, 3) uint8, and judge the result.

    Args:
        template: with the N points, and where there are `parts` their companions after them (`with_companions`).
        parts: which points move in one piece; such are placed as a whole. None: nobody knows, each is placed alone.
    """
    matches = matcher.match(template, scene_rgb)
    placed = np.zeros(len(template), np.bool_)
    if parts is not None:
        matches, placed = place_parts(template, parts.numbers, matches, scene_rgb, parameters.min_confidence)
        own = slice(len(parts.of_points))
        matches, placed = Matches(matches.uv_px[own], matches.confidence[own], matches.warp[own]), placed[own]
        template = Template(template.image_rgb, template.uv_px[own])
    found = matches.confidence >= parameters.min_confidence
    total = len(template)
    needed = min(total, max(parameters.min_found, int(np.ceil(parameters.min_found_fraction * total))))
    accepted = int(found.sum()) >= needed
    reason = (
        f"{int(found.sum())} of {total} keypoints found with confidence {parameters.min_confidence:g} or more, "
        f"{needed} needed"
    )
    return Transfer(_place_unfound(template, matches, found, placed), found, accepted, reason)


def _place_unfound(
    template: Template, matches: Matches, found: NDArray[np.bool_], placed: NDArray[np.bool_]
) -> Matches:
    """Matches with the points that were neither found nor placed by their part moved as found neighbours were; confidences stay."""
    if found.all() or not found.any():
        return matches
    away_px = np.linalg.norm(template.uv_px[:, None] - template.uv_px[None, found], axis=2)
    weight = np.exp(-0.5 * (away_px / NEIGHBOURHOOD_PX) ** 2).astype(np.float32)
    nearest = np.argmin(away_px, axis=1)
    prior = matches.warp[found][nearest]
    uv_px, warp = fit_local_affine(template.uv_px, template.uv_px[found], matches.uv_px[found], weight, prior)
    guessed = ~found & ~placed & (weight.sum(axis=1) > GUESS_WEIGHT_MIN)
    return replace(
        matches,
        uv_px=np.where(guessed[:, None], uv_px, matches.uv_px),
        warp=np.where(guessed[:, None, None], warp, matches.warp),
    )
