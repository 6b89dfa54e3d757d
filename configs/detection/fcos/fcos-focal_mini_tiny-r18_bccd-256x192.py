_base_ = '../../_base_/fcos_tiny_bccd.py'
