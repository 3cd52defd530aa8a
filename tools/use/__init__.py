"""Trained networks, used: opened from a run or a file, evaluated, asked about images, exported; and networks shown."""
