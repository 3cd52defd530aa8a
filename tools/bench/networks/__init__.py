"""Networks, and whole training runs, beside the machine's rooflines."""
