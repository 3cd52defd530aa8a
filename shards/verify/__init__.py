"""Check that a data set is what its converter wrote; `check.verify` is the whole of it."""
