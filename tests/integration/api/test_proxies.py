"""Behind a real proxy, Caddy: a path beside other services, TLS, and whose `X-Forwarded-*` count."""

import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from core.access import keys
from core.settings import Settings
from linewatch import Client
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png
from tests.fixtures.servers import READY_SECONDS, free_port

ROOT = "/plant/linewatch"
CADDYFILE = """
{{
    admin off
    skip_install_trust
}}
http://127.0.0.1:{passing} {{
    bind 127.0.0.1
    handle {root}/* {{
        reverse_proxy 127.0.0.1:{api}
    }}
}}
http://127.0.0.1:{stripping} {{
    bind 127.0.0.1
    handle_path {root}/* {{
        reverse_proxy 127.0.0.1:{api}
    }}
}}
https://localhost:{tls} {{
    bind 127.0.0.1
    tls internal
    reverse_proxy 127.0.0.1:{api}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """The addresses of a proxy: one that passes the root path on, one that removes it, and one with TLS."""

    passing: str
    stripping: str
    tls: str


@contextmanager
def running_proxy(api: httpx.Client, folder: Path) -> Iterator[Proxy]:
    """Run Caddy in front of an api."""
    executable = shutil.which("caddy", path=Path(sys.executable).parent)
    assert executable is not None
    passing, stripping, tls = free_port(), free_port(), free_port()
    configuration = folder / "Caddyfile"
    configuration.write_text(
        CADDYFILE.format(root=ROOT, api=api.base_url.port, passing=passing, stripping=stripping, tls=tls)
    )
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    command = [executable, "run", "--config", str(configuration), "--adapter", "caddyfile"]
    with (
        (folder / "caddy.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            proxy = Proxy(
                f"http://127.0.0.1:{passing}{ROOT}", f"http://127.0.0.1:{stripping}{ROOT}", f"https://localhost:{tls}"
            )
            for url in (proxy.passing, proxy.tls):  # the certificate is made in the background
                _wait_until_reachable(f"{url}/healthz", folder / "caddy.log")
            yield proxy
        finally:
            process.terminate()


def _wait_until_reachable(url: str, log: Path) -> None:
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, verify=unchecked).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture
def http(settings: Settings, engine: Engine) -> Iterator[httpx.Client]:
    make_recipe_with_model(engine)
    with running_api(settings, LINEWATCH_ROOT_PATH=f"{ROOT}/", LINEWATCH_DEFAULT_RECIPE="ring") as client:
        yield client


def test_the_api_is_the_same_below_a_path(http: httpx.Client, tmp_path: Path) -> None:
    with running_proxy(http, tmp_path) as proxy:
        for url in (proxy.passing, proxy.stripping):
            accepted = httpx.post(f"{url}/v1/inspections", content=png(1))
            assert accepted.status_code == 202, accepted.text
            location = accepted.headers["Location"]
            assert location == f"{ROOT}/v1/inspections/{accepted.json()['id']}"
            assert httpx.get(httpx.URL(url).join(location)).json() == accepted.json()
            without_slash = httpx.get(f"{url}/v1/recipes/", follow_redirects=True)
            assert (without_slash.status_code, str(without_slash.url)) == (200, f"{url}/v1/recipes")
            assert httpx.get(f"{url}/openapi.json").json()["servers"] == [{"url": ROOT}]
            assert httpx.head(f"{url}/v1/recipes").status_code == 200
            assert httpx.get(f"{url}/nowhere").json()["code"] == "not_found"
            with Client(url) as client:
                inspection = client.submit(png(2), recipe="ring", part_id="SN-1")
                assert client.inspection(inspection.id).part_id == "SN-1"
        outside = httpx.get(proxy.passing.removesuffix(ROOT) + "/v1/recipes")
        assert outside.content == b""  # of another service of the proxy
    assert http.get("/v1/recipes").status_code == 200  # probes need no path
    assert http.get(f"{ROOT}elsewhere/v1/recipes").status_code == 404


def test_the_page_loads_its_files_below_the_path(http: httpx.Client, tmp_path: Path) -> None:
    with running_proxy(http, tmp_path) as proxy:
        for url in (proxy.passing, proxy.stripping):
            for view in ("/", "/inspections", "/inspections/0193e0c8-0000-7000-8000-000000000000", "/system"):
                page = httpx.get(f"{url}{view}")
                assert page.status_code == 200
                linked = [part.partition('"')[0] for part in page.text.split('="')[1:] if part.startswith("/")]
                assert len(linked) > 5
                for path in linked:
                    assert path.startswith(f"{ROOT}/")
                    assert httpx.get(httpx.URL(url).join(path)).status_code == 200, path
            assert httpx.get(f"{url}/unknown", headers={"Accept": "text/html"}).status_code == 404
            assert httpx.get(f"{url}/docs/start.js").status_code == 200


def test_only_a_trusted_proxy_names_the_scheme_and_the_address_of_the_client(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        _, key = keys.create(connection, "admin", ["admin"], actor="test")
    cookies, addresses = {}, {}
    for trusted in (None, "127.0.0.0/8, ::1", "10.0.0.5", ""):
        variables = {} if trusted is None else {"LINEWATCH_TRUSTED_PROXIES": trusted}
        with running_api(settings, LINEWATCH_AUTH="on", **variables) as http:
            forged = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
            signed_in = http.post("/v1/session", json={"api_key": key}, headers=forged)
            assert signed_in.status_code == 201, signed_in.text
            cookies[trusted] = "Secure" in signed_in.headers["Set-Cookie"]
            events = http.get(
                "/v1/audit-events?action=session.created&limit=1", headers={"Authorization": f"Bearer {key}"}
            )
            addresses[trusted] = "198.51.100.7" in events.text
    assert cookies == addresses == {None: True, "127.0.0.0/8, ::1": True, "10.0.0.5": False, "": False}


def test_a_session_through_tls_is_secure(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        _, key = keys.create(connection, "admin", ["admin"], actor="test")
    with (
        running_api(settings, LINEWATCH_AUTH="on", LINEWATCH_ROOT_PATH=ROOT) as http,
        running_proxy(http, tmp_path) as proxy,
    ):
        trust = ssl.create_default_context(cafile=next((tmp_path / "caddy").rglob("root.crt")))
        with httpx.Client(base_url=proxy.tls, verify=trust, headers={"Origin": proxy.tls}) as page:
            signed_in = page.post("/v1/session", json={"api_key": key})
            assert signed_in.status_code == 201, signed_in.text
            assert "Secure" in signed_in.headers["Set-Cookie"]
            page.headers["X-CSRF-Token"] = signed_in.json()["csrf_token"]
            assert page.post("/v1/recipes", json={"name": "new"}).status_code == 201
            foreign = page.post("/v1/recipes", json={"name": "x"}, headers={"Origin": "https://evil.example"})
            assert foreign.json()["code"] == "foreign_origin"
