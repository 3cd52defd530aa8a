"""Draw a data set from nothing but a seed: ImageNet's picture and file sizes, classes that have to be learnt."""
