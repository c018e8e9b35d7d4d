"""A dense descriptor and a causal point tracker on it, small enough for two CPU cores.

A point is a descriptor, sampled where the template shows it, turned and scaled as the point is now (`template_bank`). To find it
in a frame:

1. `Encoder`: the frame becomes a map of 64-d unit descriptors, one per 4 x 4 px.
2. `PointNetwork.locate`: posterior over the map's cells. The likelihood is the similarity to the template's descriptor and to
   the latest appearance; the prior is where motion predicts the point, as sure as the last frame was, and uniform otherwise.
   With nothing known before, this is the transfer to a new scene; after an occlusion it is the re-finding. One operation.
3. Refinement: from the posterior's maximum, a recurrent unit reads similarities in windows of 7 x 7 cells at three scales, asks
   the other points how they moved (attention, the nearer the more), corrects the position, and says whether the point is
   visible and whether it is within 8 px (of 640x480) of the truth (after Teed and Deng, RAFT, ECCV 2020; heads as in Doersch
   et al., TAPIR, ICCV 2023; points that ask each other as in Karaev et al., CoTracker, ECCV 2024).

Positions are pixels of the network's input image, centres at integers; `CELL_PX` of them make a cell of the map. Arrays are
batched over clips: B clips of N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CELL_PX = 4
DESCRIPTOR = 64
# Windows reach 3 cells of the coarsest level, 48 px: farther errors are the posterior's business.
WINDOW_RADIUS = 3
LEVELS = 3
# "Within 8 px at 640x480", the meaning of a confidence in this package, at the network's 320x240.
CERTAIN_WITHIN_PX = 4.0
# A point counts as seen, and its appearance is taken over, from this probability on.
SEEN_PROBABILITY = 0.5
# A point unseen for longer is as lost as it can be: the network is told no more than this.
LONG_UNSEEN = 6.0
# Refinements per frame where nobody learns. Trained with three; the third moves points by little and costs a millisecond.
ITERATIONS = 2


class Residual(nn.Module):
    """Two convolutions and a shortcut; no normalisation, so that a frame is described as it is alone or in a batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        # Each block starts as the identity: without normalisation, depth would otherwise scale the signal.
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class Encoder(nn.Module):
    """Image to descriptors: strides 2 to 16 down, back up to 4, so that a plain cell knows which part of its object it is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, stride=2, padding=2)
        self.quarter = nn.Sequential(nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(), Residual(48))
        self.eighth = nn.Sequential(nn.Conv2d(48, 96, 3, stride=2, padding=1), nn.ReLU(), Residual(96))
        # Wide and deep where there are few cells: what surrounds a plain cell tells it from its neighbours.
        self.sixteenth = nn.Sequential(
            nn.Conv2d(96, 160, 3, stride=2, padding=1), nn.ReLU(), Residual(160), Residual(160)
        )
        self.from_quarter = nn.Conv2d(48, DESCRIPTOR, 1)
        self.from_eighth = nn.Conv2d(96, DESCRIPTOR, 1)
        self.from_sixteenth = nn.Conv2d(160, DESCRIPTOR, 1)
        self.merge = nn.Conv2d(DESCRIPTOR, DESCRIPTOR, 3, padding=1)
        self.describe = nn.Conv2d(DESCRIPTOR, DESCRIPTOR, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of 16 -> (B, 64, H/4, W/4), unit norm."""
        x = functional.relu(self.stem((2.0 * image - 1.0).to(self.stem.weight.dtype)))
        quarter = self.quarter(x)
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        y = self.from_eighth(eighth) + _grow(self.from_sixteenth(sixteenth), eighth)
        y = self.from_quarter(quarter) + _grow(functional.relu(self.merge(y)), quarter)
        return functional.normalize(self.describe(functional.relu(y)).float(), dim=1)


