"""The layout of the tests: helpers are in `tests/fixtures`, and a test is in the room of what it tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PRODUCT = ("api", "core", "linewatch", "worker")


def imported_names(file: Path) -> Iterator[str]:
    """Yield what a module imports; `from tests.unit import test_x` gives `tests.unit.test_x`."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_module_imports_a_test_module() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert Path(__file__) in files
    wrong = [
        f"{file.relative_to(TESTS)}: {name}"
        for file in files
        for name in imported_names(file)
        if name.startswith(("tests.", ".")) and any(part.startswith("test_") for part in name.split("."))
    ]
    assert wrong == []


def test_each_room_of_the_tests_is_a_room_of_the_product() -> None:
    rooms = {
        (package, file.parent.relative_to(TESTS / level / package))
        for level in ("unit", "integration", "system")
        for package in PRODUCT
        for file in (TESTS / level / package).rglob("test_*.py")
    }
    assert {package for package, _ in rooms} == set(PRODUCT)
    missing = [package / room for package, room in rooms if not (TESTS.parent / package / room).is_dir()]
    assert missing == []
