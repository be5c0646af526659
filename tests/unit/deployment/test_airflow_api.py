"""The logged-in client, against a server that refuses and one that is not there."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from benchmarks.temporary_stack import free_port
from cifar_tasks.deployment.airflow_api import airflow
from cifar_tasks.errors import StackError


class Refuses(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(401)

    def log_message(self, *_words: object) -> None:
        pass


def test_a_refused_log_in_names_the_user_and_not_the_password() -> None:
    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with (
                pytest.raises(StackError, match=r"refused the log-in of admin \(401\)") as refused,
                airflow(f"http://127.0.0.1:{server.server_port}", "admin", "correct horse"),
            ):
                pass
        finally:
            server.shutdown()
    assert "correct horse" not in str(refused.value)


def test_a_server_that_is_not_there_is_an_error_of_ours() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(StackError, match=f"{url} does not answer"), airflow(url, "admin", "word"):
        pass
