"""The 1-D distributions behind SimCC's predictions, on the margins of the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmloss_plugins.errors import message
from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._run import PoseRun, Sample, make_sample
from mmloss_plugins.visualization._simcc_panels import Distributions, draw_panels

POOL = 96
MAX_JOINTS = 3


def has_simcc_codec(config: Any) -> bool:
    """Return whether the head of ``config`` decodes 1-D distributions, as SimCC and RTMPose do."""
    decoder = config.model.head.get('decoder') or {}
    return 'simcc_split_ratio' in decoder or 'SimCC' in str(decoder.get('type'))


def draw_simcc(
    config: Any,
    checkpoint: str | Path,
    out_file: str | Path,
    num: int = 3,
    joints: Sequence[str] | None = None,
    device: str = 'cpu',
) -> list[Distributions]:
    """Draw the distributions over x (below) and y (at the right) of joints in ``num`` instances.

    The filled shape is the target, the line the prediction, and the dashed line the decoded
    position. Without ``joints`` each image shows the one with the smallest error, one in between
    and the one with the largest; images are chosen among 96 that are evenly spaced over the val
    set, from a typical one to the one that the model gets most wrong, with an occluded joint as
    the largest error where there is one. It is no sample to judge the model by.

    Args:
        config: file name or loaded config of a top-down MMPose model with a SimCC-like head.
        checkpoint: file name or URL of its weights.
        out_file: PNG to write.
        num: instances to show.
        joints: names of up to three keypoints to show in every instance.
        device: where the model runs.

    Returns:
        What is drawn, in order.

    Raises:
        FileNotFoundError: the config, the checkpoint or the data set is missing.
        ModuleNotFoundError: matplotlib or MMPose is not installed.
        ValueError: not a top-down MMPose config with a SimCC-like head, an unknown joint,
            ``num`` < 1, or ``out_file`` is no PNG.
    """
    _figure.import_matplotlib()
    run = PoseRun(config, checkpoint, device)
    pool = predict_distributions(run, run.spread(max(POOL, num)))
    chosen = choose_instances([item.sample for item in pool], num)
    shown = [pool[index] for index in chosen]
    indices = [choose_joints(item.sample, joints, run.meta) for item in shown]
    with _figure.style():
        _figure.save(draw_panels(shown, indices, run.meta), out_file)
    return shown


def predict_distributions(run: PoseRun, indices: Sequence[int]) -> list[Distributions]:
    """Return what the head says about the instances, without a flip test.

    Raises:
        ValueError: the head is not SimCC-like.
    """
    import torch

    decoder = getattr(run.model.head, 'decoder', None)
    if not hasattr(decoder, 'simcc_split_ratio'):
        raise ValueError(
            message(
                'draw_simcc',
                'the head',
                'have a codec with simcc_split_ratio (SimCCHead, RTMCCHead)',
                type(run.model.head).__name__,
                'Use draw_predictions, which draws any head',
            )
        )
    found = []
    for batch in run.batches(indices):
        with torch.no_grad():
            data = run.model.data_preprocessor(batch, False)
            logits = run.model.head.forward(run.model.extract_feat(data['inputs']))[:2]
            decoded = run.model.head.decode(tuple(logits))
        axes = [_to_probabilities(run.model.head, axis) for axis in logits]
        for place, result in enumerate(data['data_samples']):
            keypoints = decoded[place].keypoints[0], decoded[place].keypoint_scores[0]
            sample = _in_input(make_sample(result, *keypoints), result, batch['inputs'][place])
            predicted = axes[0][place], axes[1][place]
            target = _target(run.model.head, sample)
            found.append(
                Distributions(sample, predicted, target, run.model.head.decoder.simcc_split_ratio)
            )
    return found


def choose_instances(samples: Sequence[Sample], num: int) -> list[int]:
    """Return ``num`` indices from the sample with a typical largest error to the worst one.

    Samples in which the joint with the largest error is occluded go first, if there are enough.
    """
    worst = np.array([np.nanmax(sample.errors()) for sample in samples])
    occluded = [
        index
        for index, sample in enumerate(samples)
        if sample.visibility[np.nanargmax(sample.errors())] == 1
    ]
    pool = np.array(occluded if len(occluded) >= num else range(len(samples)))
    order = pool[np.argsort(worst[pool], kind='stable')]
    num = min(num, len(order))
    first = min(len(order) // 2, len(order) - num)
    # From the worst down, so that a single one is the worst.
    places = np.linspace(len(order) - 1, first, num)[::-1].round().astype(int)
    return order[places].tolist()


def choose_joints(sample: Sample, names: Sequence[str] | None, meta: dict) -> list[int]:
    """Return the indices of the joints to show: the named ones, or a good, a middling and a bad.

    Raises:
        ValueError: the data set has no joint of that name.
    """
    if names is None:
        errors = sample.errors()
        order = [index for index in np.argsort(errors) if sample.labelled[index]]
        if len(order) <= MAX_JOINTS:
            return order
        good, bad = errors[order[0]], errors[order[-1]]
        # Errors span decades, and the median joint is mostly as good as the best.
        middle = np.sqrt(max(good, 1e-6) * bad)
        between = min(order[1:-1], key=lambda index: abs(np.log(max(errors[index], 1e-6) / middle)))
        return [order[0], between, order[-1]]
    known = meta['keypoint_name2id']
    for name in names:
        if name not in known:
            rule = f'be one of {", ".join(known)}'
            next_step = 'Take names from that list'
            raise ValueError(message('draw_simcc', 'joints', rule, repr(name), next_step))
    return [known[name] for name in names[:MAX_JOINTS]]


def _to_probabilities(head: Any, logits: Any) -> np.ndarray:
    beta = getattr(head.decoder, 'beta', None) or getattr(head.loss_module, 'beta', 1.0)
    return (logits.float() * beta).softmax(dim=-1).cpu().numpy()


def _target(head: Any, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    labelled = sample.labelled[None].astype(np.float32)
    labels = head.decoder.encode(sample.labels[None].astype(np.float32), labelled)
    axes = [np.asarray(labels[f'keypoint_{axis}_labels'][0]) for axis in 'xy']
    if getattr(head.loss_module, 'label_softmax', False):
        axes = [np.exp(head.loss_module.label_beta * axis) for axis in axes]
        axes = [axis / axis.sum(axis=-1, keepdims=True) for axis in axes]
    weights = labels['keypoint_weights'].reshape(-1, 1) > 0
    return axes[0] * weights, axes[1] * weights


def _in_input(sample: Sample, result: Any, image: Any) -> Sample:
    """Return the sample in px of the network's input, which is its image then."""
    size = np.array(result.metainfo['input_size'], dtype=np.float64)
    first = result.metainfo['input_center'] - 0.5 * result.metainfo['input_scale']
    labels = (sample.labels - first) / result.metainfo['input_scale'] * size
    if 'transformed_keypoints' in result.gt_instances:
        labels = np.asarray(result.gt_instances.transformed_keypoints[0], dtype=np.float64)[:, :2]
    corners = (sample.bbox.reshape(2, 2) - first) / result.metainfo['input_scale'] * size
    picture = image.numpy().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return Sample(
        name=sample.name,
        image=np.ascontiguousarray(picture[..., ::-1]),
        bbox=corners.reshape(-1),
        labels=labels,
        visibility=sample.visibility,
        keypoints=sample.keypoints,
        scores=sample.scores,
    )
