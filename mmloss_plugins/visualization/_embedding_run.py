"""A trained EmbeddingClassifier with the embeddings that it gives to a set of images.

Imports heads and models, and with them the hosts: imported where there is something to draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.heads._class_head import ClassHead
from mmloss_plugins.heads._class_samples import labels_of, last_features
from mmloss_plugins.heads.arcface import NormFaceHead
from mmloss_plugins.losses.center import CenterLoss
from mmloss_plugins.metrics.embedding_spread import EmbeddingSpread
from mmloss_plugins.models.embedding_classifier import EmbeddingClassifier
from mmloss_plugins.visualization._embedding_panels import Embeddings
from mmloss_plugins.visualization._run import (
    WHAT,
    check_checkpoint,
    check_data,
    find_run,
    load_weights,
    quiet,
    read_config,
)

# Of a data loader, beside its sampler; all images are read once, in their order.
ONLY_IN_TRAINING = ('batch_sampler', 'persistent_workers', 'prefetch_factor', 'num_batch_per_epoch')


class EmbeddingRun:
    """A config and a checkpoint of :class:`EmbeddingClassifier`, ready to embed a set.

    Args:
        run: work folder with a config and its last checkpoint, or the two.
        split: 'val', 'train' or 'test', whose data loader of the config is read, in order.
        device: where the model runs.
        cfg_options: settings that replace those of the config.

    Raises:
        FileNotFoundError: the config, the checkpoint or the data set is missing.
        ValueError: another model, embeddings of other than two dimensions, no such split, or a
            checkpoint of another model.
    """

    def __init__(
        self,
        run: Any,
        split: str = 'val',
        device: str = 'cpu',
        cfg_options: Mapping[str, Any] | None = None,
    ) -> None:
        config, checkpoint = run if isinstance(run, tuple) else find_run(run)
        self.config = read_config(config)
        self.config.merge_from_dict(dict(cfg_options or {}))
        self.checkpoint = check_checkpoint(checkpoint)
        self.split = split
        loader = _check_config(self.config, split)
        scope = self.config.get('default_scope') or 'mmengine'
        with DefaultScope.overwrite_default_scope(scope), quiet():
            self.model = _build_model(self.config.model)
            self.dataloader = _build_loader(loader)
        load_weights(self.model, self.checkpoint)
        self.model.to(device).eval()

    @property
    def name(self) -> str:
        """Name of the config, without its folder."""
        return Path(self.config.filename or 'model').stem

    def embed(self) -> Embeddings:
        """Return the embeddings of the split."""
        return collect(self.model, self.dataloader)


def check_model(what: str, model: Any) -> None:
    """Refuse a model whose embeddings cannot be drawn.

    Raises:
        ValueError: not an ``EmbeddingClassifier`` with class weights, or not of two dimensions.
    """
    head = getattr(model, 'head', None)
    if not isinstance(model, EmbeddingClassifier):
        step = 'Embeddings of other models are not drawn'
        got = type(model).__name__
        raise ValueError(message(what, 'the model', 'be an EmbeddingClassifier', got, step))
    if not isinstance(head, ClassHead):
        rule, step = 'have class weights', 'Take SoftmaxHead, NormFaceHead or ArcFaceHead'
        raise ValueError(message(what, 'the head', rule, type(head).__name__, step))
    if head.in_channels != 2:
        step = 'Train with out_channels=2 of the neck and in_channels=2 of the head'
        raise ValueError(message(what, 'embeddings', 'have 2 dimensions', head.in_channels, step))


@torch.no_grad()
def collect(model: EmbeddingClassifier, dataloader: Iterable[Any]) -> Embeddings:
    """Return the embeddings of all batches; those of the head's ``ignore_index`` are left out.

    Args:
        model: that :func:`check_model` has let pass, in evaluation mode.
        dataloader: of the images, in any form that the model takes.

    Raises:
        ValueError: no image, or a class that the head does not have.
    """
    features, compared, labels, shared = _read(model, dataloader)
    counts = labels != model.head.ignore_index
    features, compared, labels = features[counts], compared[counts], labels[counts]
    classes = model.head.num_classes
    _check_labels(labels, classes)
    hits = model.head.share_of_hits(features, labels, torch.ones_like(labels, dtype=torch.bool))
    # The metric itself, so that the picture says what the log of the run says.
    pairs = list(zip(compared.double().cpu(), labels.tolist()))
    return Embeddings(
        features=_to_numpy(features),
        labels=labels.cpu().numpy(),
        classes=_class_names(dataloader, classes),
        weights=_to_numpy(model.head.weight.reshape(classes, -1, 2)),
        centers=_centers(model) if shared else None,
        on_circle=isinstance(model.head, NormFaceHead),
        accuracy=float(hits),
        **EmbeddingSpread().compute_metrics(pairs),
    )


def _read(
    model: EmbeddingClassifier, dataloader: Iterable[Any]
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Return embeddings, what the head compares of them, labels, and whether losses see the same.

    Of a sequence from the neck the head reads the last, the auxiliary losses the first.
    """
    found = []
    shared = True
    for batch in dataloader:
        data = model.data_preprocessor(batch, False)
        feats = model.extract_feat(data['inputs'])
        shared = shared and isinstance(feats, Tensor)
        embeddings = last_features(feats)
        labels = labels_of(WHAT, data.get('data_samples'), embeddings.device)
        found.append((embeddings, model.head(feats), labels))
    if not found:
        step = 'Name another set'
        raise ValueError(message(WHAT, 'the data set', 'hold an image', 'none', step))
    return (*(torch.cat(parts) for parts in zip(*found)), shared)


