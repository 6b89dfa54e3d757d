"""CenterNet with our head on the digits: the authors' losses and targets."""

_base_ = '../../_base_/centernet_tiny_digits.py'
