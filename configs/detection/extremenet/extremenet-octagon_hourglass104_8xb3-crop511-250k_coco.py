# Octagons through the extreme points as masks: 18.9 mask AP (test-dev), say the authors.
_base_ = '../../_base_/extremenet_coco_511x511.py'

model = dict(test_cfg=dict(octagon_masks=True))
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
