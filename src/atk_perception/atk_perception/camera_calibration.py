"""A camera's intrinsics and where it stands, as a file: what `calibrate_camera` writes.

A robot description names it (`camera.calibration`) and a run folder keeps the one of its demonstrations, so that both
ends of a reprojection (viewpoint.py) have one form.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atk_perception.points_in_camera import intrinsics
from atk_perception.rigid_transforms import FloatArray, pose, quaternion_xyzw
from atk_perception.viewpoint import DISTORTION_MODELS, PlacedCamera

FORMAT_VERSION = 1

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Numbers = tuple[FiniteFloat, ...]


class CameraCalibrationError(ValueError):
    """A calibration that cannot be used: which file or entry, what it holds, what to do."""


class CameraCalibration(BaseModel):
    """Intrinsics as in sensor_msgs/CameraInfo, and the pose of the optical frame (REP 103) in a frame of the robot.

    Attributes:
        base_frame: the frame that the pose is in, which must not move: the robot's base, or a board that is fixed to it.
        image_width, image_height: of the images that the intrinsics are for [px].
        camera_matrix: K, row by row [px].
        distortion_model, distortion: see sensor_msgs/distortion_models; empty for none.
        translation_m, rotation_xyzw: T_base_camera.
        estimated: how, for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    base_frame: Annotated[str, Field(min_length=1)]
    image_width: Annotated[int, Field(gt=0)]
    image_height: Annotated[int, Field(gt=0)]
    camera_matrix: Annotated[Numbers, Field(min_length=9, max_length=9)]
    distortion_model: Literal["plumb_bob", "rational_polynomial", "equidistant"] = "plumb_bob"
    distortion: Numbers = ()
    translation_m: Annotated[Numbers, Field(min_length=3, max_length=3)]
    rotation_xyzw: Annotated[Numbers, Field(min_length=4, max_length=4)]
    estimated: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        K = np.reshape(self.camera_matrix, (3, 3))
        if K[0, 0] <= 0.0 or K[1, 1] <= 0.0 or K[0, 1] or K[1, 0] or tuple(K[2]) != (0.0, 0.0, 1.0):
            raise ValueError(
                f"camera_matrix is {list(self.camera_matrix)}; expected fx 0 cx, 0 fy cy, 0 0 1 with fx and fy above 0, "
                "as k of a calibrated camera_info"
            )
        counts = DISTORTION_MODELS[self.distortion_model]
        if len(self.distortion) not in (0, *counts):
            raise ValueError(
                f"{self.distortion_model} has {' or '.join(map(str, counts))} coefficients, got {len(self.distortion)}"
            )
        if abs(float(np.linalg.norm(self.rotation_xyzw)) - 1.0) > 1e-3:
            raise ValueError(
                f"rotation_xyzw {list(self.rotation_xyzw)} is no unit quaternion (x, y, z, w); its norm is "
                f"{np.linalg.norm(self.rotation_xyzw):.4f}"
            )
        return self

    @property
    def T_base_camera(self) -> FloatArray:
        """(4, 4) pose of the optical frame in `base_frame`."""
        return pose(self.translation_m, self.rotation_xyzw)

    @property
    def camera(self) -> PlacedCamera:
        """The same for computing with."""
        return PlacedCamera(
            self.image_width,
            self.image_height,
            np.reshape(self.camera_matrix, (3, 3)).astype(np.float64),
            self.T_base_camera,
            np.array(self.distortion, np.float64),
            self.distortion_model,
        )

    @classmethod
    def of(
        cls,
        camera_info: Any,
        T_base_camera: FloatArray,
        base_frame: str,
        *,
        rectified: bool = False,
        estimated: dict[str, Any] | None = None,
    ) -> Self:
        """From a sensor_msgs/CameraInfo (live or of a bag) and a pose.

        Args:
            rectified: the images are rectified (image_proc's image_rect): the projection matrix holds, without distortion.

        Raises:
            CalibrationError: camera_info is uncalibrated.
            CameraCalibrationError: its distortion model is unknown, or a number is not finite.
        """
        K = intrinsics(camera_info)
        distortion = [float(x) for x in camera_info.d]
        if rectified:
            K, distortion = np.reshape(np.asarray(camera_info.p, np.float64), (3, 4))[:, :3], []
        content = {
            "base_frame": base_frame,
            "image_width": int(camera_info.width),
            "image_height": int(camera_info.height),
            "camera_matrix": K.ravel().tolist(),
            "distortion_model": camera_info.distortion_model or "plumb_bob",
            "distortion": distortion if any(distortion) else [],
            "translation_m": T_base_camera[:3, 3].tolist(),
            "rotation_xyzw": quaternion_xyzw(T_base_camera).tolist(),
            "estimated": estimated or {},
        }
        if rectified or not any(distortion):  # whatever the model is called, it says nothing
            content["distortion_model"] = "plumb_bob"
        return cls._validated(content, "camera_info and pose")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file that `save` wrote, or by hand.

        Raises:
            CameraCalibrationError: it is missing, no YAML, of another version, or an entry is wrong.
        """
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text())
        except OSError as error:
            raise CameraCalibrationError(
                f"camera calibration {path} cannot be read: {error.strerror}; write one with "
                "'ros2 run atk_perception calibrate_camera'"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise CameraCalibrationError(
                f"camera calibration {path} is not readable YAML: {error}"
            ) from error
        if not isinstance(content, dict) or "format_version" not in content:
            raise CameraCalibrationError(
                f"{path} is no camera calibration: it has no entry 'format_version'; write one with "
                "'ros2 run atk_perception calibrate_camera' (a camera_info YAML does not say where the camera stands)"
            )
        if content["format_version"] != FORMAT_VERSION:
            raise CameraCalibrationError(
                f"camera calibration {path} has format_version {content['format_version']!r}; this release reads "
                f"{FORMAT_VERSION}. Calibrate again, or use the release that wrote it"
            )
        return cls._validated(content, str(path))

    @classmethod
    def _validated(cls, content: dict[str, Any], source: str) -> Self:
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()
            )
            raise CameraCalibrationError(f"camera calibration {source}: {problems}") from error

    def dump(self) -> str:
        """As YAML."""
        return yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110
        )

    def save(self, path: Path | str) -> None:
        """Write whole or not at all: a kill leaves no half file of that name."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_text(self.dump())
        os.replace(partial, path)
