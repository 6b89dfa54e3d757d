_base_ = '../../_base_/dsnt_tiny_112x56_half.py'
