"""Is a service away, or does it refuse for good: names of hosts, status of answers."""

import re
import socket
import time
from http import HTTPStatus

PATIENCE_SECONDS = 10
"""How long an unknown name is looked up again: that of a container is unknown while it restarts."""


def without_login(text: str) -> str:
    """A message or an address without the user and the password that an address in it may contain.

    A password may have `/` and `@`, in a text that is an address alone also blanks: rather a path that has an `@` is
    lost than one of these is shown.
    """
    login = r".*" if re.match(r"[\w.+-]+://", text) else r"\S*"
    return re.sub(f"//{login}@", "//", text)


def is_known(host: str, patience: float | None = None) -> bool:
    """False if no name server knows the name. A name server that is away tells nothing: True."""
    deadline = time.monotonic() + (PATIENCE_SECONDS if patience is None else patience)
    while True:
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror as error:
            if error.errno == socket.EAI_NONAME and time.monotonic() < deadline:
                time.sleep(1)
                continue
            return error.errno != socket.EAI_NONAME
        except UnicodeError:  # a label that is empty or too long
            return False
        return True


def is_unknown_host(error: BaseException | None) -> bool:
    """Whether an error comes from a name that no name server knows, other than from a name server that is away."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return error.errno == socket.EAI_NONAME
        error = error.__cause__ or error.__context__
    return False


def worth_a_retry(status: int) -> bool:
    """Whether the same HTTP request may succeed later: the server is busy, restarts, or others wrote meanwhile."""
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return False
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    )
