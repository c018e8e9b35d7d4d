"""What several cameras see to one observation: one rule, for the live graph and for bags.

The first camera's images set the time t of a frame. Of every other camera it takes the newest image stamped up to a
quarter of that camera's period after t, unless it is older than the robot's image deadline: then that camera is
missing from the frame. A quarter, because the stamps of cameras that share a trigger differ by a little either way, and
must not decide between the image of this instant and the one before.

The rule speaks of stamps alone, so it does not matter which tracker is the faster one, as long as images of a camera
come in order, nearer to their rate than a quarter of a period, and no later than the image deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from atk_perception.keypoint_set import KeypointSet
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState
from atk_perception.robot_description import RobotDescription

T = TypeVar("T")

# NTP corrects clocks by well under 100 ms; a reset, a replay or a new simulation jumps by seconds.
CLOCK_JUMP_NS = 1_000_000_000


@dataclass(frozen=True)
class Joined(Generic[T]):
    """What all cameras saw about `stamp_ns`, in the robot's order; None of a camera that saw nothing recent."""

    stamp_ns: int
    seen: tuple[T | None, ...]


class CameraJoin(Generic[T]):
    """Joins observations of the cameras of `robot`; with one camera each is handed on as it comes."""

    def __init__(self, robot: RobotDescription) -> None:
        first, *others = robot.cameras
        self._first = first.name
        self._max_age_ns = round(robot.deadlines_s.image * 1e9)
        self._others = {camera.name: _Stream[T](round(1e9 / camera.rate_hz)) for camera in others}
        self._waiting: deque[tuple[int, T]] = deque()
        self._newest_ns = 0  # of the first camera

    def add(self, camera: str, stamp_ns: int, payload: T) -> list[Joined[T]]:
        """Add what a camera saw; returns what is now complete, by time.

        Raises:
            KeyError: the robot has no camera of that name.
        """
        # Time jumped back: another episode, replay or simulation began, and what was seen before is void.
        while self._waiting and self._waiting[-1][0] > stamp_ns + CLOCK_JUMP_NS:
            self._waiting.pop()
        for stream in self._others.values():
            stream.forget_after(stamp_ns + CLOCK_JUMP_NS)
        if camera == self._first:
            self._newest_ns = stamp_ns
            self._waiting.append((stamp_ns, payload))
        else:
            self._others[camera].add(stamp_ns, payload)
        return self._decided()

    def finish(self) -> list[Joined[T]]:
        """What still waits, with what there is. Call once, at the end of a bag."""
        return self._decided(ended=True)

    def awaited(self) -> str:
        """The camera that the oldest frame waits for: of the others the first that is late, else the first of all."""
        for stamp_ns, _ in self._waiting:
            for name, stream in self._others.items():
                if not stream.knows(stamp_ns):
                    return name
        return self._first

    def _decided(self, *, ended: bool = False) -> list[Joined[T]]:
        joined = []
        while self._waiting:
            stamp_ns, payload = self._waiting[0]
            # Nobody answers an image that is older than it may be.
            over = ended or self._newest_ns - stamp_ns > self._max_age_ns
            if not over and not all(stream.knows(stamp_ns) for stream in self._others.values()):
                break
            self._waiting.popleft()
            others = [stream.at(stamp_ns, self._max_age_ns) for stream in self._others.values()]
            joined.append(Joined(stamp_ns, (payload, *others)))
        return joined


class _Stream(Generic[T]):
    """The last observations of a camera."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._seen: deque[tuple[int, T]] = deque()

    def forget_after(self, stamp_ns: int) -> None:
        while self._seen and self._seen[-1][0] > stamp_ns:
            self._seen.pop()

    def add(self, stamp_ns: int, payload: T) -> None:
        if not self._seen or stamp_ns > self._seen[-1][0]:
            self._seen.append((stamp_ns, payload))
        while self._seen[0][0] < stamp_ns - CLOCK_JUMP_NS:  # nobody asks while the first camera is silent
            self._seen.popleft()

    def knows(self, stamp_ns: int) -> bool:
        """Whether what this camera saw about `stamp_ns` is certain: the next image can only be of later."""
        return bool(self._seen) and self._seen[-1][0] >= stamp_ns - self._period_ns // 2

    def at(self, stamp_ns: int, max_age_ns: int) -> T | None:
        """By the rule of this module; forgets what is older. Ask by growing stamps."""
        while len(self._seen) > 1 and self._seen[1][0] <= stamp_ns + self._period_ns // 4:
            self._seen.popleft()
        if not self._seen:
            return None
        seen_ns, payload = self._seen[0]
        return payload if -self._period_ns // 4 <= stamp_ns - seen_ns <= max_age_ns else None


def joined_observation(
    joined: Joined[KeypointObservation], sets: Sequence[tuple[str, KeypointSet]]
) -> KeypointObservation:
    """The points of all cameras as one observation, in the order in which a policy takes them.

    It is as old as the oldest image behind it, and as good as the worst tracker. A camera that is missing makes it
    infinitely old (stamp 0), with its points unseen and nowhere (NaN), so that nobody can take them for seen.

    Args:
        sets: (camera name, its keypoint set), in the order of `joined.seen`.
    """
    if len(sets) == 1 and joined.seen[0] is not None:
        return joined.seen[0]
    parts = [
        (name, _unseen(points) if seen is None else seen)
        for (name, points), seen in zip(sets, joined.seen, strict=True)
    ]
    seen = [part for _, part in parts]
    # Of several with one stamp the last: the first is never the one that was waited for.
    oldest, oldest_seen = min(reversed(parts), key=lambda part: part[1].stamp_ns)
    worst = next((part for part in seen if part.tracker_state is not TrackerState.TRACKING), seen[0])
    return replace(
        worst,
        stamp_ns=oldest_seen.stamp_ns,
        ids=np.concatenate([part.ids for part in seen]),
        uv_px=np.concatenate([part.uv_px for part in seen]),
        visible=np.concatenate([part.visible for part in seen]),
        confidence=np.concatenate([part.confidence for part in seen]),
        repeats=max(part.repeats for part in seen),
        oldest_camera=oldest,
        training_uv_px=None
        if all(part.training_uv_px is None for part in seen)
        else np.concatenate([part.policy_uv_px for part in seen]),
    )


def _unseen(points: KeypointSet) -> KeypointObservation:
    count = len(points)
    return KeypointObservation(
        0,
        points.ids,
        np.full((count, 2), np.nan, np.float32),
        np.zeros(count, np.bool_),
        np.zeros(count, np.float32),
        TrackerState.UNINITIALISED,
    )
