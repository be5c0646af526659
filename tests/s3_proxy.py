"""A proxy in front of an S3 server that refuses conditional writes, as servers do that do not know them."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP_BY_HOP = ("connection", "expect", "keep-alive", "transfer-encoding")


@contextmanager
def proxy_without_conditional_writes(server: str, status: int, code: str) -> Iterator[str]:
    """Its address. It answers a PUT with `If-None-Match` by `status` and S3's `code`, and passes on all else."""

    refusal = f"<Error><Code>{code}</Code></Error>".encode()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "PUT" and "If-None-Match" in self.headers:
                self.reply(status, [("Content-Type", "application/xml")], refusal)
                return
            upstream = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
            # With the Host of the client, which is part of its signature.
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            self.reply(answer.status, answer.getheaders(), answer.read())
            upstream.close()

        def reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            length = str(len(body))
            for name, value in headers:
                if self.command == "HEAD" and name.lower() == "content-length":
                    length = value
                elif name.lower() not in (*HOP_BY_HOP, "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        proxy.block_on_close = False  # clients keep their connections
        threading.Thread(target=proxy.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
