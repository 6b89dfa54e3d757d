"""What each paper claims, as a grid of mini configs: one entry per claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Claim:
    """A grid of configs x seeds that shows one sentence of a paper.

    Attributes:
        name: of the claim; the README's markers and the chart's file carry it.
        sentence: what is claimed, and what would refute it.
        configs: label in table and chart -> config file below the repository.
        metrics: column title -> key in MMEngine's scalars, in [0, 1], shown in per cent.
        units: column title -> unit, or '', of a metric that is shown as it is.
        steps: column title -> training step whose value it shows; the last one where none is given.
            The chart has a panel for each column without a step.
        decisive: the two labels that ``--quick`` trains: ours, then the baseline.
        readme: the file that shows table and chart between the markers of the claim's name.
        seeds: number of seeds of the full grid.
        data: environment variable that names a data set which is not generated.
        generated: the generated set that it reads, 'figures' or 'digits', which is written before
            the first run.
    """

    name: str
    sentence: str
    configs: dict[str, str]
    metrics: dict[str, str]
    decisive: tuple[str, str]
    readme: str
    seeds: int = 3
    data: str | None = None
    generated: str | None = 'figures'
    steps: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    @property
    def chart(self) -> Path:
        return (ROOT / self.readme).parent / f'claim-{self.name}.png'


_SIMCC = 'configs/pose/simcc'
_IMBALANCE = 'configs/pose/imbalance'
_GRMI = 'configs/pose/grmi'
_HEATMAP = 'configs/pose/heatmap'
_WING = 'configs/pose/wing'
_DSNT = 'configs/pose/dsnt'
_POSE_README = 'configs/pose/README.md'
_PCK = {'PCK@.05': 'pck@.05/PCK', 'PCK@.02': 'pck@.02/PCK'}
_DSNT_README = f'{_DSNT}/README.md'
_REG = ('none', 'var', 'kl', 'js', 'mse')
_CENTERNET = 'configs/detection/centernet'
_EXTREMENET = 'configs/detection/extremenet'
_FCOS = 'configs/detection/fcos'
_AP = {'AP50': 'coco/bbox_mAP_50', 'AP': 'coco/bbox_mAP'}
_DIGITS = 'configs/recognition/digits'
_DIGITS_README = f'{_DIGITS}/README.md'
_OMNIGLOT = 'configs/recognition/omniglot'


def _dsnt(name: str, maps: int | str) -> str:
    return f'{_DSNT}/{name}_mini_tiny-res_figures-56x56-{maps}.py'


def _dsnt_mouse(name: str, size: str = '64x64') -> str:
    return f'{_DSNT}/{name}_mini_tiny-res_mirror-mouse-{size}.py'


def _centernet(name: str, data: str) -> str:
    return f'{_CENTERNET}/{name}_mini_tiny-hg_{data}.py'


def _fcos(name: str) -> str:
    return f'{_FCOS}/fcos-{name}_mini_tiny-r18_digits-128x128.py'


def _digits(name: str, dims: int = 2) -> str:
    return f'{_DIGITS}/{name}_mini_lenet_digits-{dims}d.py'


def _omniglot(name: str) -> str:
    return f'{_OMNIGLOT}/{name}_mini_lenet_omniglot-28x28.py'


_CLAIMS = (
    Claim(
        name='simcc',
        sentence=(
            'At a 64x64 input, on the same features, SimCC locates joints far better than heatmaps.'
        ),
        configs={
            'SimCC': f'{_SIMCC}/simcc_mini_tiny-res_figures-64x64.py',
            'heatmap 8x8': f'{_SIMCC}/td-hm_mini_tiny-res_figures-64x64.py',
            'heatmap 16x16 (+ deconv)': f'{_SIMCC}/td-hm_mini_tiny-res-deconv_figures-64x64.py',
        },
        metrics={'PCK@.05': 'pck@.05/PCK', 'PCK@.02': 'pck@.02/PCK', 'AP': 'coco/AP'},
        decisive=('SimCC', 'heatmap 8x8'),
        readme=f'{_SIMCC}/README.md',
    ),
    Claim(
        name='simcc-mouse',
        sentence='The same on real frames (72 of them to train on).',
        configs={
            'SimCC': f'{_SIMCC}/simcc_mini_tiny-res_mirror-mouse-64x64.py',
            'heatmap 8x8': f'{_SIMCC}/td-hm_mini_tiny-res_mirror-mouse-64x64.py',
        },
        metrics={'PCK@.05': 'pck@.05/PCK', 'PCK@.02': 'pck@.02/PCK'},
        decisive=('SimCC', 'heatmap 8x8'),
        readme=f'{_SIMCC}/README.md',
        seeds=1,
        data='MIRROR_MOUSE',
        generated=None,
    ),
    Claim(
        name='imbalance',
        sentence=(
            'With a prior of .01 and one pixel in 5,918 foreground, focal loss learns faster than '
            'binary cross-entropy, which is nearly level in AP by 250 steps. Without a prior both '
            'fail.'
        ),
        configs={
            'focal': f'{_IMBALANCE}/dots-focal_mini_fcn_178x133.py',
            'BCE': f'{_IMBALANCE}/dots-bce_mini_fcn_178x133.py',
            'BCE, prior 1/5918': f'{_IMBALANCE}/dots-bce-rate-prior_mini_fcn_178x133.py',
            'focal, no prior': f'{_IMBALANCE}/dots-focal-no-prior_mini_fcn_178x133.py',
            'BCE, no prior': f'{_IMBALANCE}/dots-bce-no-prior_mini_fcn_178x133.py',
        },
        metrics={
            'AP at 120': 'pixel/AP',
            'AP': 'pixel/AP',
            'F1': 'pixel/F1',
            'largest probability': 'pixel/max_prob',
        },
        steps={'AP at 120': 120},
        decisive=('focal', 'BCE'),
        readme=f'{_IMBALANCE}/README.md',
        generated=None,
    ),
    Claim(
        name='sparse-text',
        sentence=(
            'On text that covers 1.7 % of the pixels, cross-entropy with hard negative mining, '
            'with or without Dice, learns faster than plain cross-entropy where no prior is set.'
        ),
        configs={
            'OHEM + Dice': f'{_IMBALANCE}/stripes-ohem-dice_mini_fcn_96x96.py',
            'OHEM': f'{_IMBALANCE}/stripes-ohem_mini_fcn_96x96.py',
            'BCE': f'{_IMBALANCE}/stripes-bce_mini_fcn_96x96.py',
            'OHEM, prior .01': f'{_IMBALANCE}/stripes-ohem-prior_mini_fcn_96x96.py',
            'BCE, prior .01': f'{_IMBALANCE}/stripes-bce-prior_mini_fcn_96x96.py',
        },
        metrics={'F1 at 60': 'pixel/F1', 'F1': 'pixel/F1', 'AP': 'pixel/AP'},
        steps={'F1 at 60': 60},
        decisive=('OHEM + Dice', 'BCE'),
        readme=f'{_IMBALANCE}/README.md',
        generated=None,
    ),
    Claim(
        name='heatmap-offset',
        sentence='Offsets to the keypoint make coarse maps of the same network far more precise.',
        configs={
            '7x7 offsets, Hough': f'{_GRMI}/grmi_mini_tiny-res_figures-56x56-7.py',
            '7x7 offsets, argmax': f'{_GRMI}/grmi-argmax_mini_tiny-res_figures-56x56-7.py',
            '7x7 disks': f'{_GRMI}/grmi-disk_mini_tiny-res_figures-56x56-7.py',
            '7x7 Gaussians': f'{_GRMI}/td-hm_mini_tiny-res_figures-56x56-7.py',
            '14x14 offsets, Hough': (f'{_GRMI}/grmi_mini_tiny-res_figures-56x56-14.py'),
            '14x14 offsets, argmax': (f'{_GRMI}/grmi-argmax_mini_tiny-res_figures-56x56-14.py'),
            '14x14 disks': f'{_GRMI}/grmi-disk_mini_tiny-res_figures-56x56-14.py',
            '14x14 Gaussians': f'{_HEATMAP}/hm-mse_mini_tiny-res_figures-56x56-14.py',
        },
        metrics=_PCK,
        decisive=('7x7 offsets, Hough', '7x7 disks'),
        readme=_POSE_README,
    ),
    Claim(
        name='softmax-heatmap',
        sentence='At a short budget softmax cross-entropy over the map beats MSE.',
        configs={
            'softmax, Gaussian label': (
                f'{_HEATMAP}/hm-spatial-softmax_mini_tiny-res_figures-56x56-14.py'
            ),
            'softmax, one-hot label': (
                f'{_HEATMAP}/hm-spatial-softmax-onehot_mini_tiny-res_figures-56x56-14.py'
            ),
            'MSE': f'{_HEATMAP}/hm-mse_mini_tiny-res_figures-56x56-14.py',
        },
        metrics=_PCK,
        decisive=('softmax, Gaussian label', 'MSE'),
        readme=_POSE_README,
    ),
    Claim(
        name='heatmap-losses',
        sentence='The other heatmap losses on the same network and budget.',
        configs={
            'Gaussian focal': f'{_HEATMAP}/hm-gaussian-focal_mini_tiny-res_figures-56x56-14.py',
            'sigmoid focal': f'{_HEATMAP}/hm-focal_mini_tiny-res_figures-56x56-14.py',
            '5 balanced BCE + Dice': (
                f'{_HEATMAP}/hm-balanced-bce-dice_mini_tiny-res_figures-56x56-14.py'
            ),
            'pixel softmax': f'{_HEATMAP}/hm-pixel-softmax_mini_tiny-res_figures-56x56-14.py',
            'AdaptiveWing': f'{_WING}/hm-awing_mini_tiny-res_figures-56x56-14.py',
        },
        metrics=_PCK,
        decisive=('Gaussian focal', 'AdaptiveWing'),
        readme=_POSE_README,
    ),
    Claim(
        name='regression',
        sentence='Direct regression is weaker than maps; Wing beats L1 if its unit is the pixel.',
        configs={
            'L1': f'{_WING}/reg-l1_mini_tiny-res_figures-56x56.py',
            'SmoothL1': f'{_WING}/reg-smooth-l1_mini_tiny-res_figures-56x56.py',
            'L2': f'{_WING}/reg-l2_mini_tiny-res_figures-56x56.py',
            'Wing in pixels': f'{_WING}/reg-wing-px_mini_tiny-res_figures-56x56.py',
            'Wing in [0, 1]': f'{_WING}/reg-wing-unit_mini_tiny-res_figures-56x56.py',
        },
        metrics=_PCK,
        decisive=('Wing in pixels', 'L1'),
        readme=_POSE_README,
    ),
    Claim(
        name='heatmap-mouse',
        sentence='The same on real frames (72 of them to train on).',
        configs={
            'softmax 16x16': (
                f'{_HEATMAP}/hm-spatial-softmax_mini_tiny-res_mirror-mouse-64x64-16.py'
            ),
            'MSE 16x16': f'{_HEATMAP}/hm-mse_mini_tiny-res_mirror-mouse-64x64-16.py',
            'offsets 8x8': f'{_GRMI}/grmi_mini_tiny-res_mirror-mouse-64x64.py',
            'regression, L1': f'{_WING}/reg-l1_mini_tiny-res_mirror-mouse-64x64.py',
            'regression, Wing px': (f'{_WING}/reg-wing-px_mini_tiny-res_mirror-mouse-64x64.py'),
        },
        metrics=_PCK,
        decisive=('softmax 16x16', 'MSE 16x16'),
        readme=_POSE_README,
        seeds=1,
        data='MIRROR_MOUSE',
        generated=None,
    ),
    Claim(
        name='dsnt-resolution',
        sentence=(
            'On 7x7 maps DSNT beats argmax heatmaps and fully connected regression by a wide '
            'margin; on 14x14 maps the gap is smaller.'
        ),
        configs={
            '7x7 DSNT': _dsnt('dsnt', 7),
            '7x7 DSNT + JS': _dsnt('dsnt-js', 7),
            '7x7 heatmap, argmax': _dsnt('dsnt-hm', 7),
            '7x7 heatmap, sub-pixel': _dsnt('dsnt-hm-subpixel', 7),
            '7x7 fully connected': _dsnt('dsnt-fc', 7),
            '14x14 DSNT': _dsnt('dsnt', 14),
            '14x14 DSNT + JS': _dsnt('dsnt-js', 14),
            '14x14 heatmap, argmax': _dsnt('dsnt-hm', 14),
            '14x14 heatmap, sub-pixel': _dsnt('dsnt-hm-subpixel', 14),
            '14x14 fully connected': _dsnt('dsnt-fc', 14),
        },
        metrics=_PCK,
        decisive=('7x7 DSNT', '7x7 heatmap, argmax'),
        readme=_DSNT_README,
    ),
    Claim(
        name='dsnt-budget',
        sentence='On 7x7 maps with twice the budget the order is the same.',
        configs={
            'DSNT': _dsnt('dsnt-5000', 7),
            'heatmap, argmax': _dsnt('dsnt-hm-5000', 7),
            'heatmap, sub-pixel': _dsnt('dsnt-hm-subpixel-5000', 7),
            'fully connected': _dsnt('dsnt-fc-5000', 7),
        },
        metrics=_PCK,
        decisive=('DSNT', 'fully connected'),
        readme=_DSNT_README,
        seeds=1,
    ),
    Claim(
        name='dsnt-regularizers',
        sentence='With few images (250) JS is the best regulariser and better than none.',
        configs={
            **{f'{name}, 250 images': _dsnt(f'dsnt-reg-{name}', '14-250img') for name in _REG},
            **{f'{name}, 2,000 images': _dsnt(f'dsnt-reg-{name}', 14) for name in _REG},
        },
        metrics=_PCK,
        decisive=('js, 250 images', 'none, 250 images'),
        readme=_DSNT_README,
    ),
    Claim(
        name='dsnt-normalizations',
        sentence='How the maps are normalised matters little.',
        configs={
            'softmax': _dsnt('dsnt-reg-js', 14),
            'thresholded softmax': _dsnt('dsnt-norm-tsoftmax', 14),
            'abs': _dsnt('dsnt-norm-abs', 14),
            'relu': _dsnt('dsnt-norm-relu', 14),
            'sigmoid': _dsnt('dsnt-norm-sigmoid', 14),
        },
        metrics=_PCK,
        decisive=('softmax', 'sigmoid'),
        readme=_DSNT_README,
    ),
    Claim(
        name='dsnt-halves',
        sentence=(
            'Trained on figures in the left half of the crop alone, fully connected regression '
            'fails in the right half; DSNT does not.'
        ),
        configs={
            f'{label}, {side} half': (
                f'{_DSNT}/dsnt-half-{name}-{side}_mini_tiny-res_figures-112x56.py'
            )
            for label, name in (
                ('DSNT + JS', 'js'),
                ('fully connected', 'fc'),
                ('direct regression', 'reg'),
            )
            for side in ('left', 'right')
        },
        metrics=_PCK,
        decisive=('DSNT + JS, right half', 'fully connected, right half'),
        readme=_DSNT_README,
    ),
    Claim(
        name='dsnt-mouse',
        sentence='The same on real frames (72 of them to train on).',
        configs={
            'DSNT': _dsnt_mouse('dsnt'),
            'DSNT + var': _dsnt_mouse('dsnt-reg-var'),
            'DSNT + kl': _dsnt_mouse('dsnt-reg-kl'),
            'DSNT + js': _dsnt_mouse('dsnt-reg-js'),
            'DSNT + mse': _dsnt_mouse('dsnt-reg-mse'),
            'heatmap, argmax': _dsnt_mouse('dsnt-hm'),
            'fully connected': _dsnt_mouse('dsnt-fc'),
            'js, thresholded softmax': _dsnt_mouse('dsnt-norm-tsoftmax'),
            'js, abs': _dsnt_mouse('dsnt-norm-abs'),
            'js, relu': _dsnt_mouse('dsnt-norm-relu'),
            'js, sigmoid': _dsnt_mouse('dsnt-norm-sigmoid'),
            'js, sigma 0.5': _dsnt_mouse('dsnt-sigma-0.5'),
            'js, sigma 2': _dsnt_mouse('dsnt-sigma-2'),
            'js, left half': _dsnt_mouse('dsnt-half-js-left', '128x64'),
            'js, right half': _dsnt_mouse('dsnt-half-js-right', '128x64'),
            'fully connected, left half': _dsnt_mouse('dsnt-half-fc-left', '128x64'),
            'fully connected, right half': _dsnt_mouse('dsnt-half-fc-right', '128x64'),
        },
        metrics=_PCK,
        decisive=('DSNT', 'heatmap, argmax'),
        readme=_DSNT_README,
        seeds=1,
        data='MIRROR_MOUSE',
        generated=None,
    ),
    Claim(
        name='dsnt-sigma',
        sentence='The spread of the learned maps follows the sigma of JS.',
        configs={
            'JS, sigma 0.5': _dsnt('dsnt-sigma-0.5', 14),
            'JS, sigma 1': _dsnt('dsnt-reg-js', 14),
            'JS, sigma 2': _dsnt('dsnt-sigma-2', 14),
            'JS, sigma 4': _dsnt('dsnt-sigma-4', 14),
            'variance': _dsnt('dsnt-reg-var', 14),
            'variance, lambda of 28 cells': _dsnt('dsnt-reg-var-strong', 14),
            'none': _dsnt('dsnt-reg-none', 14),
        },
        metrics=_PCK,
        decisive=('JS, sigma 1', 'JS, sigma 4'),
        readme=_DSNT_README,
    ),
    Claim(
        name='centernet-heatmap',
        sentence=(
            "CenterNet's modified focal loss learns maps of centres far sooner than binary "
            'cross-entropy does; MSE never leaves the empty map.'
        ),
        configs={
            'focal': _centernet('centernet', 'digits-128x128'),
            'MSE': _centernet('centernet-mse', 'digits-128x128'),
            'BCE, one-hot': _centernet('centernet-bce', 'digits-128x128'),
            'BCE, Gaussian': _centernet('centernet-soft-bce', 'digits-128x128'),
            "MMDetection's CenterNet": _centernet('centernet-mmdet', 'digits-128x128'),
        },
        metrics={'AP50 at 250': 'coco/bbox_mAP_50', **_AP},
        steps={'AP50 at 250': 250},
        decisive=('focal', 'MSE'),
        readme=f'{_CENTERNET}/README.md',
        generated='digits',
    ),
    Claim(
        name='extremenet',
        sentence='ExtremeNet beside CenterNet on the same backbone and budget.',
        configs={
            'ExtremeNet': f'{_EXTREMENET}/extremenet_mini_tiny-hg_digits-128x128.py',
            'CenterNet': _centernet('centernet', 'digits-128x128'),
        },
        metrics={**_AP, 'AP75': 'coco/bbox_mAP_75'},
        decisive=('ExtremeNet', 'CenterNet'),
        readme=f'{_EXTREMENET}/README.md',
        generated='digits',
    ),
    Claim(
        name='fcos',
        sentence=(
            'FCOS learns late without the prior. Where one decision in 600 is positive, focal loss '
            'beats binary cross-entropy, and alpha .75 beats .25 at gamma 0; where one in 106 is, '
            'they end level.'
        ),
        configs={
            'focal, sparse': _fcos('focal-sparse'),
            'BCE, sparse': _fcos('bce-sparse'),
            'gamma 0, alpha .75, sparse': _fcos('alpha75-sparse'),
            'gamma 0, alpha .25, sparse': _fcos('alpha25-sparse'),
            'focal': _fcos('focal'),
            'focal x 5': _fcos('focal-weight5'),
            'BCE': _fcos('bce'),
            'gamma 0, alpha .75': _fcos('alpha75'),
            'gamma 0, alpha .25': _fcos('alpha25'),
            'focal, no prior': _fcos('focal-no-prior'),
            'BCE, no prior': _fcos('bce-no-prior'),
            'gamma 0, alpha .75, no prior': _fcos('alpha75-no-prior'),
        },
        metrics={'AP50 at 250': 'coco/bbox_mAP_50', **_AP},
        steps={'AP50 at 250': 250},
        decisive=('gamma 0, alpha .75, sparse', 'gamma 0, alpha .25, sparse'),
        readme=f'{_FCOS}/README.md',
        generated='digits',
    ),
    Claim(
        name='bccd',
        sentence="The minis on real blood cells, beside MMDetection's CenterNet.",
        configs={
            'CenterNet': _centernet('centernet', 'bccd-256x192'),
            "MMDetection's CenterNet": _centernet('centernet-mmdet', 'bccd-256x192'),
            'ExtremeNet, points from boxes': (
                f'{_EXTREMENET}/extremenet_mini_tiny-hg_bccd-256x192.py'
            ),
            'FCOS, focal': f'{_FCOS}/fcos-focal_mini_tiny-r18_bccd-256x192.py',
            'FCOS, BCE': f'{_FCOS}/fcos-bce_mini_tiny-r18_bccd-256x192.py',
        },
        metrics=_AP,
        decisive=('CenterNet', "MMDetection's CenterNet"),
        readme='configs/detection/README.md',
        data='BCCD',
        generated=None,
    ),
    Claim(
        name='digits-2d',
        sentence=(
            'In two dimensions ArcFace has the smallest angles within a class, and centre loss '
            'draws classes together at the accuracy of softmax.'
        ),
        configs={
            'softmax': _digits('softmax'),
            'modified softmax': _digits('modified-softmax'),
            'softmax, BatchNorm': _digits('softmax-bn'),
            'NormFace': _digits('normface'),
            'ArcFace': _digits('arcface'),
            'centre loss': _digits('center'),
            'centre loss, un-squared': _digits('center-frobenius'),
            'label smoothing': _digits('label-smooth'),
        },
        metrics={
            'angle': 'spread/angle',
            'distance ratio': 'spread/distance',
            'accuracy': 'class/accuracy',
        },
        units={'angle': 'degrees', 'distance ratio': ''},
        decisive=('ArcFace', 'softmax'),
        readme=_DIGITS_README,
        seeds=5,
        generated=None,
    ),
    Claim(
        name='digits-collapse',
        sentence=(
            'As write-ups print them NormFace and ArcFace collapse on some seeds; with BatchNorm, '
            'class weights that start on a circle, and a margin that grows they do not.'
        ),
        configs={
            'NormFace': _digits('normface'),
            'NormFace, bare': _digits('normface-bare'),
            'ArcFace': _digits('arcface'),
            'ArcFace, bare': _digits('arcface-bare'),
        },
        metrics={'accuracy': 'class/accuracy'},
        decisive=('ArcFace', 'ArcFace, bare'),
        readme=_DIGITS_README,
        seeds=5,
        generated=None,
    ),
    Claim(
        name='digits-smoothing',
        sentence='Label smoothing against none: calibration and accuracy.',
        configs={
            'softmax, 64-d': _digits('softmax', 64),
            'label smoothing, 64-d': _digits('label-smooth', 64),
            'label smoothing .02, 64-d': _digits('label-smooth-0.02', 64),
            'softmax, 2-d': _digits('softmax'),
            'label smoothing, 2-d': _digits('label-smooth'),
        },
        metrics={
            'ECE': 'calibration/ece',
            'NLL': 'calibration/nll',
            'confidence': 'calibration/confidence',
            'accuracy': 'class/accuracy',
        },
        units={'NLL': 'nats'},
        decisive=('label smoothing, 64-d', 'softmax, 64-d'),
        readme=_DIGITS_README,
        seeds=5,
        generated=None,
    ),
    Claim(
        name='omniglot',
        sentence=(
            'Searching characters that were not trained on, by cosine, ArcFace and CosFace have a '
            'little more recall@1 than softmax, by 1 to 2 of 100; centre loss does not.'
        ),
        configs={
            'softmax': _omniglot('softmax'),
            'modified softmax': _omniglot('modified-softmax'),
            'NormFace': _omniglot('normface'),
            'ArcFace': _omniglot('arcface'),
            'CosFace': _omniglot('cosface'),
            'softmax + centre loss': _omniglot('softmax-center'),
        },
        metrics={
            'recall@1': 'verification/recall@1',
            'recall@5': 'verification/recall@5',
            'mAP': 'reid-metric/mAP',
            'TAR@FAR=.01': 'verification/TAR@FAR=0.01',
            'accuracy': 'verification/accuracy',
        },
        decisive=('ArcFace', 'softmax'),
        readme=f'{_OMNIGLOT}/README.md',
        data='OMNIGLOT',
        generated=None,
    ),
)
CLAIMS = {claim.name: claim for claim in _CLAIMS}
