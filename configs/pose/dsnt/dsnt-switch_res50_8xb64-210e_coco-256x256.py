# The shortest switch: MMPose's DSNT config with our head, and nothing else. The head reads MMPose's
# codec, arguments and checkpoints; loss=None takes its own losses in place of MMPose's.
_base_ = (
    'mmpose::body_2d_keypoint/integral_regression/coco/ipr_res50_dsnt-8xb64-210e_coco-256x256.py'
)
custom_imports = dict(imports=['mmloss_plugins'], allow_failed_imports=False)
model = dict(head=dict(type='mmloss_plugins.DSNTHead', loss=None))
