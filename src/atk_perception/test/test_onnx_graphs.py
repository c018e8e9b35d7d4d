"""Encoder and refinement as ONNX graphs say what torch says, and every way in which they cannot be used is explained."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.learned.backbone import Backbone
from atk_perception.learned.network import ITERATIONS, PointNetwork, Residual
from atk_perception.learned.onnx_graphs import OnnxGraphError, OnnxNetwork, export_graphs, random_state
from atk_perception.registry import make_tracker
from atk_perception.tracking.atk import AtkTracker


def network(seed: int) -> PointNetwork:
    """Random weights that do something everywhere: blocks begin as the identity, the head near nothing."""
    torch.manual_seed(seed)
    made = PointNetwork().eval().requires_grad_(False)
    for block in made.modules():
        if isinstance(block, Residual):
            torch.nn.init.normal_(block.second.weight, std=0.05)
    torch.nn.init.normal_(made.neighbours.answer.weight, std=0.1)
    torch.nn.init.normal_(made.head.weight, std=0.5)
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    folder, weights = tmp_path_factory.mktemp("graphs"), network(0)
    export_graphs(weights, folder)
    return weights, folder


@pytest.mark.parametrize(("height", "points"), [(240, 32), (192, 1), (240, 12)])
def test_graphs_say_what_torch_says_at_any_height_and_number_of_points(exported, height, points):
    weights, folder = exported
    graphs = OnnxNetwork(folder, weights)
    generator = torch.Generator().manual_seed(points)
    with torch.no_grad():
        image = torch.rand((1, 3, height, 320), generator=generator)
        features = weights.encode(image)
        torch.testing.assert_close(graphs.encode(image), features, atol=1e-5, rtol=1e-5)
        state = random_state(points, generator)
        mine, theirs = (
            weights.estimate(features, state, ITERATIONS),
            graphs.estimate(features, state, ITERATIONS),
        )
    assert (mine.uv_px[-1] - mine.start_px).abs().max() > 1.0, "the refinement moves them"
    torch.testing.assert_close(theirs.uv_px[-1], mine.uv_px[-1], atol=1e-2, rtol=0.0)
    for name in ("visible_logit", "certain_logit"):
        torch.testing.assert_close(getattr(theirs, name)[-1], getattr(mine, name)[-1], atol=1e-3, rtol=1e-3)


def test_the_tracker_tracks_the_same_on_the_graphs(exported):
    weights, folder = exported
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4, 240, 320, 3), dtype=np.uint8)
    uv_px = rng.uniform(40, 200, (6, 2)).astype(np.float32)
    identity = np.tile(np.eye(2, dtype=np.float32), (6, 1, 1))
    matches = Matches(uv_px, np.full(6, 0.9, np.float32), identity)
    tracks = []
    for backbone in (Backbone(weights), Backbone(weights, OnnxNetwork(folder, weights))):
        tracker = AtkTracker(backbone)
        state = tracker.start(Template(images[0], uv_px), images[0], matches)
        for image in images[1:]:
            state, seen = tracker.step(state, image)
        tracks.append(seen)
    np.testing.assert_allclose(tracks[0].uv_px, tracks[1].uv_px, atol=0.05)
    np.testing.assert_allclose(tracks[0].confidence, tracks[1].confidence, atol=1e-3)


def test_graphs_of_other_weights_and_another_number_of_refinements_are_refused(exported):
    weights, folder = exported
    with pytest.raises(OnnxGraphError, match=r"encoder\.onnx was made of other weights; write it with"):
        OnnxNetwork(folder, network(1))
    state = random_state(4, torch.Generator())
    with pytest.raises(OnnxGraphError, match="refines 2 times, asked for are 5"):
        OnnxNetwork(folder, weights).estimate(torch.zeros(1, 64, 60, 80), state, 5)


def test_missing_and_damaged_graphs_and_no_onnxruntime_say_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    with pytest.raises(OnnxGraphError, match=r"encoder\.onnx does not exist; write it with 'python -m"):
        OnnxNetwork(tmp_path, network(0))
    (tmp_path / "encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(OnnxGraphError, match="no graph that onnxruntime can run"):
        OnnxNetwork(tmp_path, network(0))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what Python takes for 'cannot be imported'
    with pytest.raises(OnnxGraphError, match=r"pip install -r requirements/onnx\.txt, or use inference_bac"):
        OnnxNetwork(tmp_path, network(0))


def test_a_tracker_without_graphs_says_what_it_can_run_in():
    with pytest.raises(
        ValueError, match="'template_lk' cannot run in inference_backend 'onnxruntime'; it can in: default"
    ):
        make_tracker("template_lk", "onnxruntime")
