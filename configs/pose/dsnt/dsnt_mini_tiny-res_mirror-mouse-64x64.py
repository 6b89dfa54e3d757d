_base_ = '../../_base_/dsnt_tiny_mouse.py'
