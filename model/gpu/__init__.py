"""A training step that keeps a GPU busy: fused kernels, flat parameters, the whole step as one CUDA graph.

The reference is the plain network of `networks/build.py`, run layer by layer. What is here computes the same step with
a seventh of the kernels and a third of the memory traffic, for a GPU alone:

    conv_epilogue     what follows a convolution in one kernel: bias, ReLU, response normalisation, max pooling
    elementwise       bias, ReLU and dropout of fully connected layers; the update; the input's layout
    *_kernels         the kernels, in Triton; imported when the first one is launched
    network           which of them run for an architecture, and over which towers at once
    step              forward, backward and update as one CUDA graph, checked against the reference at the start
"""
