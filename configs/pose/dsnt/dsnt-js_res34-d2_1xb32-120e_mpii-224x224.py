# DSNT with JS, 28x28 cells.
_base_ = '../../_base_/dsnt_js_mpii_224x224.py'
