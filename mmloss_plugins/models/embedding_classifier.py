"""Backbone, neck and a classification head, of which the embedding is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._ranks import is_sharded
from mmloss_plugins.heads._class_samples import labels_of, last_features
from mmloss_plugins.registry import MODELS

WHAT = 'EmbeddingClassifier'
MODES = ('tensor', 'loss', 'predict')


@MODELS.register_module()
class EmbeddingClassifier(BaseModel):
    """Trains an embedding to tell classes apart, and extracts it at test time.

    What MMDetection's ``BaseReID`` is for, without mmpretrain. The data are those of its
    ``ReIDDataset`` and ``PackReIDInputs``, with :class:`EmbeddingDataPreprocessor` or, where
    mmpretrain is installed, ``ReIDDataPreprocessor``; or images and labels as tensors. Its
    ``ReIDMetrics`` and :class:`VerificationMetric` take the predictions::

        model = dict(
            type='mmloss_plugins.EmbeddingClassifier',
            data_preprocessor=dict(type='mmloss_plugins.EmbeddingDataPreprocessor', ...),
            backbone=dict(type='mmdet.ResNet', depth=50, ...),
            neck=dict(type='mmloss_plugins.ArcFaceNeck', in_channels=2048, out_channels=512),
            head=dict(type='mmloss_plugins.ArcFaceHead', in_channels=512, num_classes=751),
            aux_losses=dict(center=dict(
                type='mmloss_plugins.CenterLoss', num_classes=751, feat_dim=512,
                loss_weight=0.01)))

    Args:
        backbone (Config): Feature maps, or features, of images; of a sequence the last is read
        head (Config): ``SoftmaxHead``, ``ModifiedSoftmaxHead``, ``NormFaceHead``, ``ArcFaceHead``
            or another with ``loss``, ``predict`` and ``forward`` of an embedding
        neck (Config, optional): To an embedding (B, D), such as ``ArcFaceNeck``, or to a sequence
            of which the head reads the last and ``aux_losses`` the first, such as ``BNNeck``.
            None: the backbone gives one. Defaults to None
        aux_losses (dict, optional): Losses on embedding (B, D) and classes (B,), by name, such as
            ``CenterLoss``; logged as ``loss_NAME``. Their parameters are ``aux_losses.NAME.*``.
            Defaults to None
        data_preprocessor (Config, optional): Of MMEngine's BaseModel
        init_cfg (Config, optional): Of MMEngine's BaseModel

    Raises:
        TypeError: ``aux_losses`` that are no dict.
        ValueError: a name of an auxiliary loss that cannot be logged.

    Example:
        >>> import torch
        >>> model = EmbeddingClassifier(
        ...     backbone=dict(type='mmloss_plugins.ArcFaceNeck', in_channels=3, out_channels=2),
        ...     head=dict(type='mmloss_plugins.ArcFaceHead', in_channels=2, num_classes=10),
        ... )
        >>> losses = model(torch.rand(4, 3, 9, 5), torch.tensor([0, 1, 2, 9]), mode='loss')
        >>> list(losses)
        ['loss_cls']
        >>> model(torch.rand(4, 3, 9, 5)).norm(dim=1).round().int()
        tensor([1, 1, 1, 1], dtype=torch.int32)
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        neck: Mapping[str, Any] | None = None,
        aux_losses: Mapping[str, Any] | None = None,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg=init_cfg)
        aux_losses = {} if aux_losses is None else aux_losses
        _check_names(aux_losses)
        self.backbone = _build('backbone', backbone)
        self.neck = None if neck is None else _build('neck', neck)
        self.head = _build('head', head)
        self.aux_losses = nn.ModuleDict(
            {name: _build(f'aux_losses.{name}', loss) for name, loss in aux_losses.items()}
        )
        # DistributedDataParallel would average rows of different classes.
        self._ddp_params_and_buffers_to_ignore = [
            name for name, parameter in self.named_parameters() if is_sharded(parameter)
        ]

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Return what ``mode`` asks for.

        Args:
            inputs: images (B, C, H, W), or (B, N, C, H, W) for samples of N images.
            data_samples: classes, as one tensor, as a dict with them at 'gt_label', or as data
                samples with ``gt_label``; may be None for 'tensor' and 'predict'.
            mode: 'tensor', 'loss' or 'predict'.

        Returns:
            For 'tensor' the embeddings as they are to be compared, (B, D): of length 1 for the
            heads that train cosines. For 'loss' the losses by name. For 'predict' the data
            samples, or a dict for each image, with ``pred_feature``, (D,).

        Raises:
            ValueError: an unknown mode, or no labels where they are needed.
        """
        check_choice(WHAT, 'mode', mode, MODES)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.head(self.extract_feat(inputs))

    def extract_feat(self, inputs: Tensor) -> Any:
        """Return the embeddings as they are trained, (B, D), or all that the neck gives.

        Args:
            inputs: images (B, C, H, W) or (B, N, C, H, W).
        """
        images = inputs.flatten(0, 1) if inputs.dim() == 5 else inputs
        feats = self.backbone(images)
        return last_features(feats) if self.neck is None else self.neck(feats)

    def loss(self, inputs: Tensor, data_samples: Any) -> dict[str, Tensor]:
        """Return the losses of the head, and ``loss_NAME`` of each auxiliary one.

        Args:
            inputs: as in :meth:`forward`.
            data_samples: as in :meth:`forward`.
        """
        feats = self.extract_feat(inputs)
        losses: dict[str, Tensor] = self.head.loss(feats, data_samples)
        if len(self.aux_losses) == 0:
            return losses
        embedding = feats if isinstance(feats, Tensor) else feats[0]
        labels = labels_of(WHAT, data_samples, embedding.device)
        for name, loss in self.aux_losses.items():
            losses[f'loss_{name}'] = loss(embedding, labels)
        return losses

    def predict(self, inputs: Tensor, data_samples: Any = None) -> list[Any]:
        """Return data samples, or dicts, with ``pred_feature``; see the head's ``predict``.

        Args:
            inputs: as in :meth:`forward`.
            data_samples: as in :meth:`forward`.
        """
        feats = self.extract_feat(inputs)
        if data_samples is None:
            return [dict(pred_feature=each) for each in self.head(feats)]
        found: list[Any] = self.head.predict(feats, data_samples)
        return found


def _build(argument: str, config: Any) -> nn.Module:
    if isinstance(config, nn.Module):
        return config
    if not isinstance(config, Mapping) or 'type' not in config:
        rule, step = 'be a config with a type', 'See the docstring of EmbeddingClassifier'
        raise TypeError(message(WHAT, argument, rule, repr(config), step))
    module: nn.Module = MODELS.build(dict(config))
    return module


def _check_names(aux_losses: Any) -> None:
    if not isinstance(aux_losses, Mapping):
        rule, step = 'be a dict of losses by name', 'Pass dict(center=dict(type=...))'
        raise TypeError(message(WHAT, 'aux_losses', rule, repr(aux_losses), step))
    for name in aux_losses:
        word = isinstance(name, str) and name.isidentifier() and not hasattr(nn.ModuleDict, name)
        if not word or name == 'cls':
            rule = "be words other than 'cls', which the head has, and than nn.ModuleDict's methods"
            step = "Call it 'center', for instance"
            raise ValueError(message(WHAT, 'names of aux_losses', rule, repr(name), step))
