"""CenterNet with our head on blood cells: the authors' losses and targets."""

_base_ = '../../_base_/centernet_tiny_bccd.py'
