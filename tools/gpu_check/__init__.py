"""Say in ten minutes what a borrowed GPU can do: its limits, the tests that need one, network, stream, end to end."""
