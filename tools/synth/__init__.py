"""Make a data set from nothing but a seed: ImageNet's image and file sizes, classes that have to be learnt."""
