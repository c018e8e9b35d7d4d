"""Keypoint sets of several cameras as one, for the choice between all their points, and back again.

Who chooses sees one set on one template: the templates side by side. Which points are near each other, see one patch or
are one rigid part, then needs no second thought: points of different cameras are far apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atk_perception.keypoint_set import KeypointSet
from atk_perception.part_placement import RigidParts

# Wider than any neighbourhood: rigid parts are looked for within 90 px, whole clusters are disturbed within 40.
GAP_PX = 200


def numbered(sets: Sequence[KeypointSet]) -> list[KeypointSet]:
    """The same sets with ids that count on from one to the next, and each with a name of its own."""
    starts = np.cumsum([0, *(len(points) for points in sets)])
    name = sets[0].name
    return [
        replace(
            points,
            ids=np.arange(start, start + len(points)),
            name=name if start == 0 else f"{name}_{points.camera_name}",
        )
        for start, points in zip(starts, sets, strict=False)
    ]


def side_by_side(sets: Sequence[KeypointSet]) -> KeypointSet:
    """One set of all points, in order, on a template that shows those of all cameras beside each other."""
    if len(sets) == 1:
        return sets[0]
    height = max(points.image_height for points in sets)
    templates: list[NDArray[np.uint8]] = []
    uv_px = []
    left = 0
    for points in sets:
        uv_px.append(points.uv_px + np.array([left, 0], np.float32))
        below, beside = height - points.image_height, GAP_PX
        templates.append(np.pad(points.template_rgb, ((0, below), (0, beside), (0, 0))))
        left += points.image_width + beside
    return replace(
        sets[0],
        ids=np.concatenate([points.ids for points in sets]),
        uv_px=np.concatenate(uv_px),
        template_rgb=np.concatenate(templates, axis=1),
    )


def kept_of_each(
    sets: Sequence[KeypointSet],
    ids: NDArray[np.int64],
    retention: Mapping[int, float],
    chosen: dict[str, Any],
    parts: Mapping[int, int],
) -> list[KeypointSet]:
    """The points with these ids, by camera; a camera without one is left out.

    Args:
        retention: by id, and `chosen`: how they were chosen, noted in each set.
        parts: number of the rigid part by id, of the kept points and of their companions.
    """
    kept = [(points, np.intersect1d(points.ids, ids)) for points in sets]
    return [
        replace(
            points.subset(mine, chosen={**chosen, "retention": {int(i): retention[int(i)] for i in mine}}),
            rigid=_rigid(points, mine, parts),
        )
        for points, mine in kept
        if len(mine)
    ]


def _rigid(points: KeypointSet, kept: NDArray[np.int64], parts: Mapping[int, int]) -> RigidParts:
    """Those of one camera; companions by part, as they are written to the file."""
    along = sorted((parts[i], i) for i in set(points.ids.tolist()) - set(kept.tolist()) if i in parts)
    rows = {i: row for row, i in enumerate(points.ids.tolist())}
    return RigidParts(
        np.array([parts[i] for i in kept.tolist()], np.int64),
        points.uv_px[[rows[i] for _, i in along]],
        np.array([part for part, _ in along], np.int64),
    )
