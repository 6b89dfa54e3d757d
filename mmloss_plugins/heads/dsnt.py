"""Head of DSNT: coordinates as the means of normalised heatmaps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmpose.models.heads import HeatmapHead
from torch import Tensor, nn

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message, refuse_unknown
from mmloss_plugins.heads import _dsnt_options as options
from mmloss_plugins.heads import _dsnt_reading as reading
from mmloss_plugins.heads._dsnt_reading import Reading
from mmloss_plugins.registry import MODELS

SCORES = ('mass', 'peak')
LAYERS = ('deconv_layers', 'conv_layers', 'final_layer')


@MODELS.register_module()
class DSNTHead(HeatmapHead):
    """Top-down head whose coordinates are the means of normalised heatmaps.

    See `Numerical Coordinate Regression with Convolutional Neural Networks`_ by Nibali et al.
    (2018). The layers are those of MMPose's ``HeatmapHead``, on the last feature map of any
    backbone; no layer and no buffer depends on the resolution, so that a checkpoint trained at
    one resolution runs at another. :meth:`forward` gives the coordinates as the codec encodes
    them, and the normalised maps; it exports to ONNX.

    It stands in for MMPose's DSNTHead and IntegralRegressionHead. In a config of theirs, set
    ``head.type='mmloss_plugins.DSNTHead'`` and ``head.loss=None``: their codec, ``num_joints``
    and ``test_cfg`` are read as they are. Their checkpoints load, with
    ``simplebaseline_head.X`` renamed to ``X`` and ``linspace_x`` and ``linspace_y`` dropped, and
    those of HeatmapHead as well.

    ==================== ============================================ =========================
    codec                coordinates                                  cell i of n
    ==================== ============================================ =========================
    DSNTLabel            (-1, 1), pixel p of n at (2p + 1) / n - 1    at its centre
    DSNTLabel 'mmpose',  [0, 1), pixel p of n at p / n                at i / n, as in MMPose:
    IntegralRegression-                                               nothing lies beyond the
    Label                                                             last cell
    ==================== ============================================ =========================

    Regularisers of the maps get the label in the cell-centre convention in either case, at the
    place where the mean of the map is the label, to a fraction of a pixel. The heatmaps that
    MMPose's codec encodes are not read.

    Differs from MMPose: any normalisation; any number of losses; a gradient that is finite with
    invisible joints; ``debias`` that has an effect (MMPose has 1 where Gu et al. have HW); scores
    that differ from 1; the grid is not saved.

    Args:
        in_channels (int): Channels of the last feature map
        out_channels (int): Number of keypoints K; MMPose's ``num_joints`` is the same
        deconv_out_channels (Sequence[int], optional): Output channels of each deconvolution.
            Defaults to ``(256, 256, 256)`` as in MMPose; the paper has None
        deconv_kernel_sizes (Sequence[int], optional): Defaults to 4 for each deconvolution
        conv_out_channels (Sequence[int], optional): As in ``HeatmapHead``. Defaults to None
        conv_kernel_sizes (Sequence[int], optional): As in ``HeatmapHead``. Defaults to None
        final_layer (dict): Arguments of the last convolution. The paper's has no bias, which a
            softmax does not see. Defaults to ``dict(kernel_size=1)``
        normalization (str): 'softmax', 'thresholded_softmax', 'abs', 'relu' or 'sigmoid'; see
            ``functional.normalize_heatmap``. Defaults to 'softmax'
        beta (float): Factor of the logits in a softmax. Defaults to 1.0
        threshold (float): Of 'thresholded_softmax'. Defaults to -0.5, the author's
        debias (bool): Take the share of a background at 0 out of the mean of a softmax map, see
            `Removing the Bias of Integral Pose Regression`_. Defaults to False
        num_stages (int): Number of feature maps to supervise. Above 1 the features are one map
            per stage, as MMPose's HourglassNet gives them; each gets layers and losses of its
            own, and the last one predicts. Defaults to 1
        score (str): 'mass', the probability mass within ``score_radius_px`` of the coordinate,
            or 'peak', the maximum of the map. Both say how concentrated the map is, and neither
            is the probability of a correct coordinate. Defaults to 'mass'
        score_radius_px (float): In cells of the map. Defaults to 2.0: a Gaussian of 1 px has a
            score of 0.86
        covariance (bool): Add ``pred_instances.keypoint_covariances``, (N, K, 2, 2) in square
            pixels of the input, x first. Defaults to False
        loss (Config, optional): A ``MultiLoss``, whose terms are logged as ``loss_NAME``, or one
            loss on the coordinates, logged as ``loss_coord``. Defaults to ``EuclideanLoss``
            ('coord') plus ``HeatmapJSLoss`` ('js') of the codec's sigma, or else 1 px
        decoder (Config, optional): Codec config. Defaults to None
        num_joints (int, optional): Another name of ``out_channels``
        in_featuremap_size (Sequence[int], optional): Not read: any resolution works. For configs
            of MMPose
        lambda_t (int): -1. In place of MMPose's other values write a schedule of ``MultiLoss``
        init_cfg (Config, optional): As in ``HeatmapHead``

    Raises:
        TypeError: an unknown argument, or a ``loss`` that is no config.
        ValueError: a value out of range, options that exclude each other, a codec whose
            coordinates are not known, or a ``MultipleLossWrapper``.

    .. _`Numerical Coordinate Regression with Convolutional Neural Networks`:
        https://arxiv.org/abs/1801.07372
    .. _`Removing the Bias of Integral Pose Regression`:
        https://openaccess.thecvf.com/content/ICCV2021/html/Gu_Removing_the_Bias_of_Integral_Pose_Regression_ICCV_2021_paper.html
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        deconv_out_channels: Sequence[int] | None = (256, 256, 256),
        deconv_kernel_sizes: Sequence[int] | None = None,
        conv_out_channels: Sequence[int] | None = None,
        conv_kernel_sizes: Sequence[int] | None = None,
        final_layer: Mapping[str, Any] | None = {'kernel_size': 1},
        normalization: str = 'softmax',
        beta: float = 1.0,
        threshold: float = -0.5,
        debias: bool = False,
        num_stages: int = 1,
        score: str = 'mass',
        score_radius_px: float = 2.0,
        covariance: bool = False,
        loss: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        num_joints: int | None = None,
        in_featuremap_size: Sequence[int] | None = None,
        lambda_t: int = -1,
        init_cfg: Any = None,
        **unknown: Any,
    ) -> None:
        name = type(self).__name__
        refuse_unknown(name, unknown, options.arguments_of(type(self), DSNTHead))
        check_choice(name, 'score', score, SCORES)
        if deconv_kernel_sizes is None and deconv_out_channels:
            deconv_kernel_sizes = (4,) * len(deconv_out_channels)
        layers = dict(
            in_channels=in_channels,
            out_channels=options.find_keypoints(name, out_channels, num_joints),
            deconv_out_channels=deconv_out_channels,
            deconv_kernel_sizes=deconv_kernel_sizes,
            conv_out_channels=conv_out_channels,
            conv_kernel_sizes=conv_kernel_sizes,
            final_layer=final_layer,
        )
        terms = self.default_terms((decoder or {}).get('sigma') or 1.0)
        loss = options.loss_config(name, loss, terms)
        options.check_options(name, in_channels, num_stages, lambda_t)
        options.check_normalization(name, normalization, beta, threshold, debias)
        options.check_positive(name, 'score_radius_px', score_radius_px)
        super().__init__(**layers, loss=loss, decoder=decoder, init_cfg=init_cfg)
        self.earlier_stages = nn.ModuleList(_stage(layers) for _ in range(num_stages - 1))
        self.normalization = normalization
        self.beta = beta
        self.threshold = threshold
        self.debias = debias
        self.score = score
        self.score_radius_px = score_radius_px
        self.covariance = covariance
        self.convention = options.find_convention(name, self.decoder)

    def forward(self, feats: Any) -> tuple[Tensor, Tensor]:
        """Return the coordinates and the maps that they are the means of.

        Args:
            feats (Tuple[Tensor]): The multi-stage features, of which the last is read

        Returns:
            tuple: coordinates as the codec encodes them, (B, K, 2), and normalised maps,
            (B, K, H, W); both float32.
        """
        found = self.read(self.logits(feats))
        return self.to_labels(found), found.heatmaps

    def logits(self, feats: Any) -> Tensor:
        """Return what the normalisation gets, (B, K, H, W)."""
        return super().forward(_as_sequence(feats))

    def heatmaps(self, feats: Any) -> Tensor:
        """Return the normalised maps, (B, K, H, W)."""
        return self.read(self.logits(feats)).heatmaps

    def read(self, logits: Tensor) -> Reading:
        """Normalise maps (B, K, H, W) and find their coordinates."""
        heatmaps = F.normalize_heatmap(
            logits, self.normalization, beta=self.beta, threshold=self.threshold
        )
        means = self.means(heatmaps)
        if self.debias:
            means = reading.debiased(means, logits, self.beta)
        return Reading(means, heatmaps)

    def means(self, heatmaps: Tensor) -> Tensor:
        """Return the coordinates of maps (B, K, H, W), (B, K, 2) in (-1, 1)."""
        return F.dsnt(heatmaps)

    def to_labels(self, found: Reading) -> Tensor:
        """Return the coordinates (B, K, 2) as the codec encodes them."""
        if self.convention == 'centered':
            return found.means
        return (found.means + 1 - found.half_cell) / 2

    def from_labels(self, labels: Tensor, found: Reading) -> Tensor:
        """Return labels (B, K, 2) of the codec as the means in (-1, 1) that maps should have."""
        if self.convention == 'centered':
            return labels
        # MMPose's last cell ends before the image does, and its codec keeps what lies outside.
        return (labels * 2 - 1 + found.half_cell).clamp(-1, 1)

    def loss(
        self,
        feats: Any,
        batch_data_samples: Sequence[Any],
        train_cfg: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return the terms of the loss, summed over stages, and the accuracy of the last one.

        Args:
            feats (Tuple[Tensor]): The multi-stage features
            batch_data_samples (List[:obj:`PoseDataSample`]): The batch data samples
            train_cfg (dict): ``compute_acc=False`` leaves ``acc_pose`` out; it needs no
                host-device sync. Defaults to None

        Returns:
            dict: ``loss_NAME`` of each term that is not at weight 0, ``loss_none`` of 0 where all
            of them are, and ``acc_pose``, the share of keypoints within 0.05 of the width and
            height of the input.

        Raises:
            ValueError: another number of feature maps than ``num_stages`` above 1.
        """
        labels = [sample.gt_instance_labels for sample in batch_data_samples]
        target = torch.cat([label.keypoint_labels for label in labels])
        weight = torch.cat([label.keypoint_weights for label in labels])
        found = [self.read(logits) for logits in self._stage_logits(feats)]
        losses = self._summed_terms(found, target, weight)
        losses.update(self.loss_module.scheduled_weights())
        if (train_cfg or {}).get('compute_acc', True):
            size = 2 if self.convention == 'centered' else 1
            coords = self.to_labels(found[-1])
            losses['acc_pose'] = reading.coordinate_pck(coords, target, weight, thr=0.05 * size)
        return losses

    def predict(
        self,
        feats: Any,
        batch_data_samples: Sequence[Any],
        test_cfg: Mapping[str, Any] | None = None,
    ) -> Any:
        """Predict keypoints, their scores and, if asked for, their covariances.

        The flip test averages the coordinates of the image with those of the mirrored one,
        mirrored back exactly: x becomes -x, or 1 - 1 / width - x in MMPose's convention, which
        MMPose calls ``shift_coords=True``. Neither ``shift_coords`` nor ``shift_heatmap`` is
        read: a shift is right or wrong, not a choice. Scores and covariances are those of both
        maps. The cells of the two coincide, but for MMPose's convention, where they lie
        ``1 - width of the map / width`` of a cell apart: scores and covariances allow for it, the
        average of ``output_heatmaps`` and the score 'peak' do not.

        Args:
            feats (Tuple[Tensor] | List[Tuple[Tensor]]): The multi-stage features, or those of
                the image and of the mirrored one for the flip test
            batch_data_samples (List[:obj:`PoseDataSample`]): The batch data samples
            test_cfg (dict): ``flip_test``; ``output_heatmaps`` to return the normalised maps,
                (K, H, W), too. Defaults to None

        Returns:
            List[InstanceData], or the tuple of it and a list of PixelData
        """
        test_cfg = test_cfg or {}
        if test_cfg.get('flip_test', False):
            plain, other = (self.read(self.logits(each)) for each in feats)
            indices = batch_data_samples[0].metainfo['flip_indices']
            shift = self._flip_shift(plain.heatmaps.shape[-1])
            passes = [plain, other.mirrored(indices, shift)]
        else:
            passes = [self.read(self.logits(feats))]
        average = Reading(
            reading.average([each.means for each in passes]),
            reading.average([each.heatmaps for each in passes]),
        )
        preds = self.decode(self.to_labels(average).unsqueeze(1))
        fields = dict(keypoint_scores=self._scores(passes, average))
        if self.covariance:
            fields['keypoint_covariances'] = self._covariances(passes, average)
        for name, values in fields.items():
            for pred, value in zip(preds, values.detach().cpu().numpy()):
                pred.set_field(value[None], name)
        if not test_cfg.get('output_heatmaps', False):
            return preds
        return preds, [PixelData(heatmaps=maps) for maps in average.heatmaps.detach()]

    def _stage_logits(self, feats: Any) -> list[Tensor]:
        feats = _as_sequence(feats)
        if len(self.earlier_stages) == 0:
            return [self.logits(feats)]
        stages = len(self.earlier_stages) + 1
        if len(feats) != stages:
            rule, step = f'be {stages} feature maps', 'Set num_stages to the stacks of the backbone'
            raise ValueError(message(type(self).__name__, 'feats', rule, len(feats), step))
        earlier = [layers(each) for layers, each in zip(self.earlier_stages, feats)]
        return [*earlier, self.logits(feats)]

    def _summed_terms(
        self, found: Sequence[Reading], target: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        # Losses of hosts on coordinates want (B, K, 1); with (B, K) and K = 2 some take the
        # keypoints for axes without a word.
        weights = dict(coords=weight.unsqueeze(-1), heatmaps=weight)
        losses: dict[str, Tensor] = {}
        for each in found:
            pred = dict(coords=self.to_labels(each), heatmaps=each.heatmaps)
            targets = dict(coords=target, heatmaps=self.from_labels(target, each))
            for term, value in self.loss_module.evaluate(pred, targets, weights).items():
                name = f'loss_{self.loss_module.log_names[term]}'
                losses[name] = losses[name] + value if name in losses else value
        # Every weight may be at 0 for some epochs, and a sum of nothing has no gradient.
        return losses or {'loss_none': found[-1].means.flatten()[:0].sum()}

    def _flip_shift(self, width: int) -> float:
        """Return by how much mirrored maps lie beside the maps, in (-1, 1)."""
        if self.convention == 'centered':
            return 0.0
        return 2 / width - 2 / options.input_size_of(self.decoder)[0]

    def _scores(self, passes: Sequence[Reading], average: Reading) -> Tensor:
        if self.score == 'peak':
            return average.heatmaps.flatten(2).amax(-1)
        return reading.masses(passes, average.means, self.score_radius_px)

    def _covariances(self, passes: Sequence[Reading], average: Reading) -> Tensor:
        """Return (B, K, 2, 2) in square pixels of the input."""
        size = average.means.new_tensor(options.input_size_of(self.decoder))
        stride = size * average.half_cell
        return reading.covariances(passes, average.means) * stride * stride[:, None]

    @classmethod
    def default_terms(cls, sigma_px: float) -> dict[str, Any]:
        """Return the configs of the losses that ``loss=None`` stands for."""
        return dict(
            coord=dict(type='mmloss_plugins.EuclideanLoss'),
            js=dict(type='mmloss_plugins.HeatmapJSLoss', sigma_px=sigma_px),
        )

    def _load_state_dict_pre_hook(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        options.adopt_mmpose_keys(state_dict, prefix)
        super()._load_state_dict_pre_hook(state_dict, prefix, *args, **kwargs)


def _as_sequence(feats: Any) -> Sequence[Tensor]:
    return (feats,) if isinstance(feats, Tensor) else feats


def _stage(layers: Mapping[str, Any]) -> nn.Sequential:
    """Return the layers of a HeatmapHead alone, which need no loss and no codec."""
    head = HeatmapHead(**layers)
    return nn.Sequential(OrderedDict((name, getattr(head, name)) for name in LAYERS))
