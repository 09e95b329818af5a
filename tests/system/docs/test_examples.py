"""The examples for clients work as they stand, and those whose language is not here have a valid syntax."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
import tree_sitter_c_sharp
import tree_sitter_powershell
from playwright._impl._driver import compute_driver_executable
from tree_sitter import Language, Parser

from api.app import create_app
from core.settings import Settings
from tests.fixtures.documentation import ROOT
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

EXAMPLES = ROOT / "examples"
VERDICTS = ("ok", "ng", "review")
PART = "SN 4711/ä&b"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "part ä.png"
    path.write_bytes(png(1))
    return path


def run(command: list[str], system: System) -> str:
    environment = {**os.environ, "LINEWATCH_URL": system.url}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


def assert_inspected_once(client: httpx.Client, recipe: str, verdict: str) -> None:
    [inspection] = client.get("/v1/inspections", params={"recipe": recipe}).json()["items"]
    assert inspection["part_id"] == PART
    assert inspection["effective_verdict"] == verdict
    assert verdict in VERDICTS


def test_the_example_for_python(system: System, client: httpx.Client, recipe: str, image: Path) -> None:
    script = EXAMPLES / "python" / "submit.py"
    verdict = run([sys.executable, "-I", str(script), str(image), recipe, PART], system)
    assert_inspected_once(client, recipe, verdict)
    refused = subprocess.run(
        [sys.executable, "-I", script, image, "no such recipe", PART],
        env={**os.environ, "LINEWATCH_URL": system.url},
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1
    assert "invalid_field" in refused.stderr


def test_the_example_for_curl(system: System, client: httpx.Client, recipe: str, image: Path) -> None:
    script = EXAMPLES / "curl" / "submit.sh"
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("curl") is None:
        return  # as for languages that are not here
    verdict = run([str(script), str(image), recipe, PART], system)
    assert_inspected_once(client, recipe, verdict)
    [inspection] = client.get("/v1/inspections", params={"recipe": recipe}).json()["items"]
    assert inspection["external_id"] == image.name


def exchange(url: str, request: bytes) -> tuple[int, dict[str, Any]]:
    """Write a request and read until the connection is closed, as with a plain socket."""
    address = urlsplit(url)
    received = b""
    with socket.create_connection((address.hostname, address.port or 80), timeout=70) as connection:
        connection.sendall(request)
        while chunk := connection.recv(4096):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


def filled(name: str, **values: str | int) -> bytes:
    text = (EXAMPLES / "raw-http" / name).read_text()
    assert text.endswith("\n\n")
    for field, value in values.items():
        assert f"{{{field}}}" in text
        text = text.replace(f"{{{field}}}", str(value))
    assert "{" not in text
    return text.replace("\n", "\r\n").encode("ascii")


def test_the_example_for_a_socket(system: System, client: httpx.Client, recipe: str) -> None:
    host, content = urlsplit(system.url).netloc, png(1)
    head = filled("request.txt", host=host, recipe=recipe, part_id=quote(PART, safe=""), key="one", length=len(content))
    status, accepted = exchange(system.url, head + content)
    assert status == 202, accepted
    status, again = exchange(system.url, head + content)
    assert again == accepted
    status, result = exchange(system.url, filled("result.txt", host=host, id=accepted["id"]))
    assert status == 200
    assert_inspected_once(client, recipe, result["effective_verdict"])


class Flow:
    """Runs a flow of Node-RED: function nodes in Node.js, requests by httpx; the others do what their types say."""

    HARNESS = """
        const [code, url, message] = JSON.parse(require("fs").readFileSync(0, "utf8"));
        if (message.payload?.base64) message.payload = Buffer.from(message.payload.base64, "base64");
        if (message.image?.base64) message.image = Buffer.from(message.image.base64, "base64");
        const env = { get: (name) => (name === "LINEWATCH_URL" ? url : undefined) };
        const result = new Function("msg", "env", code)(message, env);
        const text = (key, value) => (value?.type === "Buffer" && Array.isArray(value.data)
            ? { base64: Buffer.from(value.data).toString("base64") } : value);
        process.stdout.write(JSON.stringify(Array.isArray(result) ? result : [result], text));
    """

    def __init__(self, path: Path, system: System) -> None:
        self.nodes = {node["id"]: node for node in json.loads(path.read_text())}
        self.visited: list[str] = []
        self._url = system.url
        self._node = compute_driver_executable()[0]

    def run(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message from the inject node to a debug node, and return it there."""
        [current] = [node for node in self.nodes.values() if node["type"] == "inject"]
        while current["wires"]:
            outputs = self._outputs(current, message)
            [(target, message)] = [
                (self.nodes[wires[0]], sent) for wires, sent in zip(current["wires"], outputs, strict=True) if sent
            ]
            self.visited.append(current["id"])
            current = target
        return message

    def _outputs(self, node: dict[str, Any], message: dict[str, Any]) -> list[dict[str, Any] | None]:
        if node["type"] == "function":
            sent = json.dumps([node["func"], self._url, message])
            completed = subprocess.run(
                [self._node, "-e", self.HARNESS], input=sent, capture_output=True, text=True, check=True, timeout=60
            )
            outputs: list[dict[str, Any] | None] = json.loads(completed.stdout)
            return outputs
        if node["type"] == "http request":
            return [self._request(message)]
        if node["type"] == "file in":
            content = Path(message[node["filename"]]).read_bytes()
            return [{**message, "payload": {"base64": b64encode(content).decode()}}]
        assert node["type"] in ("inject", "delay"), node["type"]
        return [message]

    def _request(self, message: dict[str, Any]) -> dict[str, Any]:
        payload = message["payload"]
        content = b64decode(payload["base64"]) if isinstance(payload, dict) else payload.encode()
        answer = httpx.request(
            message["method"], message["url"], content=content, headers=message["headers"], timeout=70
        )
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return {**message, "statusCode": answer.status_code, "headers": headers, "payload": answer.json()}


