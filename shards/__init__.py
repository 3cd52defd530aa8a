"""The on-disk format: what a data set looks like, how it is written and how it is read back.

This package knows tars, the manifest, the index and exact colour sums. It uses the standard library and NumPy and must
never import torch or DALI: `alexnet-prep` runs on machines that have neither. The format is described in
`docs/format.md`.
"""
