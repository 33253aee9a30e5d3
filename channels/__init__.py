"""The rails that move money outside: one file per channel, values in and values out.

Nothing here knows an order or a posting. Adding a channel is adding one file; `registry.py`
finds it.
"""
