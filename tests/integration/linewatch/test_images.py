"""The client and the command read images, and hand out links to those in a bucket."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine

from core.access import keys
from core.settings import Settings
from linewatch import LinewatchError, Refused, Unreachable
from linewatch.cli import run
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.mock_system import CLIENTS
from tests.fixtures.part_images import png
from tests.fixtures.s3_server import S3Server
from tests.fixtures.servers import free_port

each_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


@pytest.fixture
def key(engine: Engine) -> str:
    make_recipe_with_model(engine)
    with engine.begin() as connection:
        return keys.create(connection, "tests", ["submit", "read"], actor="test")[1]


@pytest.fixture
def with_links(
    settings: Settings, key: str, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of an api that stores images in a bucket and gives links; it requires a key."""
    with running_api(
        settings,
        LINEWATCH_AUTH="on",
        LINEWATCH_STORE_URL=f"s3://{s3.bucket}/test-{uuid4().hex}",
        LINEWATCH_SCRATCH=str(tmp_path / "scratch"),
        LINEWATCH_STORE_LINK_SECONDS="60",
    ) as http:
        monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
        monkeypatch.setenv("LINEWATCH_API_KEY", key)
        yield str(http.base_url)


@each_client
def test_an_image_is_read_by_a_link_to_the_bucket(
    client: Callable[..., Any], with_links: str, key: str, s3: S3Server
) -> None:
    with client(with_links, api_key=key) as lw:
        inspection_id = lw.submit(png(1), recipe="ring").id
        link = lw.image_link(inspection_id)
        assert link.startswith(s3.environment["AWS_ENDPOINT_URL"])
        assert httpx.get(link).content == png(1)
        assert lw.image(inspection_id, redirect=True) == lw.image(inspection_id) == png(1)
        with pytest.raises(Refused) as refused:
            lw.image_link(uuid4())
        assert refused.value.code == "not_found"


@each_client
def test_without_links_the_image_comes_from_the_api(client: Callable[..., Any], settings: Settings, key: str) -> None:
    with running_api(settings) as http, client(str(http.base_url)) as lw:
        inspection_id = lw.submit(png(1), recipe="ring").id
        assert lw.image_link(inspection_id) is None
        assert lw.image(inspection_id, redirect=True) == png(1)


@each_client
def test_a_link_that_leads_nowhere_is_named_without_its_signature(client: Callable[..., Any]) -> None:
    port = free_port()
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if request.url.host == "system.test":
            return httpx.Response(307, headers={"Location": f"http://bucket.test:{port}/a.png?X-Amz-Signature=secret"})
        if len(sent) > 2:
            raise httpx.ConnectError("refused")
        return httpx.Response(403, text="<Error><Code>AccessDenied</Code></Error>")

    with client("http://system.test", api_key="lw_1", transport=httpx.MockTransport(answer)) as lw:
        with pytest.raises(LinewatchError, match=rf"http://bucket.test:{port}, which responded with 403$"):
            lw.image(uuid4(), redirect=True)
        with pytest.raises(Unreachable, match=rf"http://bucket.test:{port}, which cannot be reached \(refused\)$"):
            lw.image(uuid4(), redirect=True)
    assert ["Authorization" in request.headers for request in sent] == [True, False] * 2


def test_the_command_writes_an_image_or_prints_a_link(
    with_links: str, key: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with CLIENTS["sync"](with_links, api_key=key) as lw:
        inspection_id = str(lw.submit(png(1), recipe="ring").id)
    assert run(["image", inspection_id, "--link"]) == 0
    assert httpx.get(capsysbinary.readouterr().out.decode().strip()).content == png(1)
    assert run(["image", inspection_id, "--link", "--json"]) == 0
    assert httpx.get(json.loads(capsysbinary.readouterr().out)["link"]).content == png(1)
    out = tmp_path / "part.png"
    assert run(["image", inspection_id, "--out", str(out), "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out) == {"out": str(out), "bytes": len(png(1))}
    assert out.read_bytes() == png(1)
    assert [path.name for path in tmp_path.glob("part*")] == ["part.png"]
    assert run(["image", inspection_id, "--out", "-"]) == 0
    assert capsysbinary.readouterr().out == png(1)


def test_the_command_says_that_there_are_no_links(
    settings: Settings, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_api(settings) as http, CLIENTS["sync"](str(http.base_url)) as lw:
        inspection_id = str(lw.submit(png(1), recipe="ring").id)
        assert run(["image", inspection_id, "--link", "--url", str(http.base_url)]) == 1
    assert "LINEWATCH_STORE_LINK_SECONDS" in capsys.readouterr().err
