"""Turn any source of images into a data set: find the images, plan the shards, resize, write."""