def _check_config(config: Any, split: str) -> Any:
    """Return the config of the data loader of ``split``."""
    loader = config.get(f'{split}_dataloader')
    if not config.get('model') or 'type' not in config.model:
        _refuse_model('no model')
    if not loader or not loader.get('dataset'):
        step = 'Take another split, or add it to the config'
        rule = 'have the images to embed'
        raise ValueError(message(WHAT, 'config', rule, f'no {split}_dataloader', step))
    if split == 'val':
        check_data(config)
    return loader


def _build_model(config: Any) -> Any:
    from mmengine.registry import MODELS

    kind = MODELS.get(config.type) if isinstance(config.type, str) else config.type
    # Before it is built: a detector would want its own config, its own weights and a while.
    if not (isinstance(kind, type) and issubclass(kind, EmbeddingClassifier)):
        _refuse_model(f'the model {config.type!r}')
    model = MODELS.build(config)
    check_model(WHAT, model)
    return model


def _refuse_model(got: str) -> None:
    step = 'Name the work folder of a run of configs/recognition'
    raise ValueError(message(WHAT, 'config', 'be that of an EmbeddingClassifier', got, step))


def _build_loader(config: Any) -> Any:
    """Return the loader of all images in their order, those of a training split, too."""
    from mmengine.runner import Runner

    options = {key: value for key, value in config.items() if key not in ONLY_IN_TRAINING}
    options.update(
        sampler=dict(type='DefaultSampler', shuffle=False), num_workers=0, drop_last=False
    )
    options.setdefault('batch_size', 64)
    return Runner.build_dataloader(options)


def _check_labels(labels: Tensor, classes: int) -> None:
    if len(labels) == 0:
        step = 'Name another set'
        raise ValueError(message(WHAT, 'the data set', 'hold a labelled image', 'none', step))
    if int(labels.min()) >= 0 and int(labels.max()) < classes:
        return
    rule = f'be within the {classes} classes of the head'
    step = 'Draw a set of the classes that it was trained on, such as --split train'
    got = int(labels.max()) if labels.min() >= 0 else int(labels.min())
    raise ValueError(message(WHAT, 'the labels', rule, got, step))


def _class_names(dataloader: Any, classes: int) -> tuple[str, ...]:
    meta = getattr(getattr(dataloader, 'dataset', None), 'metainfo', None) or {}
    names = tuple(str(name) for name in meta.get('classes') or ())
    return names if len(names) == classes else tuple(str(name) for name in range(classes))


def _centers(model: EmbeddingClassifier) -> np.ndarray | None:
    found = [loss for loss in model.aux_losses.values() if isinstance(loss, CenterLoss)]
    return _to_numpy(found[0].centers) if found else None


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
