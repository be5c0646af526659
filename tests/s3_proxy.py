"""A proxy in front of an S3 server, whose answers a test may change."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

OF_THE_CONNECTION = ("connection", "content-length", "expect", "keep-alive", "transfer-encoding")
"""Headers that are not passed on."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None = None
    """What the header Content-Length says; none: the length of the body. After a shorter body the connection ends."""


Answering = Callable[[BaseHTTPRequestHandler, Callable[[], Answer]], Answer]
"""Gives the answer to a request; it may call the function for the answer of the S3 server."""


@contextmanager
def s3_proxy(server: str, answering: Answering) -> Iterator[str]:
    """Address of a proxy for the S3 server at this address."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = answering(self, lambda: self._of_server(sent))
            length = len(answer.body) if answer.length is None else answer.length
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
                if len(answer.body) < length:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def _of_server(self, sent: bytes) -> Answer:
            upstream = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
            # With the Host of the client, which is part of its signature.
            passed_on = {name: value for name, value in self.headers.items() if name.lower() not in OF_THE_CONNECTION}
            upstream.request(self.command, self.path, sent, passed_on)
            found = upstream.getresponse()
            body, length = found.read(), found.headers.get("Content-Length")
            upstream.close()
            headers = {name: value for name, value in found.headers.items() if name.lower() not in OF_THE_CONNECTION}
            return Answer(found.status, headers, body, int(length) if length and self.command == "HEAD" else None)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        proxy.block_on_close = False  # clients keep their connections
        threading.Thread(target=proxy.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
