"""Networks, where they run, and how they are trained.

A network here is a definition without devices, process groups or recipe numbers. This folder never imports
`alexnet.pipeline`: `batches.BatchSource` is what the trainer needs of a source, and the stream has those methods.
"""
