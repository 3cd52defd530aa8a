"""Decoders: each takes a batch's plan and bytes and yields tensors, and knows nothing of order, epochs or ranks.

`seam.py` says what the feed expects of one. DALI decodes on a GPU or a CPU, the host decoder in C on a CPU, and a split
between the two puts some images on each. They execute the same draws; pixels differ only by a decoder's rounding.
"""
