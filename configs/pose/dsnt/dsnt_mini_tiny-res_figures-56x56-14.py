_base_ = '../../_base_/dsnt_tiny_56x56_14x14.py'
