"""A port in front of a service, which a test may cut off from its clients while the service runs on for others."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

from cifar_tasks.deployment.stack.environment import HOST


class Gateway:
    """Forwards every connection to `port` of this machine until `cut`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self._ends: list[socket.socket] = []
        """Of each connection the client's and the service's."""
        self.port = int(self._listener.getsockname()[1])

    def forward(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # of sockets that `cut` has closed
            while True:
                for ready in select.select([self._listener, *self._ends], [], [], 0.1)[0]:
                    if ready is self._listener:
                        self._ends += [self._listener.accept()[0], socket.create_connection((HOST, self._target))]
                    elif data := ready.recv(65536):
                        self._ends[self._ends.index(ready) ^ 1].sendall(data)
                    else:
                        self._close(ready)

    def cut(self) -> None:
        """Close all connections and accept no more."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _close(self, end: socket.socket) -> None:
        first = self._ends.index(end) & ~1
        for each in self._ends[first : first + 2]:
            each.close()
        del self._ends[first : first + 2]


@contextlib.contextmanager
def gateway(port: int) -> Iterator[Gateway]:
    forwarding = Gateway(port)
    thread = threading.Thread(target=forwarding.forward)
    thread.start()
    try:
        yield forwarding
    finally:
        forwarding.cut()
        thread.join()
