"""Every network of the line from 1998 to 2012, each drawn as its paper draws it and built from the drawing.

    drawing         the vocabulary: layers, and what a drawing says of them
    lenet_5, cuda_convnet, alexnet_2012, alexnet_owt      the drawings
    catalogue       their names
    settings        what a recipe may change about them
    trace, figures  outputs, parameters and multiply-adds of each layer, by arithmetic alone
    modules, towers, column, build      from a drawing to a `torch.nn.Module`

Drawings, their names and their figures need no torch. No network knows devices, process groups, learning rates or
initial values.
"""
