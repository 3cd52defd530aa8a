"""`alexnet-prep decode`: make a data set of planes of one of JPEGs."""
