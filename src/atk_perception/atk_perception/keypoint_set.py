"""The keypoint set: which points of the canonical template the task needs, as a folder of two readable files.

keypoints.yaml   ids and pixels on the template, camera name, image size, how the points were chosen
template.png     the canonical template `I_can` itself
calibration.yaml where its camera stood (camera_calibration.py), where that is known: for a camera that moves later
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atk_perception.camera_calibration import CameraCalibration, CameraCalibrationError
from atk_perception.correspondence.protocol import Template
from atk_perception.part_placement import RigidParts
from atk_perception.viewpoint import PlacedCamera

FORMAT_VERSION = 1
KEYPOINTS_FILE = "keypoints.yaml"
CALIBRATION_FILE = "calibration.yaml"


class KeypointSetError(ValueError):
    """A keypoint set that cannot be used: which file or field, what was found, what was expected."""


class _KeypointEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: Annotated[int, Field(ge=0, lt=2**32)]
    uv_px: tuple[float, float]
    part: Annotated[int, Field(ge=0)] | None = None


class _KeypointFile(BaseModel):
    """Schema of keypoints.yaml, format version 1."""

    model_config = ConfigDict(extra="forbid")
    format_version: int
    name: str
    camera_name: str
    image_width: Annotated[int, Field(gt=0)]
    image_height: Annotated[int, Field(gt=0)]
    template: str = "template.png"
    chosen: dict[str, Any] = {}
    keypoints: Annotated[list[_KeypointEntry], Field(min_length=1)]
    companions: dict[Annotated[int, Field(ge=0)], list[tuple[float, float]]] = {}  # by part

    @model_validator(mode="after")
    def _parts_of_all(self) -> _KeypointFile:
        known = {entry.part for entry in self.keypoints if entry.part is not None}
        if known and any(entry.part is None for entry in self.keypoints):
            raise ValueError(
                "some keypoints have a 'part' and others have none; give it to all of them or to none"
            )
        if unknown := set(self.companions) - known:
            raise ValueError(
                f"companions of part {min(unknown)}, which no keypoint is of; the parts are {sorted(known)}"
            )
        return self

    @property
    def rigid(self) -> RigidParts | None:
        """Where the entries tell of parts."""
        if self.keypoints[0].part is None:
            return None
        numbers = [part for part, points in self.companions.items() for _ in points]
        places = [uv for points in self.companions.values() for uv in points]
        return RigidParts(
            np.array([entry.part for entry in self.keypoints], np.int64),
            np.array(places, np.float32).reshape(-1, 2),
            np.array(numbers, np.int64),
        )


@dataclass(frozen=True, eq=False)
class KeypointSet:
    """Keypoints on the canonical template.

    Attributes:
        name: name of the set, repeated in every KeypointArray.
        ids: (N,) int64, unique, at least 0; the identity of a point outlives selection.
        uv_px: (N, 2) float32 pixels on the template: u right, v down, pixel centres at integers.
        camera_name: the camera that took the template.
        template_rgb: (H, W, 3) uint8.
        chosen: how the points were chosen (strategy, seed, selection settings): plain YAML values, for people.
        calibration: of the camera that took the template, when it did; None where it is not known.
        rigid: which points move in one piece, as the demonstrations showed; None where it is not known.

    Raises:
        KeypointSetError: shapes disagree, an id appears twice, or a point lies outside the template.
    """

    name: str
    ids: NDArray[np.int64]
    uv_px: NDArray[np.float32]
    camera_name: str
    template_rgb: NDArray[np.uint8]
    chosen: dict[str, Any] = field(default_factory=dict)
    calibration: CameraCalibration | None = None
    rigid: RigidParts | None = None

    def __post_init__(self) -> None:
        ids, uv_px, template_rgb = self.ids, self.uv_px, self.template_rgb
        if template_rgb.ndim != 3 or template_rgb.shape[2] != 3 or template_rgb.dtype != np.uint8:
            raise KeypointSetError(
                f"the template must be an (H, W, 3) uint8 RGB image, got {template_rgb.shape} {template_rgb.dtype}"
            )
        if ids.ndim != 1 or uv_px.shape != (len(ids), 2) or len(ids) == 0:
            raise KeypointSetError(
                f"keypoint set '{self.name}': ids must have shape (N,) and uv_px (N, 2) with N >= 1, "
                f"got {ids.shape} and {uv_px.shape}"
            )
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            repeated = values[counts > 1].tolist()
            raise KeypointSetError(f"keypoint set '{self.name}': ids appear more than once: {repeated}")
        size = (self.image_width, self.image_height)
        outside = _outside(uv_px, size)
        if outside.any():
            raise KeypointSetError(
                f"keypoint set '{self.name}': {outside.sum()} points lie outside the {size[0]}x{size[1]} template, "
                f"the first is id {ids[outside][0]} at {uv_px[outside][0].tolist()}"
            )
        if self.rigid is not None:
            self._check(self.rigid, size)

    def _check(self, rigid: RigidParts, size: tuple[int, int]) -> None:
        if rigid.of_points.shape != self.ids.shape or rigid.companions_px.shape != (
            len(rigid.of_companions),
            2,
        ):
            raise KeypointSetError(
                f"keypoint set '{self.name}': of_points must have shape ({len(self)},) and companions_px "
                f"({len(rigid.of_companions)}, 2), got {rigid.of_points.shape} and {rigid.companions_px.shape}"
            )
        outside = _outside(rigid.companions_px, size)
        if outside.any():
            raise KeypointSetError(
                f"keypoint set '{self.name}': {outside.sum()} companions lie outside the {size[0]}x{size[1]} template, "
                f"the first is at {rigid.companions_px[outside][0].tolist()}"
            )

    @classmethod
    def create(
        cls,
        name: str,
        uv_px: ArrayLike,
        template_rgb: NDArray[np.uint8],
        *,
        camera_name: str = "camera",
        ids: ArrayLike | None = None,
        chosen: dict[str, Any] | None = None,
        calibration: CameraCalibration | None = None,
        rigid: RigidParts | None = None,
    ) -> KeypointSet:
        """A set from anything array-like; ids default to 0..N-1."""
        points = np.asarray(uv_px, np.float32).reshape(-1, 2)
        identity = np.arange(len(points)) if ids is None else np.asarray(ids)
        return cls(
            name,
            identity.astype(np.int64),
            points,
            camera_name,
            np.asarray(template_rgb),
            dict(chosen or {}),
            calibration,
            rigid,
        )

    @property
    def image_width(self) -> int:
        """Width of the template [px]."""
        return int(self.template_rgb.shape[1])

    @property
    def image_height(self) -> int:
        """Height of the template [px]."""
        return int(self.template_rgb.shape[0])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def template(self) -> Template:
        """Image and points in the form that matchers take."""
        return Template(self.template_rgb, self.uv_px)

    @property
    def training_camera(self) -> PlacedCamera:
        """The camera that took the template, in pixels of the template.

        Raises:
            KeypointSetError: the set does not say where it stood.
        """
        if self.calibration is None:
            raise KeypointSetError(
                f"keypoint set '{self.name}' does not say where its camera '{self.camera_name}' stood: there is no "
                f"{CALIBRATION_FILE} beside its {KEYPOINTS_FILE}, which reprojection from another viewpoint needs. Put the "
                "one of the camera as it stood in the demonstrations there ('ros2 run atk_perception calibrate_camera'), or "
                "name it as camera.calibration in the robot description and select again"
            )
        return self.calibration.camera.scaled(self.image_width, self.image_height)

    def subset(self, ids: ArrayLike, *, chosen: dict[str, Any] | None = None) -> KeypointSet:
        """The points with these ids, in the order of this set.

        Raises:
            KeypointSetError: an id is not in the set.
        """
        wanted = np.asarray(ids, np.int64)
        unknown = np.setdiff1d(wanted, self.ids)
        if len(unknown):
            raise KeypointSetError(f"keypoint set '{self.name}' has no ids {unknown.tolist()}")
        keep = np.isin(self.ids, wanted)
        return replace(
            self,
            ids=self.ids[keep],
            uv_px=self.uv_px[keep],
            rigid=None if self.rigid is None else self.rigid.subset(keep),
            chosen=self.chosen if chosen is None else dict(chosen),
        )

    def save(self, folder: str | Path) -> None:
        """Write keypoints.yaml, template.png and, where it is known, calibration.yaml into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rigid = self.rigid
        parts = [None] * len(self) if rigid is None else rigid.of_points.tolist()
        content = _KeypointFile(
            format_version=FORMAT_VERSION,
            name=self.name,
            camera_name=self.camera_name,
            image_width=self.image_width,
            image_height=self.image_height,
            chosen=self.chosen,
            keypoints=[
                _KeypointEntry(id=int(i), uv_px=(float(u), float(v)), part=part)
                for i, (u, v), part in zip(self.ids, self.uv_px, parts, strict=True)
            ],
            companions={} if rigid is None else rigid.companions(),
        )
        template_path = folder / content.template
        if not cv2.imwrite(str(template_path), cv2.cvtColor(self.template_rgb, cv2.COLOR_RGB2BGR)):
            raise OSError(f"could not write {template_path}")
        text = yaml.safe_dump(
            content.model_dump(mode="json", exclude_none=True),
            sort_keys=False,
            default_flow_style=None,
            width=110,
        )
        (folder / KEYPOINTS_FILE).write_text(text)
        if self.calibration is not None:
            self.calibration.save(folder / CALIBRATION_FILE)
        else:  # one of an earlier selection is that of another template
            (folder / CALIBRATION_FILE).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | Path) -> KeypointSet:
        """Read a folder written by `save`, or by hand.

        Raises:
            KeypointSetError: a file is missing or unreadable, the format is of another version, a field is wrong,
                or template.png has another size than keypoints.yaml says.
        """
        path = Path(folder) / KEYPOINTS_FILE
        try:
            content = yaml.safe_load(path.read_text())
        except FileNotFoundError as error:
            raise KeypointSetError(
                f"{path} does not exist; expected a run folder or a keypoint set folder"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise KeypointSetError(f"{path} is not readable YAML: {error}") from error
        if not isinstance(content, dict) or "format_version" not in content:
            raise KeypointSetError(f"{path} is not a keypoint set: it has no field 'format_version'")
        if content["format_version"] != FORMAT_VERSION:
            raise KeypointSetError(
                f"{path} has format version {content['format_version']}; this release reads version {FORMAT_VERSION}. "
                "Use the release that wrote it, or run the selection again"
            )
        try:
            parsed = _KeypointFile.model_validate(content)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise KeypointSetError(f"{path}: {problems}") from error
        template_path = path.parent / parsed.template
        image_bgr = cv2.imread(str(template_path), cv2.IMREAD_COLOR)
        if image_bgr is None:
            raise KeypointSetError(f"{template_path} is missing or is not an image")
        if image_bgr.shape[:2] != (parsed.image_height, parsed.image_width):
            raise KeypointSetError(
                f"{template_path} is {image_bgr.shape[1]}x{image_bgr.shape[0]}, "
                f"but {KEYPOINTS_FILE} says {parsed.image_width}x{parsed.image_height}"
            )
        try:
            known = (path.parent / CALIBRATION_FILE).is_file()
            calibration = CameraCalibration.load(path.parent / CALIBRATION_FILE) if known else None
        except CameraCalibrationError as error:
            raise KeypointSetError(str(error)) from error
        return cls.create(
            parsed.name,
            [entry.uv_px for entry in parsed.keypoints],
            np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8),
            camera_name=parsed.camera_name,
            ids=[entry.id for entry in parsed.keypoints],
            chosen=parsed.chosen,
            calibration=calibration,
            rigid=parsed.rigid,
        )


def _outside(uv_px: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(N,) which points are not in an image of (width, height); NaN is not."""
    inside = (uv_px >= -0.5) & (uv_px <= np.array(size, np.float32) - 0.5)
    return np.asarray(~inside.all(axis=1), np.bool_)
