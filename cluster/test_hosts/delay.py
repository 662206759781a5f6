"""delay.py TAP_A TAP_B MS: what comes into one tap device leaves the other MS milliseconds later, both ways.

Stands in for the kernel's netem, which many kernels of virtual machines lack.
"""

import collections
import contextlib
import fcntl
import os
import select
import struct
import sys
import time

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_MOST_AT_ONCE = 64


def open_tap(name: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return file


def main() -> None:
    first, second, delay_s = open_tap(sys.argv[1]), open_tap(sys.argv[2]), float(sys.argv[3]) / 1000
    other, waiting = {first: second, second: first}, collections.deque()
    while True:
        patience_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([first, second], [], [], patience_s)
        now = time.monotonic()
        for file in readable:
            try:
                for _ in range(_MOST_AT_ONCE):
                    waiting.append((now + delay_s, other[file], os.read(file, 65536)))
            except BlockingIOError:
                pass
            except OSError:
                time.sleep(0.01)  # the device is not up yet
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, file, frame = waiting.popleft()
            # A full queue loses frames, as a switch does.
            with contextlib.suppress(OSError):
                os.write(file, frame)


if __name__ == "__main__":
    main()
