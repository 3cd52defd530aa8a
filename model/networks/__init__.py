"""Every network of the line from 1998 to 2012, each written as its paper draws it and built from that.

    architecture            the vocabulary: layers, and what each reads and gives
    alexnet_2012, others    the networks; ARCHITECTURES in `others` names them all
    settings                which network, and what a recipe may change about it
    figures                 inputs, outputs, parameters and multiply-adds of each layer, by arithmetic alone
    build                   from an architecture to a `torch.nn.Module`

All but the last need no torch. To add a network: write it in `others`, and name it there.
"""