def _grow(small: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(small, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Neighbours(nn.Module):
    """Attention between the points of a set: what is hard to see of one, those that move with it may show.

    A point far away on the template, or in the frame, has less to say; how much less is learned for each head.
    """

    def __init__(self, hidden: int, facts: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.facts = nn.Linear(facts, hidden)
        self.ask = nn.Linear(hidden, 3 * hidden)
        self.answer = nn.Linear(hidden, hidden)
        # The set begins by not speaking: a network of single points is the start of training.
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)
        # Heads that look at 16 to 128 px, on the template and in the frame.
        self.log_reach = nn.Parameter(torch.log(torch.tensor([16.0, 32.0, 64.0, 128.0]).repeat(2, 1)))

    def forward(self, hidden: Tensor, facts: Tensor, template_px: Tensor, uv_px: Tensor) -> Tensor:
        """(B, N, H), facts (B, N, F), positions (B, N, 2) -> what the others add, (B, N, H)."""
        batch, count, width = hidden.shape
        x = self.norm(hidden) + self.facts(facts)
        query, key, value = (
            part.reshape(batch, count, self.heads, -1).transpose(1, 2) for part in self.ask(x).chunk(3, dim=2)
        )
        score = query @ key.transpose(2, 3) / (width / self.heads) ** 0.5
        for place_px, log_reach in ((template_px, self.log_reach[0]), (uv_px, self.log_reach[1])):
            apart_px = (place_px[:, :, None] - place_px[:, None]).square().sum(dim=3).add(1e-3).sqrt()
            score = score - apart_px[:, None] * torch.exp(-log_reach)[:, None, None]
        heard: Tensor = torch.softmax(score, dim=3) @ value
        added: Tensor = self.answer(heard.transpose(1, 2).reshape(batch, count, width))
        return added


@dataclass(frozen=True, eq=False)
class PointState:
    """All that is remembered between frames.

    Attributes:
        template: (B, N, 64) descriptors on the template, as it was turned and scaled to lie over the last frame.
        template_px: (B, N, 2) where that is on the template; never changed.
        latest: (B, N, 64) appearance where the point was last seen.
        uv_px: (B, N, 2) last estimate.
        velocity_px: (B, N, 2) per frame.
        visible: (B, N) probability in the last frame.
        certain: (B, N) probability that uv_px was within 8 px when the point was last seen; 0: it never was.
        unseen: (B, N) frames since the point was last seen.
    """

    template: Tensor
    template_px: Tensor
    latest: Tensor
    uv_px: Tensor
    velocity_px: Tensor
    visible: Tensor
    certain: Tensor
    unseen: Tensor


@dataclass(frozen=True, eq=False)
class Estimate:
    """What one frame says about the points; lists run over refinement steps.

    Attributes:
        log_posterior: (B, N, h*w) over the map's cells.
        start_px: (B, N, 2), the posterior's maximum.
        uv_px: list of (B, N, 2).
        visible_logit, certain_logit: lists of (B, N).
    """

    log_posterior: Tensor
    start_px: Tensor
    uv_px: list[Tensor]
    visible_logit: list[Tensor]
    certain_logit: list[Tensor]


def sample(features: Tensor, uv_px: Tensor) -> Tensor:
    """Bilinear samples of (B, C, h, w) at (B, N, 2) px -> (B, N, C); border cells repeat outside."""
    size = torch.tensor(
        [features.shape[3] - 1, features.shape[2] - 1], dtype=uv_px.dtype, device=uv_px.device
    )
    grid = 2.0 * uv_px / CELL_PX / size - 1.0
    picked = functional.grid_sample(features, grid[:, :, None], align_corners=True, padding_mode="border")
    return picked[..., 0].transpose(1, 2)


def describe_points(features: Tensor, uv_px: Tensor) -> Tensor:
    """(B, N, 64) unit descriptors of points in a map."""
    return functional.normalize(sample(features, uv_px), dim=2)


def begin(template: Tensor, template_px: Tensor, uv_px: Tensor | None = None) -> PointState:
    """State of points known by their descriptors (B, N, 64) and places (B, N, 2) on the template only, or also by where they are."""
    known = uv_px is not None
    place = uv_px if uv_px is not None else template.new_zeros((*template.shape[:2], 2))
    flat = template.new_zeros(template.shape[:2])
    full = flat + 1.0 if known else flat
    return PointState(template, template_px, template, place, torch.zeros_like(place), full, full, flat)


def channels_last(network: PointNetwork) -> PointNetwork:
    """The network with its convolutions laid out for the CPU's vector units: 2.4 times faster than the default."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave this one out
    return network


class PointNetwork(nn.Module):
    """Encoder, posterior and refinement; see the module's docstring."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = Encoder()
        window = (2 * WINDOW_RADIUS + 1) ** 2
        inputs = 2 * LEVELS * window + 2 * DESCRIPTOR + 7
        self.read = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.recur = nn.GRUCell(hidden, hidden)
        self.neighbours = Neighbours(hidden, 7)
        self.head = nn.Linear(hidden, 4)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        # Similarity of unit vectors to log likelihood. Learned; these are usual values of contrastive training.
        self.log_scale_template = nn.Parameter(torch.tensor(2.7))
        self.log_scale_latest = nn.Parameter(torch.tensor(1.7))
        # The motion prior: log width [px], its growth per unseen frame, and how belief in it follows certainty.
        self.log_width = nn.Parameter(torch.tensor(2.0))
        self.log_growth = nn.Parameter(torch.tensor(-1.0))
        self.belief = nn.Parameter(torch.tensor([2.0, 0.0, 0.2]))
        step = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1, dtype=torch.float32)
        v, u = torch.meshgrid(step, step, indexing="ij")
        self.register_buffer("window", torch.stack([u, v], dim=-1).reshape(-1, 2), persistent=False)
        self.window: Tensor

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 64, H/4, W/4)."""
        features: Tensor = self.encoder(image)
        return features

    def similarity(self, features: Tensor, descriptors: Tensor) -> Tensor:
        """Cosines (B, N, h*w) of (B, N, 64) descriptors with every cell."""
        return torch.bmm(descriptors, features.flatten(2))

    def predict(self, state: PointState) -> Tensor:
        """(B, N, 2) where motion takes the points; speed is forgotten while a point is unseen."""
        return state.uv_px + state.velocity_px * torch.pow(0.6, state.unseen)[..., None]

    def log_prior(self, state: PointState, shape: tuple[int, int]) -> Tensor:
        """(B, N, h*w) log probability of each cell before the frame is looked at."""
        height, width = shape
        u = CELL_PX * torch.arange(width, device=state.uv_px.device, dtype=torch.float32)
        v = CELL_PX * torch.arange(height, device=state.uv_px.device, dtype=torch.float32)
        expected = self.predict(state)
        spread = torch.exp(self.log_width) * (1.0 + torch.exp(self.log_growth) * state.unseen)
        belief = self.belief[0] * torch.logit(state.certain.clamp(0.01, 0.99)) + self.belief[1]
        belief = belief - functional.softplus(self.belief[2]) * state.unseen
        # A Gaussian on the grid is the product of one along u and one along v, so that no exponential is taken per cell.
        along_u = torch.exp(-0.5 * ((u - expected[..., :1]) / spread[..., None]) ** 2)
        along_v = torch.exp(-0.5 * ((v - expected[..., 1:]) / spread[..., None]) ** 2)
        near = torch.sigmoid(belief) * (CELL_PX / spread) ** 2 / (2.0 * math.pi)
        anywhere = torch.sigmoid(-belief) / (height * width)
        along_u = near[..., None] * along_u
        mixed = torch.log(along_v[..., :, None] * along_u[..., None, :] + anywhere[..., None, None]).flatten(
            2
        )
        # Certainty 0 means that there is no previous frame at all.
        return torch.where(state.certain[..., None] > 0.0, mixed, torch.zeros_like(mixed))

    def estimate(self, features: Tensor, state: PointState, iterations: int) -> Estimate:
        """Look for the points of `state` in a frame's map (B, 64, h, w)."""
        batch, _, height, width = features.shape
        count = state.template.shape[1]
        cosine_template = self.similarity(features, state.template)
        cosine_latest = self.similarity(features, state.latest)
        log_prior = self.log_prior(state, (height, width))
        logits = (
            torch.exp(self.log_scale_template) * cosine_template
            + torch.exp(self.log_scale_latest) * cosine_latest
        )
        log_posterior = functional.log_softmax(logits + log_prior, dim=2)
        peak, cell = log_posterior.detach().max(dim=2)
        start = CELL_PX * torch.stack([cell % width, cell // width], dim=2).float()

        levels = [torch.stack([cosine_template, cosine_latest], dim=2)]
        coarser = features
        for _ in range(LEVELS - 1):
            # Similarity is linear: of pooled features it is the pooled similarity, and cheaper.
            coarser = functional.avg_pool2d(coarser, 2)
            levels.append(
                torch.stack([self.similarity(coarser, of) for of in (state.template, state.latest)], dim=2)
            )
        levels = [
            level.reshape(batch * count, 2, height >> number, width >> number)
            for number, level in enumerate(levels)
        ]
        known = (state.certain > 0.0).float()
        moved = ((start - self.predict(state)) / 16.0).clamp(-2.0, 2.0) * known[..., None]
        facts = torch.stack(
            [0.25 * peak, state.visible, state.certain, 0.1 * state.unseen.clamp(max=LONG_UNSEEN), known],
            dim=2,
        )
        facts = torch.cat([facts, moved], dim=2)

        uv_px, hidden = start, features.new_zeros(batch * count, self.recur.hidden_size)
        result = Estimate(log_posterior, start, [], [], [])
        for _ in range(iterations):
            here = sample(features, uv_px)
            seen = torch.cat(
                [self._windows(levels, uv_px), here * state.template * 4.0, here * state.latest * 4.0, facts],
                dim=2,
            )
            hidden = self.recur(self.read(seen.flatten(0, 1)), hidden)
            went = torch.cat(
                [
                    ((uv_px - state.uv_px) / 16.0).clamp(-4.0, 4.0) * known[..., None],
                    (uv_px - state.template_px) / 64.0,
                    facts[..., :3],
                ],
                dim=2,
            )
            heard = self.neighbours(hidden.reshape(batch, count, -1), went, state.template_px, uv_px)
            hidden = hidden + heard.flatten(0, 1)
            change = self.head(hidden).reshape(batch, count, 4)
            corrected = uv_px + CELL_PX * change[..., :2]
            result.uv_px.append(corrected)
            result.visible_logit.append(change[..., 2])
            result.certain_logit.append(change[..., 3])
            uv_px = corrected.detach()
        return result

    def _windows(self, levels: list[Tensor], uv_px: Tensor) -> Tensor:
        """(B, N, 2 * LEVELS * 49) similarities around the points."""
        batch, count = uv_px.shape[:2]
        centre = uv_px.reshape(batch * count, 1, 1, 2) / CELL_PX
        pieces = []
        for level, cosines in enumerate(levels):
            size = torch.tensor(
                [cosines.shape[3] - 1, cosines.shape[2] - 1], dtype=centre.dtype, device=centre.device
            )
            # Average pooling puts cell i of level l at (i + 0.5) * 2^l - 0.5 of level 0.
            at = (centre + 0.5) / 2**level - 0.5 + self.window[None, None]
            pieces.append(
                functional.grid_sample(cosines, 2.0 * at / size - 1.0, align_corners=True).flatten(1)
            )
        return torch.cat(pieces, dim=1).reshape(batch, count, -1)

    def advance(self, features: Tensor, state: PointState, estimate: Estimate) -> PointState:
        """The state after a frame."""
        uv_px = estimate.uv_px[-1].detach()
        visible = torch.sigmoid(estimate.visible_logit[-1]).detach()
        certain = torch.sigmoid(estimate.certain_logit[-1]).detach()
        seen = visible * certain > SEEN_PROBABILITY
        appearance = functional.normalize(state.latest + describe_points(features, uv_px), dim=2)
        followed = seen & (state.certain > 0.0) & (state.unseen == 0)
        step = (uv_px - state.uv_px).clamp(-24.0, 24.0)
        velocity = torch.where(
            followed[..., None], 0.5 * state.velocity_px + 0.5 * step, 0.5 * state.velocity_px
        )
        # An unseen point is expected where it vanished, or moves on with its last speed, not where a guess puts it.
        place = torch.where((seen | (state.certain <= 0.0))[..., None], uv_px, self.predict(state))
        return PointState(
            state.template,
            state.template_px,
            torch.where(seen[..., None], appearance, state.latest),
            place,
            velocity,
            visible,
            torch.where(seen, certain, state.certain),
            torch.where(seen, torch.zeros_like(state.unseen), state.unseen + 1.0),
        )
