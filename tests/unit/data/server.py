"""A real HTTP server on 127.0.0.1 that can be told to misbehave."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    content: bytes
    content_type: str = "application/x-gzip"
    honours_range: bool = True
    drops_after: list[int] = field(default_factory=list)
    """Bytes of the answer after which the connection is cut, one entry an answer; then it behaves."""
    failures: list[int] = field(default_factory=list)
    """Status codes with which the first requests are answered."""
    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of every request."""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.ranges.append(wanted)
        if self.failures:
            handler.send_error(self.failures.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.honours_range else 0
        if start and start >= len(self.content):
            handler.send_error(416)
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Type", self.content_type)
        handler.send_header("Content-Length", str(len(body)))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.end_headers()
        handler.wfile.write(body[: self.drops_after.pop(0)] if self.drops_after else body)


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Silent: a test says itself what it saw."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
