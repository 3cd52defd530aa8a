"""The data path beside its limits and beside other loaders."""
