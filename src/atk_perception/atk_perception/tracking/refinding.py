"""Points that come out of hiding elsewhere: found again without a pause, a window of the image at a time.

A tracker looks for a hidden point around the place where its neighbours carry it. What turned or was carried away while a hand
hid it is beyond that. To match the whole image takes as long as several frames, so it is done piecemeal: in one frame out of a few,
a window around one such point. The reference is the image that the tracker began with, of the same scene and light, so that
classical features do, whatever tracker it is and whatever matcher found the points at first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.correspondence.sift import SiftMatcher
from atk_perception.patches import LEVELS, Float, grey_image, smooth_pyramid
from atk_perception.tracking.protocol import Tracker, Tracks


@dataclass(frozen=True)
class RefindingParameters:
    """When and where to look.

    Attributes:
        relied_on: a match of at least this confidence is where the point is looked at, to know it again.
        after_frames: a point unseen for so long is not just behind a fingertip, and its tracker has looked around for it.
        every_frames: one window in so many frames.
        window_px: its side; what an object of 60 px can have moved to either side while it was hidden.
        around_px: how far around the points the first image is known; what is near them moves as they do.
        min_confidence, min_ncc: of a match that is believed. What is around a point may have stayed where it was though the point
            is gone; so it must look like itself too, which in the same light is not asking much.
    """

    relied_on: float = 0.5
    after_frames: int = 5
    every_frames: int = 4
    window_px: int = 192
    around_px: int = 48
    min_confidence: float = 0.7
    min_ncc: float = 0.8


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of an image, and (2,) where its upper left corner was."""

    image_rgb: NDArray[np.uint8]
    corner_px: Float

    @staticmethod
    def around(frame_rgb: NDArray[np.uint8], uv_px: Float, margin_px: int) -> _Part:
        """What holds points (N, 2), with a margin; all of the image where there are none."""
        height, width = frame_rgb.shape[:2]
        if len(uv_px) == 0:
            return _Part(frame_rgb, np.zeros(2, np.float32))
        left, top = np.clip(np.floor(uv_px.min(axis=0)) - margin_px, 0, [width - 1, height - 1]).astype(int)
        right, bottom = np.clip(np.ceil(uv_px.max(axis=0)) + margin_px, 1, [width, height]).astype(int)
        return _Part._cut(frame_rgb, left, top, right, bottom)

    @staticmethod
    def window(frame_rgb: NDArray[np.uint8], centre_px: Float, side_px: int) -> _Part:
        """A square around a place (2,), as near to it as it fits into the image."""
        height, width = frame_rgb.shape[:2]
        left, top = (
            int(np.clip(round(float(at)) - side_px // 2, 0, max(0, size - side_px)))
            for at, size in zip(centre_px, (width, height), strict=True)
        )
        return _Part._cut(frame_rgb, left, top, left + side_px, top + side_px)

    @staticmethod
    def _cut(frame_rgb: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> _Part:
        part = np.ascontiguousarray(frame_rgb[top:bottom, left:right])
        return _Part(part, np.array([left, top], np.float32))


@dataclass(frozen=True, eq=False)
class RefindingState:
    """The tracker's own state, and of each of its N points what it takes to know it again.

    Attributes:
        tracking: the tracker's.
        template: the points on the template.
        pictures: of the images that points began in; (N,) picture: which of them each did.
        first: where each was there.
        unseen_frames: (N,) for how long it has been out of sight.
        pause: frames until the next look. turn: the point that has its turn then.
    """

    tracking: Any
    template: Template
    pictures: tuple[_Part, ...]
    picture: NDArray[np.int64]
    first: Matches
    unseen_frames: NDArray[np.int64]
    pause: int = 0
    turn: int = 0


class Refinding:
    """Any `Tracker`, and its points looked for where it does not."""

    def __init__(self, tracker: Tracker[Any], parameters: RefindingParameters | None = None) -> None:
        self.parameters = parameters or RefindingParameters()
        self._tracker, self._matcher = tracker, SiftMatcher()

    def start(self, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches) -> RefindingState:
        """See `Tracker.start`."""
        picture = self._picture(frame_rgb, matches)
        self._matcher.prepare(Template(picture.image_rgb, matches.uv_px[:0]))  # now, while nothing moves yet
        none = np.zeros(len(template), np.int64)
        tracking = self._tracker.start(template, frame_rgb, matches)
        return RefindingState(tracking, template, (picture,), none, matches, none)

    def step(self, state: RefindingState, frame_rgb: NDArray[np.uint8]) -> tuple[RefindingState, Tracks]:
        """See `Tracker.step`."""
        parameters = self.parameters
        tracking, tracks = self._tracker.step(state.tracking, frame_rgb)
        unseen = np.where(tracks.visible, 0, state.unseen_frames + 1)
        state = replace(state, tracking=tracking, unseen_frames=unseen, pause=max(0, state.pause - 1))
        missing = np.flatnonzero(self._relied_on(state.first) & (unseen >= parameters.after_frames))
        if len(missing) == 0 or state.pause > 0:
            return state, tracks
        chosen = int(missing[np.argmin((missing - state.turn) % len(unseen))])
        state = replace(state, pause=parameters.every_frames, turn=chosen + 1)
        index, found = self._look(state, frame_rgb, tracks.uv_px, missing, chosen)
        return (state, tracks) if len(index) == 0 else self._go_on(state, frame_rgb, tracks, index, found)

    def _relied_on(self, matches: Matches) -> NDArray[np.bool_]:
        return np.asarray(matches.confidence >= self.parameters.relied_on, np.bool_)

    def _picture(self, frame_rgb: NDArray[np.uint8], matches: Matches) -> _Part:
        """What points are known again by."""
        return _Part.around(frame_rgb, matches.uv_px[self._relied_on(matches)], self.parameters.around_px)

    def _look(
        self,
        state: RefindingState,
        frame_rgb: NDArray[np.uint8],
        uv_px: Float,
        missing: NDArray[np.int_],
        chosen: int,
    ) -> tuple[NDArray[np.int_], Matches]:
        """Those of the missing points around the chosen one that are seen there, (K,) indices, and where."""
        side_px = self.parameters.window_px
        window = _Part.window(frame_rgb, uv_px[chosen], side_px)
        inside = (uv_px[missing] >= window.corner_px) & (uv_px[missing] < window.corner_px + side_px)
        here = inside.all(axis=1) & (state.picture[missing] == state.picture[chosen])
        index = missing[here | (missing == chosen)]

        picture = state.pictures[state.picture[chosen]]
        reference = Template(picture.image_rgb, state.first.uv_px[index] - picture.corner_px)
        matches = self._matcher.match(reference, window.image_rgb)
        looks = self._matcher.prepare(reference).patches.aligned(
            smooth_pyramid(grey_image(window.image_rgb), LEVELS),
            np.arange(len(index)),
            matches.uv_px,
            matches.warp,
        )
        good = (matches.confidence >= self.parameters.min_confidence) & (looks.ncc >= self.parameters.min_ncc)
        index = index[good]
        # From the template to the first image, and from there to this one.
        warp = matches.warp[good] @ state.first.warp[index]
        return index, Matches(matches.uv_px[good] + window.corner_px, matches.confidence[good], warp)

    def _go_on(
        self,
        state: RefindingState,
        frame_rgb: NDArray[np.uint8],
        tracks: Tracks,
        index: NDArray[np.int_],
        found: Matches,
    ) -> tuple[RefindingState, Tracks]:
        """The tracker goes on from where points `index` were found."""
        rest = np.setdiff1d(np.arange(len(tracks.visible)), index)
        template = Template(state.template.image_rgb, state.template.uv_px[index])
        tracking = self._tracker.extend(
            self._tracker.select(state.tracking, rest), template, frame_rgb, found
        )
        tracking = self._tracker.select(tracking, np.argsort(np.concatenate([rest, index])))
        uv_px, visible, confidence = tracks.uv_px.copy(), tracks.visible.copy(), tracks.confidence.copy()
        uv_px[index], visible[index], confidence[index] = found.uv_px, True, found.confidence
        return replace(state, tracking=tracking), Tracks(uv_px, visible, confidence)

    def select(self, state: RefindingState, keep: NDArray[np.int_]) -> RefindingState:
        """See `Tracker.select`."""
        keep = np.asarray(keep, np.int_)
        first = state.first
        return replace(
            state,
            tracking=self._tracker.select(state.tracking, keep),
            template=Template(state.template.image_rgb, state.template.uv_px[keep]),
            picture=state.picture[keep],
            first=Matches(first.uv_px[keep], first.confidence[keep], first.warp[keep]),
            unseen_frames=state.unseen_frames[keep],
            turn=0,
        )

    def extend(
        self, state: RefindingState, template: Template, frame_rgb: NDArray[np.uint8], matches: Matches
    ) -> RefindingState:
        """See `Tracker.extend`; the new points are known again by this frame."""
        picture = self._picture(frame_rgb, matches)
        new = np.full(len(template), len(state.pictures), np.int64)
        first, old_uv_px = state.first, state.template.uv_px
        return replace(
            state,
            tracking=self._tracker.extend(state.tracking, template, frame_rgb, matches),
            template=Template(template.image_rgb, np.concatenate([old_uv_px, template.uv_px])),
            pictures=(*state.pictures, picture),
            picture=np.concatenate([state.picture, new]),
            first=Matches(
                np.concatenate([first.uv_px, matches.uv_px]),
                np.concatenate([first.confidence, matches.confidence]),
                np.concatenate([first.warp, matches.warp]),
            ),
            unseen_frames=np.concatenate([state.unseen_frames, np.zeros(len(template), np.int64)]),
        )
