"""DSNT heads outside of PyTorch's training: ONNX, and the checkpoints and configs of MMPose."""

from __future__ import annotations

import io
from pathlib import Path

import mmpose
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from mmpose.models.heads import DSNTHead as HostDSNTHead
from mmpose.models.heads import HeatmapHead, IntegralRegressionHead
from mmpose.registry import MODELS as HOST_MODELS
from mmpose.registry import TRANSFORMS
from torch.testing import assert_close

from mmloss_plugins.heads.dsnt import DSNTHead

from .dsnt_cases import CODECS, MAP, build, features

STOCK = (
    '.mim/configs/body_2d_keypoint/integral_regression/coco/'
    'ipr_res50_dsnt-8xb64-210e_coco-256x256.py'
)
DECONV = dict(deconv_out_channels=(8, 8), deconv_kernel_sizes=(4, 4))


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpose')


# --- ONNX -------------------------------------------------------------------------------------


class OneMap(torch.nn.Module):
    """An exporter passes tensors, the backbone a tuple of them."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, *feats):
        return self.head(feats)


def trained(**options):
    """A head whose maps have peaks, in the mode of inference."""
    head = build(**options).eval()
    for layer in head.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            torch.nn.init.normal_(layer.weight, std=0.5)
    return head


def export(head, feats, dynamic=False):
    """Return the head as onnxruntime runs it: (coordinates, maps) of features."""
    runtime = pytest.importorskip('onnxruntime')
    buffer = io.BytesIO()
    axes = {'feat': {0: 'batch', 2: 'height', 3: 'width'}} if dynamic else None
    names = ['feat', *(f'feat{i}' for i in range(1, len(feats)))]
    torch.onnx.export(
        OneMap(head).eval(),  # the exporter would leave the head in the mode of its wrapper
        feats,
        buffer,
        input_names=names,
        opset_version=17,
        dynamic_axes=axes,
        dynamo=False,
    )
    session = runtime.InferenceSession(buffer.getvalue())

    def run(feats):
        inputs = {each.name for each in session.get_inputs()}
        given = {name: feat.numpy() for name, feat in zip(names, feats) if name in inputs}
        return [torch.from_numpy(output) for output in session.run(None, given)]

    return run


CASES = {
    'softmax': {},
    'beta': dict(beta=3.0),
    'thresholded_softmax': dict(normalization='thresholded_softmax'),
    'abs': dict(normalization='abs'),
    'relu': dict(normalization='relu'),
    'sigmoid': dict(normalization='sigmoid'),
    'debias': dict(debias=True),
    'mmpose': dict(codec=CODECS['host']),
    'deconv': DECONV,
    'deconv abs': dict(normalization='abs', **DECONV),
    'fc': dict(kind='FCHeatmapHead', heatmap_size=MAP),
}


@pytest.mark.parametrize('case', CASES)
def test_onnxruntime_gives_the_same_coordinates(case):
    head = trained(**CASES[case])
    run = export(head, features())
    feats = (torch.randn(2, 8, MAP[1], MAP[0]),)
    for found, expected in zip(run(feats), head(feats)):
        assert_close(found, expected, rtol=0, atol=1e-4)
    assert head(feats)[0].std() > 0.01


@pytest.mark.parametrize('case', ['deconv', 'mmpose', 'debias', 'abs', 'relu'])
def test_onnx_of_any_batch_and_size(case):
    head = trained(**{**CASES[case], **DECONV})
    run = export(head, features(), dynamic=True)
    feats = features(3, (9, 20))
    coords, heatmaps = run(feats)
    assert heatmaps.shape == (3, 3, 80, 36)
    for found, expected in zip((coords, heatmaps), head(feats)):
        assert_close(found, expected, rtol=0, atol=1e-4)


def test_onnx_of_stages():
    head = trained(num_stages=2)
    feats = (*features(), torch.randn(2, 8, MAP[1], MAP[0]))
    for found, expected in zip(export(head, feats)(feats), head(feats)):
        assert_close(found, expected, rtol=0, atol=1e-4)


# --- checkpoints of MMPose --------------------------------------------------------------------


@pytest.mark.parametrize('kind', [HostDSNTHead, IntegralRegressionHead])
@pytest.mark.parametrize(
    'layers',
    [
        dict(deconv_out_channels=None, deconv_kernel_sizes=None),
        DECONV,
        dict(**DECONV, conv_out_channels=(8,), conv_kernel_sizes=(3,)),
    ],
    ids=['no deconv', 'deconv', 'deconv and conv'],
)
@pytest.mark.parametrize('prefix', ['', 'head.'])
def test_checkpoints_of_mmpose(kind, layers, prefix):
    host = kind(8, MAP, 3, beta=1.5, **layers).eval()
    host.init_weights()
    torch.nn.init.normal_((host.simplebaseline_head or host).final_layer.weight, std=1.0)
    ours = build(codec=CODECS['host'], beta=1.5, **layers).eval()
    holder = torch.nn.ModuleDict({'head': ours}) if prefix else ours
    state = {prefix + key: value for key, value in host.state_dict().items()}
    before = dict(state)
    found = holder.load_state_dict(state)
    assert not found.missing_keys + found.unexpected_keys
    assert state.keys() == before.keys()
    for one, two in zip(ours(features()), host(features())):
        assert_close(one, two, rtol=0, atol=1e-6)
    # The same through MMEngine's loader, which every runner and init_cfg uses.
    again = build(codec=CODECS['host'], beta=1.5, **layers).eval()
    load_state_dict(again, host.state_dict(), strict=True)
    assert_close(again(features())[0], ours(features())[0])


def test_a_checkpoint_of_a_heatmap_head():
    host = HeatmapHead(8, 3, **DECONV)
    ours = build(**DECONV)
    found = ours.load_state_dict(host.state_dict())
    assert not found.missing_keys + found.unexpected_keys
    assert_close(ours.eval().logits(features()), host.eval()(features()))


def test_a_checkpoint_of_mmpose_trained_at_another_resolution():
    host = IntegralRegressionHead(8, (8, 6), 3, deconv_out_channels=None)
    ours = build(codec=CODECS['host'])
    found = ours.load_state_dict(host.state_dict())
    assert not found.missing_keys + found.unexpected_keys
    assert ours.forward(features())[1].shape == (2, 3, 12, 16)


# --- the stock config -------------------------------------------------------------------------


def drop_in(tmp_path, *changes):
    """MMPose's DSNT config with our head and, for speed, a backbone of one layer."""
    stock = Path(mmpose.__file__).parent / STOCK
    text = [
        f'_base_ = {str(stock)!r}',
        "custom_imports = dict(imports=['mmloss_plugins'], allow_failed_imports=False)",
        "model = dict(head=dict(type='mmloss_plugins.DSNTHead', loss=None))",
        *changes,
    ]
    (tmp_path / 'config.py').write_text('\n'.join(text))
    return Config.fromfile(tmp_path / 'config.py')


