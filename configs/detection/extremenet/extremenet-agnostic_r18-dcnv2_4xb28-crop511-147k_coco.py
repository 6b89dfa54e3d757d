# One map of each extreme point for all classes; the class is that of the centre.
_base_ = './extremenet_r18-dcnv2_4xb28-crop511-147k_coco.py'

model = dict(bbox_head=dict(class_agnostic=True))
