"""One training run: its settings, its folder, what it prints, and the joining of stream, network and trainer."""