def make_small(config):
    config.model.init_cfg = None
    config.model.backbone = dict(
        type='ResNet', depth=18, stem_channels=8, base_channels=8, init_cfg=None
    )
    config.model.head.in_channels = 64
    return config.model


def coco_samples(codec, batch=2):
    rng = np.random.default_rng(0)
    encode = TRANSFORMS.build(dict(type='GenerateTarget', encoder=codec))
    form = TRANSFORMS.build(
        dict(
            type='PackPoseInputs',
            meta_keys=('flip_indices', 'input_size', 'input_center', 'input_scale'),
        )
    )
    inputs, samples = [], []
    for index in range(batch):
        visible = np.ones((1, 17), np.float32)
        visible[0, 5 + index] = 0
        results = dict(
            img=rng.integers(0, 255, (256, 256, 3)).astype(np.uint8),
            keypoints=rng.uniform(5, 250, (1, 17, 2)),
            keypoints_visible=visible,
            dataset_keypoint_weights=np.ones(17, np.float32),
            bbox=np.array([[0.0, 0.0, 256.0, 256.0]]),
            bbox_score=np.ones(1),
            flip_indices=[0, *(i for pair in range(1, 17, 2) for i in (pair + 1, pair))],
            input_size=(256, 256),
            input_center=np.array([128.0, 128.0]),
            input_scale=np.array([256.0, 256.0]),
        )
        packed = form(encode(results))
        inputs.append(packed['inputs'])
        samples.append(packed['data_samples'])
    return dict(inputs=inputs, data_samples=samples)


def test_the_stock_config_with_our_head_takes_a_step_and_predicts(tmp_path):
    config = drop_in(tmp_path)
    assert config.model.test_cfg == dict(flip_test=True, shift_coords=True, shift_heatmap=True)
    assert config.codec.type == 'IntegralRegressionLabel'
    model = HOST_MODELS.build(make_small(config))
    model.init_weights()
    head = model.head
    assert type(head) is DSNTHead
    assert head.loss_module.terms['js'].sigma_px == 2.0
    assert head.deconv_layers[0].out_channels == 256

    data = model.data_preprocessor(coco_samples(config.codec), training=True)
    losses = model(**data, mode='loss')
    assert set(losses) == {'loss_coord', 'loss_js', 'acc_pose'}
    (losses['loss_coord'] + losses['loss_js']).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 60
    assert all(torch.isfinite(gradient).all() for gradient in gradients)

    model.eval()
    with torch.no_grad():
        results = model(**data, mode='predict')
    for result in results:
        assert result.pred_instances.keypoints.shape == (1, 17, 2)
        # An untrained head: the middle of the map, cell 31.5 of 64 at 4 px each.
        assert np.abs(result.pred_instances.keypoints - 126).max() < 5
        assert (result.pred_instances.keypoint_scores < 0.1).all()


def test_the_head_of_mmpose_is_nan_on_the_same_step(tmp_path):
    """Why the config needs repair: one invisible joint is enough."""
    config = drop_in(tmp_path)
    config.model.head = Config.fromfile(Path(mmpose.__file__).parent / STOCK).model.head
    model = HOST_MODELS.build(make_small(config))
    model.init_weights()
    data = model.data_preprocessor(coco_samples(config.codec), training=True)
    loss = model(**data, mode='loss')['loss_kpt']
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isnan(model.head.simplebaseline_head.final_layer.weight.grad).any()


def test_the_type_alone_says_what_else_to_write(tmp_path):
    config = drop_in(tmp_path, "model['head'].pop('loss')")
    with pytest.raises(ValueError, match=r"got 'MultipleLossWrapper'. Write loss=None .*MultiLoss"):
        HOST_MODELS.build(make_small(config))


def test_every_argument_of_mmpose_is_known(tmp_path):
    change = "model['head'].update(debias=True, beta=2.0, lambda_t=-1)"
    head = HOST_MODELS.build(make_small(drop_in(tmp_path, change))).head
    assert head.debias
    assert head.beta == 2
    with pytest.raises(ValueError, match=r'lambda_t must be -1, got 50.*milestones=\[50\]'):
        build(lambda_t=50)
