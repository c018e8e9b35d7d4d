"""Matching by diffusion features, DIFT (Tang et al., "Emergent correspondence from image diffusion", NeurIPS 2023).

An image is encoded into the latent space of Stable Diffusion, noised as at an early step of the diffusion, and denoised once
with an empty prompt; the activations of one block of the U-Net are the descriptors. Any folder in the format of the package
diffusers will do (Stable Diffusion 1.x, 2.x).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from atk_perception.correspondence.dense import DenseMap, DenseMatcher, network_image, network_size
from atk_perception.public_models import find_weights, package
from atk_perception.torch_device import best_device

# The paper's choice for Stable Diffusion 2.1: step of 1000, block, width of the image.
TIMESTEP, UP_BLOCK, WIDTH_PX = 261, 1, 768
# Draws of noise that are averaged. The paper takes 8; 2 keep most of it, and one already takes 11 s on two cores.
DRAWS = 2
# The VAE halves an image three times, the U-Net its latents three times more.
MULTIPLE = 64


class DiftFeatures:
    """`DenseFeatures` of a latent diffusion model.

    Args:
        vae, unet, scheduler: diffusers' AutoencoderKL, UNet2DConditionModel, and a scheduler with `add_noise`.
        prompt: (1, tokens, C) text embedding of the empty prompt.
        width_px: images are brought to about this width.
        multiple: that both sides must be of.
    """

    def __init__(
        self,
        vae: Any,
        unet: Any,
        scheduler: Any,
        prompt: Tensor,
        device: torch.device,
        *,
        width_px: int = WIDTH_PX,
        multiple: int = MULTIPLE,
        draws: int = DRAWS,
        timestep: int = TIMESTEP,
        up_block: int = UP_BLOCK,
    ) -> None:
        self._vae, self._unet = (m.to(device).eval().requires_grad_(False) for m in (vae, unet))
        self._scheduler, self._prompt, self._device = scheduler, prompt.to(device, unet.dtype), device
        self._width_px, self._multiple = width_px, multiple
        self._draws, self._timestep, self._up_block = draws, timestep, up_block

    @torch.inference_mode()
    def __call__(self, image_rgb: NDArray[np.uint8]) -> DenseMap:
        """See `DenseFeatures`. The same noise every time: one image has one map."""
        size = network_size(image_rgb, self._width_px, self._multiple)
        image = 2.0 * network_image(image_rgb, size).to(self._device, self._vae.dtype) - 1.0
        latents = self._vae.encode(image).latent_dist.mean * self._vae.config.scaling_factor
        # On the CPU, so that a GPU draws the same.
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((self._draws, *latents.shape[1:]), generator=generator)
        step = torch.full((1,), self._timestep, device=self._device)
        features = torch.stack(
            [
                self._activations(
                    self._scheduler.add_noise(latents, one[None].to(latents), step).to(self._unet.dtype), step
                )
                for one in noise
            ]
        ).mean(dim=0)
        return DenseMap(functional.normalize(features, dim=0), (image_rgb.shape[1], image_rgb.shape[0]))

    def _activations(self, noisy: Tensor, step: Tensor) -> Tensor:
        """(C, h, w) float32 output of the chosen block while the U-Net denoises (1, C', H', W')."""
        caught: list[Tensor] = []
        hook = self._unet.up_blocks[self._up_block].register_forward_hook(
            lambda module, inputs, output: caught.append(output)
        )
        try:
            self._unet(noisy, step, encoder_hidden_states=self._prompt)
        finally:
            hook.remove()
        return caught[0][0].float()


def make_dift(
    folder: Path | None = None, device: torch.device | None = None, width_px: int = WIDTH_PX
) -> DenseMatcher:
    """The matcher with the model in `folder`; if not given, the one that `get_weights dift` fetched.

    Raises:
        BackendError: weights, diffusers or transformers are missing.
    """
    folder = folder or find_weights("dift")
    device = device or best_device()
    diffusers = package("diffusers", "pip install -r requirements/base.txt")
    transformers = package("transformers", "pip install -r requirements/backends.txt")
    # Half precision is for GPUs: CPUs compute it slowly, or not at all.
    options = {
        "torch_dtype": torch.float16 if device.type == "cuda" else torch.float32,
        "variant": "fp16" if any(folder.glob("unet/*.fp16.safetensors")) else None,
        "use_safetensors": True,
        "local_files_only": True,
    }
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", **options)
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", **options)
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    prompt = empty_prompt(transformers, folder, options["variant"])
    return DenseMatcher(DiftFeatures(vae, unet, scheduler, prompt, device, width_px=width_px))


@torch.inference_mode()
def empty_prompt(transformers: Any, folder: Path, variant: Any = None) -> Tensor:
    """(1, tokens, C) text embedding of no words, by the text encoder in `folder`; needed once, then let go."""
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder = transformers.CLIPTextModel.from_pretrained(
        folder / "text_encoder", variant=variant, local_files_only=True
    ).float()
    tokens = tokenizer(
        "", padding="max_length", max_length=encoder.config.max_position_embeddings, return_tensors="pt"
    )
    embedding: Tensor = encoder.eval()(tokens.input_ids).last_hidden_state
    return embedding
