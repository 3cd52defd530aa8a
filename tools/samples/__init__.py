"""Make what the project ships and tests with: small sources in ImageNet's own layout, the bundled data set, tables."""
