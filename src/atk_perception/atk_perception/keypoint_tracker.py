"""Keypoints in every image of a stream: transfer once, then track, and say honestly when neither works.

The same object serves the offline selection, the offline evaluation and the live node.

    UNINITIALISED -> TRACKING <-> LOST (transfer is tried again)
                  -> TRANSFER_FAILED (tried again on later images)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matcher
from atk_perception.image_codec import DepthImage
from atk_perception.keypoint_set import KeypointSet
from atk_perception.tracking.protocol import Tracker
from atk_perception.tracking.refinding import Refinding, RefindingParameters
from atk_perception.transfer import Transfer, TransferParameters, transfer
from atk_perception.viewpoint import Viewpoint


class TrackerState(IntEnum):
    """The values of atk_interfaces/KeypointArray."""

    UNINITIALISED = 0
    TRACKING = 1
    LOST = 2
    TRANSFER_FAILED = 3


@dataclass(frozen=True)
class KeypointTrackerParameters:
    """Thresholds of the state machine.

    Attributes:
        transfer: when a transfer is believed.
        lost_visible_fraction: with a smaller share of the points found at transfer visible, the set counts as lost.
        lost_after_frames: for so many frames in a row: a hand hides what it works on for a second or two, and an arm that
            held for that would hide it for ever.
        blind_after_frames: with no point visible it counts as lost after so many: what carries hidden points along is
            gone too, and the arm holds anyway.
        retry_every_frames: while lost or failed, transfer is tried on every so manieth frame: it takes as long as
            several frames, and a scene that just failed will fail on the next frame too.
        refinding: of points that stay hidden while others are seen; None leaves them to the tracker.
        clock_jump_s: an image this much older than the last one starts a new episode. Between clock skew of
            network time (under 0.1 s) and resets, which jump by seconds.
    """

    transfer: TransferParameters = field(default_factory=TransferParameters)
    lost_visible_fraction: float = 0.15
    lost_after_frames: int = 40
    blind_after_frames: int = 10
    retry_every_frames: int = 5
    refinding: RefindingParameters | None = field(default_factory=RefindingParameters)
    clock_jump_s: float = 0.5


@dataclass(frozen=True, eq=False)
class KeypointObservation:
    """The keypoints in one image.

    Attributes:
        stamp_ns: of the image.
        ids: (N,) int64, in the order of the keypoint set.
        uv_px: (N, 2) float32 in pixels of the keypoint set's image size; the last estimate where not visible.
        visible: (N,) bool; with a `Viewpoint`, those alone of which it knows where the training camera would see them.
        confidence: (N,) float32 in [0, 1].
        tracker_state: see `TrackerState`.
        reason: why the tracker is in that state, for people.
        repeats: images in a row before this one with the very same pixels. No camera's noise does that; a driver
            that hangs and stamps its last picture anew does.
        oldest_camera: where several cameras were joined, the one with the oldest image, whose stamp this is; else ''.
        training_uv_px: (N, 2) float32, `uv_px` as the training camera would see them; None where no `Viewpoint` is used.
            Beside `uv_px`, not in its place: people look at the live image, the policy at the training camera's.
    """

    stamp_ns: int
    ids: NDArray[np.int64]
    uv_px: NDArray[np.float32]
    visible: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    tracker_state: TrackerState
    reason: str = ""
    repeats: int = 0
    oldest_camera: str = ""
    training_uv_px: NDArray[np.float32] | None = None

    @property
    def policy_uv_px(self) -> NDArray[np.float32]:
        """(N, 2) what a policy takes."""
        return self.uv_px if self.training_uv_px is None else self.training_uv_px


class KeypointTracker:
    """A keypoint set followed through one image stream.

    Args:
        viewpoint: for a camera that stands elsewhere than the training camera. It comes last: matching and tracking work
            in the live image, and everybody who tracks (bags, nodes, replay) gets what the policy takes from here.
    """

    def __init__(
        self,
        keypoint_set: KeypointSet,
        matcher: Matcher,
        tracker: Tracker[Any],
        parameters: KeypointTrackerParameters | None = None,
        viewpoint: Viewpoint | None = None,
    ) -> None:
        self.keypoint_set = keypoint_set
        self.parameters = parameters or KeypointTrackerParameters()
        self.viewpoint = viewpoint
        self._matcher = matcher
        refinding = self.parameters.refinding
        self._tracker: Tracker[Any] = tracker if refinding is None else Refinding(tracker, refinding)
        self._template, rigid = keypoint_set.template, keypoint_set.rigid
        self._transferred = self._template if rigid is None else rigid.with_companions(self._template)
        self.reset()

    def reset(self) -> None:
        """Forget the scene; the next image is transferred into afresh."""
        self._state = TrackerState.UNINITIALISED
        self._reason = "no image yet"
        self._tracking: Any = None
        self._found_at_transfer = 0
        self._frames_unseen = self._frames_blind = 0
        self._frames_until_retry = 0
        self._last_stamp_ns: int | None = None
        self._last_image: NDArray[np.uint8] | None = None
        self._repeats = 0
        self._uv_px = self.keypoint_set.uv_px.copy()
        self._view_reason = ""
        if self.viewpoint is not None:
            self.viewpoint.reset()

    @property
    def state(self) -> TrackerState:
        """State after the last image."""
        return self._state

    @property
    def reason(self) -> str:
        """Why the tracker is in that state, for people."""
        return self._reason + self._view_reason

    def update(
        self, stamp_ns: int, frame_rgb: NDArray[np.uint8], depth_m: DepthImage | None = None
    ) -> KeypointObservation:
        """Keypoints in the next image, (H, W, 3) uint8 RGB.

        An image of another size and the same aspect ratio is rescaled to the template's. One of another aspect
        ratio is refused: TRANSFER_FAILED with the reason, and the track of earlier images is kept.

        Args:
            depth_m: (H', W') of the same instant, registered to the image, for a `Viewpoint` that needs it.
        """
        if (
            self._last_stamp_ns is not None
            and stamp_ns < self._last_stamp_ns - self.parameters.clock_jump_s * 1e9
        ):
            self.reset()
        self._last_stamp_ns = stamp_ns
        self._repeats = self._repeats + 1 if _same_picture(self._last_image, frame_rgb) else 0
        self._last_image = frame_rgb
        seen = replace(self._observe(stamp_ns, frame_rgb), repeats=self._repeats)
        return self._as_trained(seen, depth_m)

    def _observe(self, stamp_ns: int, frame_rgb: NDArray[np.uint8]) -> KeypointObservation:
        refusal = self._refusal(frame_rgb)
        if refusal:
            return self._unseen(stamp_ns, TrackerState.TRANSFER_FAILED, refusal)
        frame_rgb = self._to_template_size(frame_rgb)

        if self._tracking is not None:
            observation = self._track(stamp_ns, frame_rgb)
            if self._state is not TrackerState.LOST or self._frames_until_retry > 0:
                self._frames_until_retry -= 1
                return observation
        elif self._frames_until_retry > 0:
            self._frames_until_retry -= 1
            return self._unseen(stamp_ns, self._state, self._reason)
        return self._transfer(stamp_ns, frame_rgb)

    def refuse(self, stamp_ns: int, reason: str) -> KeypointObservation:
        """The answer to an image that cannot be used; what is known from earlier images is kept."""
        return self._as_trained(self._unseen(stamp_ns, TrackerState.TRANSFER_FAILED, reason), None)

    def _as_trained(self, seen: KeypointObservation, depth_m: DepthImage | None) -> KeypointObservation:
        """What was seen, with where the training camera would have seen it."""
        if self.viewpoint is None:
            return seen
        view = self.viewpoint.see(seen.uv_px, seen.visible, depth_m)
        self._view_reason = f"; {view.reason}" if view.reason else ""
        reason = seen.reason + self._view_reason
        return replace(seen, visible=view.visible, training_uv_px=view.uv_px, reason=reason)

    def _refusal(self, frame_rgb: NDArray[np.uint8]) -> str:
        keypoint_set = self.keypoint_set
        if frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or frame_rgb.dtype != np.uint8:
            return f"expected an (H, W, 3) uint8 RGB image, got {frame_rgb.shape} {frame_rgb.dtype}"
        height, width = frame_rgb.shape[:2]
        ratio = (width * keypoint_set.image_height) / (height * keypoint_set.image_width)
        # One pixel of rounding in either side is not another aspect ratio.
        if abs(ratio - 1.0) > 1.0 / min(width, height):
            return (
                f"the image is {width}x{height}, the template of keypoint set '{keypoint_set.name}' is "
                f"{keypoint_set.image_width}x{keypoint_set.image_height}: another aspect ratio, so pixels do not "
                "correspond. Set the camera to the template's format, or select keypoints with this camera"
            )
        return ""

    def _to_template_size(self, frame_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (self.keypoint_set.image_width, self.keypoint_set.image_height)
        if (frame_rgb.shape[1], frame_rgb.shape[0]) == size:
            return frame_rgb
        smaller = size[0] < frame_rgb.shape[1]
        return np.asarray(
            cv2.resize(frame_rgb, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR),
            np.uint8,
        )

    def _track(self, stamp_ns: int, frame_rgb: NDArray[np.uint8]) -> KeypointObservation:
        parameters = self.parameters
        self._tracking, tracks = self._tracker.step(self._tracking, frame_rgb)
        self._uv_px = tracks.uv_px
        seen = int(tracks.visible.sum())
        needed = max(1, int(np.ceil(parameters.lost_visible_fraction * self._found_at_transfer)))
        self._frames_unseen = 0 if seen >= needed else self._frames_unseen + 1
        self._frames_blind = 0 if seen else self._frames_blind + 1
        gone = (
            self._frames_unseen >= parameters.lost_after_frames
            or self._frames_blind >= parameters.blind_after_frames
        )
        if self._frames_unseen == 0:
            self._state = TrackerState.TRACKING
            self._reason = f"{seen} of {len(tracks.visible)} keypoints visible"
        elif gone:
            if self._state is not TrackerState.LOST:
                self._frames_until_retry = 0
            self._state = TrackerState.LOST
            self._reason = f"{seen} keypoints visible, {needed} needed, for {self._frames_unseen} images"
        return KeypointObservation(
            stamp_ns,
            self.keypoint_set.ids,
            tracks.uv_px,
            tracks.visible,
            tracks.confidence,
            self._state,
            self._reason,
        )

    def _transfer(self, stamp_ns: int, frame_rgb: NDArray[np.uint8]) -> KeypointObservation:
        self._frames_until_retry = self.parameters.retry_every_frames - 1
        parameters, rigid = self.parameters.transfer, self.keypoint_set.rigid
        outcome = transfer(self._matcher, self._transferred, frame_rgb, parameters, rigid)
        if not outcome.accepted:
            # A set that was tracked before stays lost: its last positions are still the best guess.
            failed = self._tracking is None
            self._state = TrackerState.TRANSFER_FAILED if failed else TrackerState.LOST
            self._reason = outcome.reason
            return self._unseen(stamp_ns, self._state, self._reason)
        return self._start(stamp_ns, frame_rgb, outcome)

    def _start(self, stamp_ns: int, frame_rgb: NDArray[np.uint8], outcome: Transfer) -> KeypointObservation:
        self._tracking = self._tracker.start(self._template, frame_rgb, outcome.matches)
        self._found_at_transfer = int(outcome.found.sum())
        self._frames_unseen = self._frames_blind = 0
        self._state = TrackerState.TRACKING
        self._reason = outcome.reason
        self._uv_px = outcome.matches.uv_px
        return KeypointObservation(
            stamp_ns,
            self.keypoint_set.ids,
            outcome.matches.uv_px,
            outcome.found,
            outcome.matches.confidence,
            self._state,
            self._reason,
        )

    def _unseen(self, stamp_ns: int, state: TrackerState, reason: str) -> KeypointObservation:
        count = len(self.keypoint_set)
        return KeypointObservation(
            stamp_ns,
            self.keypoint_set.ids,
            self._uv_px,
            np.zeros(count, np.bool_),
            np.zeros(count, np.float32),
            state,
            reason,
        )


def observation_of(message: Any, stamp_ns: int) -> KeypointObservation:
    """What a KeypointArray of that stamp says, live or of a bag; fields that were added later may be missing in an old one."""
    training_uv_px = np.asarray(getattr(message, "training_uv_px", ()), np.float32)
    return KeypointObservation(
        stamp_ns,
        np.asarray(message.ids, np.int64),
        np.asarray(message.uv_px, np.float32).reshape(-1, 2),
        np.asarray(message.visible, np.bool_),
        np.asarray(message.confidence, np.float32),
        TrackerState(message.tracker_state),
        repeats=getattr(message, "repeats", 0),
        training_uv_px=training_uv_px.reshape(-1, 2) if training_uv_px.size else None,
    )


def _same_picture(one: NDArray[np.uint8] | None, other: NDArray[np.uint8]) -> bool:
    """Whether two images are equal in every pixel; a sixteenth of the rows settles it where they are not."""
    return one is not None and np.array_equal(one[::16], other[::16]) and np.array_equal(one, other)