def test_the_flow_for_node_red(system: System, client: httpx.Client, recipe: str, image: Path) -> None:
    flow = Flow(EXAMPLES / "node-red" / "flow.json", system)
    tab, *nodes = flow.nodes.values()
    assert {node["z"] for node in nodes} == {tab["id"]}
    targets = {target for node in nodes for wires in node["wires"] for target in wires}
    assert targets <= flow.nodes.keys()
    [inject] = [node for node in nodes if node["type"] == "inject"]
    assert targets == {node["id"] for node in nodes} - {inject["id"]}
    message = {"filename": str(image), "recipe": recipe, "part_id": PART, "lot_id": ""}
    assert message.keys() == {prop["p"] for prop in inject["props"]}

    shown = flow.run(message)
    assert flow.visited[-1] == "lw-verdict"
    assert_inspected_once(client, recipe, shown["payload"])
    refused = flow.run({**message, "recipe": "none"})
    assert (refused["statusCode"], refused["payload"]["code"]) == (404, "recipe_unknown")


def test_the_flow_for_node_red_retries(system: System) -> None:
    flow = Flow(EXAMPLES / "node-red" / "flow.json", system)
    for status, headers, delay in ((503, {"retry-after": "7"}, 7000), (429, {}, 5000), ("ECONNREFUSED", None, 5000)):
        message = {"statusCode": status, "headers": headers, "payload": {}, "root": system.url, "authorization": {}}
        accepted, later, refused = flow._outputs(flow.nodes["lw-accepted"], message)
        assert (accepted, refused) == (None, None)
        assert later is not None
        assert later["delay"] == delay
    assert flow.nodes["lw-accepted"]["wires"][1] == ["lw-later"]


@pytest.mark.parametrize(
    ("example", "language"),
    [
        ("csharp/Program.cs", tree_sitter_c_sharp.language()),
        ("powershell/Submit-Image.ps1", tree_sitter_powershell.language()),
    ],
)
def test_the_syntax_and_the_addresses_of_the_other_examples(example: str, language: object) -> None:
    source = (EXAMPLES / example).read_bytes()
    tree = Parser(Language(language)).parse(source)
    assert not tree.root_node.has_error, str(tree.root_node)
    text = source.decode()
    paths = create_app(Settings()).openapi()["paths"]
    used = set(re.findall(r"/v1/[a-z-]+", text))
    assert used == {"/v1/inspections"} <= paths.keys()
    fields = {parameter["name"] for parameter in paths["/v1/inspections"]["post"]["parameters"]}
    assert set(re.findall(r"\b(recipe|part_id)\b", text)) <= fields
    for name in ("Idempotency-Key", "LINEWATCH_URL", "LINEWATCH_API_KEY", "effective_verdict"):
        assert name in text
