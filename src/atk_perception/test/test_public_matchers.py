"""Public matchers with small, randomly initialised networks of the true classes: the contract holds, whatever the weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atk_perception.correspondence.dense import DenseMatcher
from atk_perception.correspondence.dift import DiftFeatures, empty_prompt, make_dift
from atk_perception.correspondence.dinov2 import make_dinov2
from atk_perception.correspondence.dinov3 import make_dinov3
from atk_perception.correspondence.lightglue import LightGlueMatcher, make_lightglue
from atk_perception.correspondence.protocol import Matcher, Matches
from atk_perception.correspondence.vit import VitFeatures

transformers = pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")

CPU = torch.device("cpu")
TOKENS = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}


def save_dinov2(folder: Path) -> Path:
    config = transformers.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        patch_size=14,
        image_size=70,
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


def save_dinov3(folder: Path) -> Path:
    config = transformers.DINOv3ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_register_tokens=4,
    )
    transformers.DINOv3ViTModel(config).save_pretrained(folder)
    return folder


def save_diffusion_model(folder: Path) -> Path:
    """A folder as diffusers writes it: VAE, U-Net, scheduler, text encoder and tokenizer."""
    diffusers.AutoencoderKL(
        block_out_channels=(16, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
    ).save_pretrained(folder / "vae")
    diffusers.UNet2DConditionModel(
        block_out_channels=(16, 16, 32, 32),
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=8,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")
    diffusers.DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    config = transformers.CLIPTextConfig(
        vocab_size=len(TOKENS),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(TOKENS))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 12, "pad_token": "<|endoftext|>"})
    )
    return folder


def save_lightglue(folder: Path) -> Path:
    detector = transformers.SuperPointConfig(
        encoder_hidden_sizes=[16, 16, 32, 32],
        decoder_hidden_size=32,
        descriptor_decoder_dim=32,
        keypoint_threshold=0.0,
        max_keypoints=80,
    )
    config = transformers.LightGlueConfig(
        keypoint_detector_config=detector.to_dict(),
        descriptor_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        filter_threshold=0.0,
    )
    transformers.LightGlueForKeypointMatching(config).save_pretrained(folder)
    return folder


# Small images: what is tested does not depend on their size, and a random network costs as much as a trained one.
SAVE: dict[str, tuple[Any, Any]] = {
    "dinov2": (save_dinov2, partial(make_dinov2, width_px=280)),
    "dinov3": (save_dinov3, partial(make_dinov3, width_px=320)),
    "dift": (save_diffusion_model, partial(make_dift, width_px=256)),
    "lightglue": (save_lightglue, make_lightglue),
}


@pytest.fixture(scope="module", params=list(SAVE))
def matcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    """Saved and loaded as fetched weights are."""
    torch.manual_seed(0)
    save, load = SAVE[request.param]
    return load(save(tmp_path_factory.mktemp(request.param)), CPU)


def check(matches: Matches, count: int) -> None:
    assert matches.uv_px.shape == (count, 2)
    assert matches.confidence.shape == (count,)
    assert matches.warp.shape == (count, 2, 2)
    assert {matches.uv_px.dtype, matches.confidence.dtype, matches.warp.dtype} == {np.dtype(np.float32)}
    assert np.isfinite(matches.uv_px).all()
    assert np.isfinite(matches.warp).all()
    assert np.all((matches.confidence >= 0) & (matches.confidence <= 1))


def test_matches_have_the_points_shapes_and_types(matcher: Matcher, make_scene: Any) -> None:
    scene = make_scene(seed=3)
    template = scene.template(per_object=4)
    matches = matcher.match(template, scene.render(light=None, noise=6.0))
    check(matches, 12)
    again = matcher.match(template, scene.render(light=None, noise=6.0))
    np.testing.assert_array_equal(matches.uv_px, again.uv_px)


def test_a_scene_of_another_size_that_shows_nothing_raises_nothing(matcher: Matcher, make_scene: Any) -> None:
    template = make_scene(seed=5).template(per_object=3)
    check(matcher.match(template, np.full((300, 424, 3), 90, np.uint8)), 9)


def test_an_image_of_another_kind_is_refused_by_its_shape(matcher: Matcher, make_scene: Any) -> None:
    template = make_scene(seed=5).template(per_object=3)
    with pytest.raises(ValueError, match=r"\(48, 64\) float32"):
        matcher.match(template, np.zeros((48, 64), np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dinov2", "dinov3", "dift"])
def test_a_dense_matcher_finds_the_template_in_itself(name: str, tmp_path: Path, make_scene: Any) -> None:
    """Even random features are the same where the image is: what is off here is off in the coordinates."""
    torch.manual_seed(1)
    save, load = SAVE[name]
    matcher = load(save(tmp_path), CPU)
    template = make_scene(seed=6).template(per_object=4)
    assert isinstance(matcher, DenseMatcher)
    features = matcher._features(template.image_rgb)
    similarity = features.similarity(features.describe(template.uv_px))
    away = np.abs(features.best_cells(similarity) - features.to_cells(template.uv_px)).max(axis=1)
    assert np.median(away) <= 0.51
    # The padding of a convolution is felt in the corner; cells are square to a few percent.
    np.testing.assert_allclose(features.cell_px[0], features.cell_px[1], rtol=0.05)


def test_patch_tokens_are_laid_out_as_the_image_is(tmp_path: Path) -> None:
    """A bright patch changes its own token most."""
    model = transformers.Dinov2Model.from_pretrained(save_dinov2(tmp_path))
    features = VitFeatures(model, 1, 70, CPU)
    dark = np.full((70, 70, 3), 60, np.uint8)
    bright = dark.copy()
    bright[14:28, 42:56] = 250
    assert features(dark).features.shape == (32, 5, 5)
    change = (features(dark).features - features(bright).features).norm(dim=0)
    assert divmod(int(change.argmax()), 5) == (1, 3)


def test_dift_describes_an_image_the_same_way_every_time(tmp_path: Path, make_scene: Any) -> None:
    folder = save_diffusion_model(tmp_path)
    features = DiftFeatures(
        diffusers.AutoencoderKL.from_pretrained(folder / "vae"),
        diffusers.UNet2DConditionModel.from_pretrained(folder / "unet"),
        diffusers.DDIMScheduler.from_pretrained(folder / "scheduler"),
        empty_prompt(transformers, folder),
        CPU,
        width_px=256,
    )
    image = make_scene(seed=7).render()
    first = features(image).features
    # Blocks of the U-Net double the resolution: the second gives cells of 16 px of the network's 256x192.
    assert first.shape == (32, 12, 16)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(12, 16))
    torch.testing.assert_close(features(image).features, first)


def test_lightglue_matches_an_image_with_itself_in_place(tmp_path: Path, make_scene: Any) -> None:
    """Coordinates of both images go through the same conversion; partners of equal descriptors are in the same place."""
    torch.manual_seed(0)
    matcher = make_lightglue(save_lightglue(tmp_path), CPU)
    assert isinstance(matcher, LightGlueMatcher)
    image = make_scene(seed=8).render()
    found = matcher.feature_matches(image, image)
    assert found.source_px.shape == found.target_px.shape
    assert len(found.score) == len(found.source_px)
    assert np.all((found.source_px >= -0.5) & (found.source_px <= [639.5, 479.5]))
