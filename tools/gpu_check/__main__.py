"""`python -m alexnet.tools.gpu_check`, which is what `make gpu-check` runs."""

from alexnet.tools.gpu_check.command import main

main()
