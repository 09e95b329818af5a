"""What is no HTTP request, or too large for one, gets a problem document and a closed connection."""

import json
import socket
import ssl
import time

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.settings import Settings
from tests.fixtures.api_process import running_api

TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
PIECE = 60_000
HOST = b"Host: 127.0.0.1\r\n"


def answer_to(http: httpx.Client, request: bytes) -> bytes:
    """Everything that the api sends before it closes the connection.

    The last piece is small: bytes that the api has not read when it closes would reset the connection.
    """
    with socket.create_connection(("127.0.0.1", http.base_url.port or 80), timeout=30) as connection:
        for start in range(0, len(request), PIECE):
            connection.sendall(request[start : start + PIECE])
            if start + PIECE < len(request):
                time.sleep(0.1)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_malformed_request_gets_a_problem_document(settings: Settings) -> None:
    with running_api(settings) as http:
        for request, hint in (
            (b"\r\nHELLO\r\n\r\n", "HTTP/1.1 request"),
            (b"GET /v1/inspections?part_id=a b HTTP/1.1\r\n" + HOST + b"\r\n", "HTTP/1.1 request"),
            (b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", "HTTP/1.1 request"),
            (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: many\r\n\r\n", "HTTP/1.1 request"),
            (b"GET /v1/inspections?part_id=" + b"x" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "65536 bytes"),
            (b"GET /" + b"x" * 70_000, "65536 bytes"),
            (b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 70_000, "65536 bytes"),
            (TLS_HELLO, "HTTP, not HTTPS"),
        ):
            head, _, body = answer_to(http, request).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 "), request[:60]
            assert b"content-type: application/problem+json" in head.lower()
            assert f"content-length: {len(body)}".encode() in head.lower()
            problem = json.loads(body)
            assert (problem["status"], problem["code"]) == (400, "malformed_request")
            assert hint in problem["detail"], request[:60]
        assert http.get("/healthz").status_code == 200


def test_a_client_that_speaks_tls_gets_an_answer_that_names_the_reason(settings: Settings) -> None:
    with running_api(settings) as http:
        address = ("127.0.0.1", http.base_url.port or 80)
        with (
            socket.create_connection(address, timeout=30) as connection,
            pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record|http"),
        ):
            ssl.create_default_context().wrap_socket(connection, server_hostname="localhost")


def test_any_bytes_get_a_response_or_nothing(settings: Settings) -> None:
    with running_api(settings) as http:

        @hypothesis_settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.binary(min_size=1, max_size=60))
        def check(request: bytes) -> None:
            received = answer_to(http, request)
            assert received == b"" or received.startswith(b"HTTP/1.1 "), received

        check()
        assert http.get("/healthz").status_code == 200
