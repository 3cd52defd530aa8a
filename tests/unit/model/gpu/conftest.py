"""Kernels run in Triton's interpreter here: it is chosen when they are imported, for the whole process."""

import os

os.environ["TRITON_INTERPRET"] = "1"
