_base_ = '../../_base_/dsnt_tiny_56x56.py'
