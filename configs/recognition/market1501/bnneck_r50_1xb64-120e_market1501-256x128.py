_base_ = '../../_base_/market1501_256x128.py'
