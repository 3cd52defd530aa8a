"""`alexnet-prep adopt`: make a data set of the tars that are there already, where they lie."""
