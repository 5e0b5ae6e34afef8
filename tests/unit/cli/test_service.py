"""The client of the service: whom it trusts."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trustme

from paperlog.failures import Failure
from paperlog.service import Service


class _Always(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a server whose authority nobody here knows."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with HTTPServer(("127.0.0.1", 0), _Always) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_certificate_of_nobody_we_know_is_refused(scheme: str, stranger: int):
    with (
        Service(f"{scheme}://127.0.0.1:{stranger}", patience_s=0.0, say=lambda _: None) as service,
        pytest.raises(Failure, match=r"127\.0\.0\.1"),
    ):
        service.get("/api/imports")
