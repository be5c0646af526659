"""A queue between processes, any of which may be killed."""

import pickle
import socket
from multiprocessing.connection import wait
from typing import Any

LARGEST_MESSAGE = 1 << 20
"""Bytes. Linux sends less than its socket buffer, 200 KB by default."""


class MessageQueue:
    """As much of `multiprocessing.SimpleQueue` as Airflow's executor uses, for processes that are forked.

    Those that wait share no lock, which a killed one would keep: the kernel gives each message to one of them.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def put(self, message: Any) -> None:
        """Waits while the buffer is full. Raises `OSError` for a message that it cannot hold."""
        self._writer.send(pickle.dumps(message))

    def get(self) -> Any:
        """Waits for a message."""
        return pickle.loads(self._reader.recv(LARGEST_MESSAGE))  # noqa: S301  # of this process or of one it started

    def empty(self) -> bool:
        return not wait([self._reader], timeout=0)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
