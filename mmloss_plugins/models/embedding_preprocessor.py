"""Batches of images for embeddings, also from MMDetection's ReID pipelines."""

from __future__ import annotations

from typing import Any

from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class EmbeddingDataPreprocessor(ImgDataPreprocessor):
    """MMEngine's ``ImgDataPreprocessor`` that takes samples of several images, too.

    MMDetection's ``PackReIDInputs`` packs each sample as (N, 3, H, W), with N = 1 but for its
    triplet sampler, and its ``ReIDDataPreprocessor`` needs mmpretrain; this one does not. All
    images of the batch become one tensor (sum of N, 3, H, W); the data samples stay as they are.

    Args:
        options: ``mean``, ``std``, ``pad_size_divisor``, ``pad_value``, ``bgr_to_rgb``, ...; of
            ``ImgDataPreprocessor``.

    Example:
        >>> import torch
        >>> preprocessor = EmbeddingDataPreprocessor(mean=[127.5], std=[128.0])
        >>> pairs = [torch.zeros(2, 3, 8, 4), torch.zeros(2, 3, 8, 4)]
        >>> preprocessor(dict(inputs=pairs))['inputs'].shape
        torch.Size([4, 3, 8, 4])
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return the batch as one float32 tensor on the device of the model.

        Args:
            data: ``inputs``, a sequence of (C, H, W) or (N, C, H, W), or one tensor (B, C, H, W)
                or (B, N, C, H, W); and ``data_samples``.
            training: not read.
        """
        inputs = data['inputs']
        if isinstance(inputs, Tensor):
            inputs = inputs.flatten(0, 1) if inputs.dim() == 5 else inputs
        else:
            inputs = [image for each in inputs for image in (each if each.dim() == 4 else [each])]
        return super().forward({**data, 'inputs': inputs}, training)
