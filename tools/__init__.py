"""The commands: the only room that joins `pipeline` and `model`.

A module that defines a command imports nothing heavy; torch and DALI are loaded when a command that needs them runs,
so `--help`, `--version` and all of `alexnet-prep` work without them.
"""
