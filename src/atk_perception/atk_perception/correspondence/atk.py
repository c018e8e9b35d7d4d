"""Matching by the learned descriptor: the tracker's first frame, checked by going back, with local maps on top."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.learned.backbone import Backbone, FeatureMap, load_backbone
from atk_perception.learned.network import CELL_PX, begin, describe_points
from atk_perception.local_affine import Float, local_warps

# A match whose scene descriptor leads back to somewhere else on the template is kept, but not believed.
RETURN_WITHIN_PX = 12.0
NOT_MUTUAL = 0.3


@dataclass(frozen=True, eq=False)
class _Reference:
    """What is computed once for a template: its map, the points' descriptors, and a grid of its cells."""

    template: Template
    map: FeatureMap
    uv_px: Tensor
    descriptors: Tensor
    grid_px: Tensor
    grid_descriptors: Tensor


class AtkMatcher:
    """The learned `Matcher`."""

    def __init__(self, backbone: Backbone | None = None, iterations: int = 3) -> None:
        """`backbone`: the packaged one if not given; `iterations`: refinements, as in training."""
        self._backbone = backbone or load_backbone()
        self._iterations = iterations
        # The same template is matched to every scene of a task.
        self._reference: _Reference | None = None

    @torch.inference_mode()
    def match(self, template: Template, scene_rgb: NDArray[np.uint8]) -> Matches:
        """See `Matcher.match`."""
        reference, scene = self._prepare(template), self._backbone(scene_rgb)
        network = self._backbone.network
        estimate = network.estimate(scene.features, begin(reference.descriptors), self._iterations)
        uv_px = estimate.uv_px[-1]
        confidence = torch.sigmoid(estimate.visible_logit[-1]) * torch.sigmoid(estimate.certain_logit[-1])

        width = reference.map.features.shape[3]
        back = network.similarity(reference.map.features, describe_points(scene.features, uv_px)).argmax(
            dim=2
        )
        returned_px = CELL_PX * torch.stack([back % width, back // width], dim=2)
        mutual = (returned_px - reference.uv_px).norm(dim=2) < RETURN_WITHIN_PX
        confidence = torch.where(mutual, confidence, NOT_MUTUAL * confidence)

        return Matches(
            scene.to_image(uv_px),
            confidence[0].numpy().astype(np.float32),
            self._warps(reference, scene, uv_px),
        )

    def _prepare(self, template: Template) -> _Reference:
        if self._reference is None or self._reference.template is not template:
            on_template = self._backbone(template.image_rgb)
            uv_px = on_template.to_network(template.uv_px)
            height, width = on_template.features.shape[2:]
            v, u = torch.meshgrid(torch.arange(0, height, 2), torch.arange(0, width, 2), indexing="ij")
            grid_px = CELL_PX * torch.stack([u.flatten(), v.flatten()], dim=1)[None].float()
            self._reference = _Reference(
                template,
                on_template,
                uv_px,
                describe_points(on_template.features, uv_px),
                grid_px,
                describe_points(on_template.features, grid_px),
            )
        return self._reference

    def _warps(self, reference: _Reference, scene: FeatureMap, uv_px: Tensor) -> Float:
        """(N, 2, 2) local maps, from where the cells around each point are found in the scene."""
        best = (
            self._backbone.network.similarity(scene.features, reference.grid_descriptors)
            .argmax(dim=2)[0]
            .numpy()
        )
        width = scene.features.shape[3]
        source = reference.grid_px[0].numpy()
        target = (CELL_PX * np.stack([best % width, best // width], axis=1)).astype(np.float32)
        points, found = reference.uv_px[0].numpy(), uv_px[0].numpy()
        warps = local_warps(points, found, source, target, cell_px=CELL_PX)
        return warps * np.float32(reference.map.scale / scene.scale)
