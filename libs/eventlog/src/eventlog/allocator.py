"""What the C allocator keeps of freed memory, given back to the kernel."""

import ctypes

_libc = ctypes.CDLL(None)


def trim() -> None:
    """Milliseconds for tens of megabytes; nothing where the allocator is not glibc's, which alone knows how."""
    if (malloc_trim := getattr(_libc, "malloc_trim", None)) is not None:
        malloc_trim(0)
