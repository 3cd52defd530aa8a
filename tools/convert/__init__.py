"""Turn ILSVRC-2012's archives into a data set: find the images, plan the shards, resize, write."""
