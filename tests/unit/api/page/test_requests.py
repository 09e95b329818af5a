"""The page uses only the public API, loads nothing from elsewhere, and imports downward."""

import re

from api.app import create_app
from api.routes.page import FOLDER

_VALUE = "{}"


def test_every_address_in_the_page_is_one_of_the_openapi_document() -> None:
    public = {re.sub(r"\{\w+\}", _VALUE, path) for path in create_app().openapi()["paths"]}
    addresses = set()
    for path in sorted((FOLDER / "app").rglob("*.js")):
        for _, address in re.findall(r"([\"`])(/v1/[^\"`]*)\1", path.read_text()):
            addresses.add(re.sub(r"\$\{[^}]*\}", _VALUE, address).partition("?")[0])
    assert len(addresses) > 20
    assert [address for address in addresses if not any(_fits(address, known) for known in public)] == []


def _fits(address: str, known: str) -> bool:
    """Whether an address is one of a path's; a value of the page may stand for a fixed part, such as an action."""
    parts = address.split("/"), known.split("/")
    return len(parts[0]) == len(parts[1]) and all(one in (other, _VALUE) for one, other in zip(*parts, strict=True))


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in FOLDER.rglob("*"):
        if path.suffix in {".js", ".css", ".html"} and "vendor" not in path.parts:
            assert re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}/?", path.read_text()) == [], path


def test_imports_run_downward() -> None:
    """Views use components, and both use what lies beside them in `app`; never the other way round."""
    for path in sorted((FOLDER / "app").rglob("*.js")):
        imported = re.findall(r"from \"([^\"]+)\"", path.read_text())
        if path.parent.name == "components":
            assert not [name for name in imported if "views/" in name], path
        if path.parent.name == "app" and path.name != "main.js":
            assert not [name for name in imported if "views/" in name or "components/" in name], path
