"""Networks, where they run, and how they are trained.

A network here is a definition without devices, process groups or recipe numbers. This room never imports
`alexnet.pipeline`: the trainer states in `batches` what it needs of a source, and the stream happens to fit.
"""
