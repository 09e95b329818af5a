"""The examples in the docstrings of the client, run against a running system, with both clients."""

import ast
import asyncio
import datetime as dt
import inspect
import io
import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from standardwebhooks import Webhook

import linewatch
from linewatch import AsyncClient, Client, verify_webhook
from linewatch.operations import Operations
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

DOCUMENTED = {"system": "http://127.0.0.1:8000", "receiver": "https://mes.plant.example/linewatch"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - used only in this example
NEED_ONE = """
    submit submit_batch submit_many inspection inspections export review part open_batch results acknowledge
    create_endpoint create_recipe model_version download_bundle activate preview_threshold rescore
"""


def example_of(documented: object) -> str | None:
    """Return the code below `Example:` in a docstring, or None."""
    match = re.search(r"^Example:\n((?:    .*\n|\n)+)", f"{inspect.getdoc(documented)}\n", re.MULTILINE)
    return textwrap.dedent(match[1]) if match else None


METHODS = {name: example for name, member in inspect.getmembers(Operations) if (example := example_of(member))}


class _AsyncTransformer(ast.NodeTransformer):
    """Converts code to an `AsyncClient`: awaits calls of `lw`, and iterates over its results asynchronously."""

    def visit_For(self, loop: ast.For) -> ast.AST:
        iterates = isinstance(loop.iter, ast.Call) and _operation(loop.iter) in _ITERATORS
        inside = loop.iter if iterates else None
        self.generic_visit(loop)
        if not iterates:
            return loop
        assert isinstance(inside, ast.Call)
        return ast.copy_location(ast.AsyncFor(loop.target, inside, loop.body, loop.orelse), loop)

    def visit_Call(self, call: ast.Call) -> ast.AST:
        self.generic_visit(call)
        operation = _operation(call)
        return ast.copy_location(ast.Await(call), call) if operation and operation not in _ITERATORS else call


_ITERATORS = {name for name, member in inspect.getmembers(Operations) if inspect.isasyncgenfunction(member)}


def _operation(call: ast.Call) -> str | None:
    of_lw = (
        isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) and call.func.value.id == "lw"
    )
    return call.func.attr if of_lw and isinstance(call.func, ast.Attribute) else None


@pytest.fixture(scope="module")
def ring(system: System, bundle: Path) -> str:
    """A recipe with a model and a result."""
    name = f"ring-{uuid4().hex[:8]}"
    with Client(system.url) as lw:
        lw.create_recipe(name)
        lw.upload_bundle(name, bundle)
        lw.activate(name, 1)
        lw.submit(png(1), recipe=name, wait=60)
    return name


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    (folder / "part.png").write_bytes(png(500))
    (folder / "scratched.png").write_bytes(png(501, scratched=True))
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def localised(example: str, system: System, ring: str) -> str:
    """Replace the URL, the recipe and the name of the schedule in an example."""
    code = example.replace(DOCUMENTED["system"], system.url).replace('"ring"', f'"{ring}"')
    code = code.replace('"nightly"', f'"nightly-{uuid4().hex[:8]}"')
    return code.replace(DOCUMENTED["receiver"], f"http://127.0.0.1:{system.webhook_port}/linewatch")


def printed(code: str | ast.Module, **names: Any) -> str:
    """Run code, which may use `await` at its top level, and return its output."""
    compiled = compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names |= {name: getattr(linewatch, name) for name in linewatch.__all__}
    out = io.StringIO()

    async def main() -> None:
        ends = eval(compiled, names)  # noqa: S307 - code of our own documentation
        if inspect.iscoroutine(ends):
            await ends

    with redirect_stdout(out):
        asyncio.run(main())
    return out.getvalue()


def test_the_main_operations_have_an_example() -> None:
    assert METHODS.keys() >= set(NEED_ONE.split())


@pytest.mark.parametrize("name", METHODS)
def test_an_example_runs_as_documented(name: str, system: System, ring: str, tmp_path: Path) -> None:
    with in_folder(tmp_path), Client(system.url) as lw:
        output = printed(localised(METHODS[name], system, ring), lw=lw)
    assert bool(output) == ("print(" in METHODS[name])


@pytest.mark.parametrize("name", METHODS)
def test_an_example_runs_with_the_async_client(name: str, system: System, ring: str, tmp_path: Path) -> None:
    tree = ast.fix_missing_locations(_AsyncTransformer().visit(ast.parse(localised(METHODS[name], system, ring))))
    begin = ast.parse("async with AsyncClient(url) as lw:\n    pass").body[0]
    assert isinstance(begin, ast.AsyncWith)
    begin.body = tree.body
    with in_folder(tmp_path):
        output = printed(ast.fix_missing_locations(ast.Module([begin], [])), url=system.url)
    assert bool(output) == ("print(" in METHODS[name])


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_example_of_a_client_runs(kind: type, system: System, ring: str, tmp_path: Path) -> None:
    example = example_of(kind)
    assert example is not None
    with in_folder(tmp_path):
        output = printed(localised(example, system, ring))
    assert output.split()[1] in ("ok", "ng")


def test_the_example_of_a_receiver_runs() -> None:
    example = example_of(verify_webhook)
    assert example is not None
    body = '{"type": "endpoint.test", "timestamp": "2026-01-01T00:00:00Z", "data": {}}'
    now = dt.datetime.now(dt.UTC)
    signature = Webhook(SECRET).sign("msg_1", now, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    assert printed(example, body=body.encode(), headers=headers, secret=SECRET) == "msg_1 endpoint.test {}\n"
