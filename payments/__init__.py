"""Orders and their life. `pipeline.py` is the way of a payment, readable from top to bottom.

What joins two of wallet, channels, risk model and identity stands here; they never import each
other.
"""
