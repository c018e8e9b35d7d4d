"""Which points of a set move as one, learned while they are watched, and what that says of each of them.

Keypoints sit on several things that move on their own, and nobody says which on which. Two points that keep to each other's
affine map from the template are on one thing; this *co-motion* is a matrix over all pairs, learned online: an object that is
lifted leaves the table's points behind and keeps its own. It carries points that are hidden, and tells those that slid to a
look-alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atk_perception.local_affine import Float, fit_local_affine, squared_misfit


@dataclass(frozen=True)
class CoMotionParameters:
    """What can be tuned, with the reason for each value.

    Attributes:
        neighbourhood_px: distance on the template at which a neighbour's say has fallen to 0.6; about an object's radius.
        agreement_px: a point farther from where its neighbourhood puts it has slid to a look-alike.
        rate: how fast a pair that parts is told apart; it is forgiven ten times slower.
    """

    neighbourhood_px: float = 25.0
    agreement_px: float = 5.0
    rate: float = 0.3


@dataclass(frozen=True, eq=False)
class Placed:
    """Where its neighbours put each of M points.

    Attributes:
        uv_px: (M, 2). warp: (M, 2, 2) template -> frame. support: (M,) sum of the neighbours' weights.
    """

    uv_px: Float
    warp: Float
    support: Float


@dataclass(frozen=True, eq=False)
class CoMotion:
    """The memory of M points.

    Attributes:
        template_px: (M, 2) points on the template.
        between_px: (M, M) distances there.
        near: (M, M) spatial weight of neighbours there, 0 on the diagonal.
        together: (M, M) in [0, 1]: how consistently two points have moved as one.
    """

    parameters: CoMotionParameters
    template_px: Float
    between_px: Float
    near: Float
    together: Float

    @staticmethod
    def begin(
        parameters: CoMotionParameters,
        template_px: Float,
        uv_px: Float,
        warp: Float,
        visible: NDArray[np.bool_],
    ) -> CoMotion:
        """Of points that are seen at (M, 2) `uv_px`, under (M, 2, 2) `warp`, for the first time.

        A pair that has not been seen together is taken to move together until it is seen to part.
        """
        count = len(template_px)
        between_px = np.linalg.norm(template_px[:, None] - template_px[None], axis=2).astype(np.float32)
        near = np.exp(-0.5 * (between_px / parameters.neighbourhood_px) ** 2).astype(np.float32)
        np.fill_diagonal(near, 0.0)
        unknown = CoMotion(parameters, template_px, between_px, near, np.ones((count, count), np.float32))
        both = visible[:, None] & visible[None]
        return replace(unknown, together=np.where(both, unknown._agreement(uv_px, warp), np.float32(1.0)))

    def take(self, index: NDArray[np.int_]) -> CoMotion:
        """Of these points alone."""
        pairs = np.ix_(index, index)
        return CoMotion(
            self.parameters,
            self.template_px[index],
            self.between_px[pairs],
            self.near[pairs],
            self.together[pairs],
        )

    def join(self, other: CoMotion, uv_px: Float, warp: Float, visible: NDArray[np.bool_]) -> CoMotion:
        """These points, then those of `other`, all where they are now; only that tells what old and new ones have in common."""
        old = len(self.template_px)
        template_px = np.concatenate([self.template_px, other.template_px])
        joined = CoMotion.begin(self.parameters, template_px, uv_px, warp, visible)
        together = joined.together.copy()
        together[:old, :old], together[old:, old:] = self.together, other.together
        return replace(joined, together=together)

    def neighbourhood(self, uv_px: Float, warp: Float, visible: NDArray[np.bool_]) -> Placed:
        """Where its visible neighbours put each point.

        Squared co-motion, so that half-hearted companions have little say; one reweighting by residual removes the ones that
        are wrong in this very frame.
        """
        weight = self.near * self.together**2 * visible[None, :]
        placed, linear = fit_local_affine(self.template_px, self.template_px, uv_px, weight + 1e-9, warp)
        squared = squared_misfit(self.template_px, placed, linear, self.template_px, uv_px)
        weight = weight / (1.0 + squared / self.parameters.agreement_px**2) ** 2
        placed, linear = fit_local_affine(self.template_px, self.template_px, uv_px, weight + 1e-9, warp)
        return Placed(placed, linear, np.asarray(weight.sum(axis=1), np.float32))

    def learn(self, uv_px: Float, warp: Float, visible: NDArray[np.bool_]) -> CoMotion:
        """After a frame."""
        both = visible[:, None] & visible[None]
        change = self._agreement(uv_px, warp) - self.together
        rate = np.where(change < 0.0, self.parameters.rate, 0.1 * self.parameters.rate)
        together = self.together + np.where(both, rate * change, 0.0)
        return replace(self, together=np.asarray(together, np.float32))

    def _agreement(self, uv_px: Float, warp: Float) -> Float:
        """(M, M) in [0, 1]: whether each point lies where each other point's own warp puts it, both ways."""
        squared = squared_misfit(self.template_px, uv_px, warp, self.template_px, uv_px)
        tolerance = self.parameters.agreement_px * (0.5 + self.between_px / 40.0)
        one_way = np.exp(-0.5 * squared / tolerance**2)
        return np.asarray(np.sqrt(one_way * one_way.T), np.float32)
