"""Keep freed memory in the process: training on a CPU and converting images allocate the same large blocks for ever."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_INT_MAX = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from its heap and not to give them back; say whether it agreed.

    By default large blocks are mapped afresh and faulted in page by page: with this, two cores train the network at 1.3
    to 1.4 times the speed, and a core converts images at 1.2 times. The process holds on to its peak memory. Elsewhere
    than glibc nothing happens.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _INT_MAX))
