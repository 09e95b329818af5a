"""Manifests: every line becomes an item or a failure, and reading resumes from any position."""

import csv
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Code, Refused
from core.rescoring.requests import RunRequest
from core.rescoring.sources import resolve_source
from core.storage.archive_folders import Folder
from core.storage.archive_roots import Archives
from core.storage.manifests import LINE_BYTES, Entry, entries


def entries_of(folder: Path, name: str, content: str | bytes) -> list[Entry]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(entries(Folder(folder), name, None))


def items_of(folder: Path, name: str, content: str | bytes) -> list[dict[str, Any]]:
    return [entry.item for entry in entries_of(folder, name, content)]


def failure_detail(item: dict[str, Any]) -> str:
    code, detail = item["failure"]
    assert code == "manifest_line_invalid"
    return str(detail)


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(Refused) as caught:
        items_of(folder, name, content)
    assert caught.value.code is Code.SOURCE_REFUSED
    return caught.value.detail


def assert_reading_resumes_anywhere(folder: Path, name: str) -> None:
    location = Folder(folder)
    all_entries = list(entries(location, name, None))
    for at, entry in enumerate(all_entries):
        position = json.loads(json.dumps(entry.position))
        assert list(entries(location, name, position)) == all_entries[at + 1 :]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "A.JSONL"])
def test_json_lines_become_items(tmp_path: Path, name: str) -> None:
    line: dict[str, Any] = {
        "path": "a/1.png",
        "external_id": "e",
        "part_id": "p",
        "lot_id": "l",
        "line_id": None,
        "shift": 2,
    }
    line |= {"station_id": "s", "captured_at": "2026-05-04T10:00:00+02:00", "metadata": {"cavity": 3}}
    assert items_of(tmp_path, name, f'\ufeff{json.dumps(line)}\r\n\n{{"path": "../x.png"}}') == [
        {
            "path": "a/1.png",
            "external_id": "e",
            "part_id": "p",
            "lot_id": "l",
            "station_id": "s",
            "captured_at": "2026-05-04T10:00:00+02:00",
            "metadata": {"cavity": 3, "shift": 2},
        },
        {"path": "../x.png"},
    ]


def test_csv_rows_become_items(tmp_path: Path) -> None:
    rows = '\ufeffpath,part_id,metadata,operator\r\n"a,1.png",SN-1,"{""cavity"": 3}","two\r\nlines"\r\n\r\nb.png,,,\r\n'
    assert items_of(tmp_path, "a.csv", rows) == [
        {"path": "a,1.png", "part_id": "SN-1", "metadata": {"cavity": 3, "operator": "two\r\nlines"}},
        {"path": "b.png"},
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "path: Field required"),
        ('{"path": 7}', "path: "),
        ('{"path": ""}', "path: "),
        ('{"path": "x\\u0000.png"}', "U+0000"),
        ('{"path": "x\\ud800.png"}', "surrogates"),
        ('{"path": "x.png", "part_id": "%s"}' % ("x" * 201), "part_id: "),
        ('{"path": "x.png", "captured_at": "yesterday"}', "captured_at: "),
        ('{"path": "x.png", "captured_at": "2026-05-04T10:00:00"}', "captured_at: "),
        ('{"path": "x.png", "captured_at": "3026-05-04T10:00:00Z"}', "captured_at: "),
        ('{"path": "x.png", "metadata": []}', "metadata: "),
        ('{"path": "x.png", "metadata": {"a": NaN}}', "not JSON compliant"),
        ('{"path": "x.png", "more": "%s"}' % ("x" * 17_000), "metadata: "),
        ('{"path": "%s"}' % ("x" * LINE_BYTES), "longer than 65536 bytes"),
        ("[" * 60_000, "nested too deeply"),
    ],
)
def test_an_invalid_json_line_does_not_affect_the_others(tmp_path: Path, line: str, reason: str) -> None:
    items = items_of(tmp_path, "a.jsonl", f'{{"path": "1.png"}}\n{line}\n{{"path": "3.png"}}\n')
    assert [items[0], items[2]] == [{"path": "1.png"}, {"path": "3.png"}]
    assert failure_detail(items[1]).startswith("line 2: ")
    assert reason in failure_detail(items[1])
    assert_reading_resumes_anywhere(tmp_path, "a.jsonl")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2.png,a,b", "has 3 values"),
        ("2.png", "has 1 values"),
        (",a", "path: "),
        ('2.png,"a"b', "line 3: "),
        ('2.png,"open', "line 3: "),
        ("2.png," + "x" * LINE_BYTES, "longer than 65536 bytes"),
        ("2.png," + "x" * 201, "part_id: "),
    ],
)
def test_an_invalid_csv_row_does_not_affect_the_others(tmp_path: Path, row: str, reason: str) -> None:
    many = "".join(f"{number}.png,p\n" for number in range(8000))  # more than the longest row
    items = items_of(tmp_path, "a.csv", f"path,part_id\n1.png,\n{row}\n{many}")
    assert items[0] == {"path": "1.png"}
    assert items[2:] == [{"path": f"{number}.png", "part_id": "p"} for number in range(8000)]
    assert reason in failure_detail(items[1])


def test_a_quote_open_to_the_end_of_the_file_invalidates_only_its_line(tmp_path: Path) -> None:
    items = items_of(tmp_path, "a.csv", 'path\n"1.png\n2.png\n3.png')
    assert "line 2: " in failure_detail(items[0])
    assert items[1:] == [{"path": "2.png"}, {"path": "3.png"}]
    assert_reading_resumes_anywhere(tmp_path, "a.csv")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_that_is_not_utf_8_does_not_affect_the_others(tmp_path: Path, name: str) -> None:
    first, last = (b"path", b"1.png") if name == "a.csv" else (b"", b'{"path": "1.png"}')
    items = items_of(tmp_path, name, b"\n".join([first, b"\xff\xfe", last]))
    assert failure_detail(items[0]) == "line 2: is not UTF-8"
    assert items[1:] == [{"path": "1.png"}]


@pytest.mark.parametrize("header", ["", "name,part_id\n", "path,path\n", "path;part_id\n", '"path\n', "x" * 70_000])
def test_an_invalid_csv_header_is_refused(tmp_path: Path, header: str) -> None:
    assert "header of a.csv" in refusal(tmp_path, "a.csv", header)


def test_a_missing_file_or_other_suffix_is_refused(tmp_path: Path) -> None:
    assert ".csv" in refusal(tmp_path, "a.xlsx", "")
    with pytest.raises(Refused, match="The file does not exist"):
        list(entries(Folder(tmp_path), "b.csv", None))


def test_a_manifest_that_changed_between_reads_is_refused(tmp_path: Path) -> None:
    whole = entries_of(tmp_path, "a.jsonl", '{"path": "1.png"}\n{"path": "2.png"}\n')
    for content in ('{"path": "100.png"}\n{"path": "2.png"}\n', ""):
        (tmp_path / "a.jsonl").write_text(content)
        with pytest.raises(Refused, match="has changed"):
            list(entries(Folder(tmp_path), "a.jsonl", whole[0].position))


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
_INVALID = st.sampled_from(["", '"', "x", "x,"])
_ROWS = st.lists(st.fixed_dictionaries({"path": _TEXT, "part_id": _TEXT, "note": _TEXT}), max_size=12)


@given(rows=_ROWS, ends=st.sampled_from(["\n", "\r\n"]), mark=st.booleans(), invalid=_INVALID)
def test_csv_rows_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], ends: str, mark: bool, invalid: str
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["path", "part_id", "note"], lineterminator=ends, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        text.write(invalid and invalid + ends)
    content = ("\ufeff" if mark else "") + text.getvalue()
    if invalid == '"':  # lines after an open quote are ambiguous, but must be read the same way each time
        entries_of(folder, "a.csv", content)
    else:
        items = items_of(folder, "a.csv", content)
        read = [item for item in items if not item.get("failure", ["", "has 1 has 2"])[1].count("values, but")]
        for row, item in zip(rows, read, strict=True):
            if row["path"]:
                metadata = {"metadata": {"note": row["note"]}} if row["note"] else {}
                part = {"part_id": row["part_id"]} if row["part_id"] else {}
                assert item == {"path": row["path"], **part, **metadata}
    assert_reading_resumes_anywhere(folder, "a.csv")


@given(content=st.binary(max_size=200) | st.text(st.sampled_from('{}":, \n\\path1'), max_size=60).map(str.encode))
def test_any_content_becomes_items_that_can_be_stored(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    for name, start in (("a.jsonl", b""), ("a.csv", b"path,x\n")):
        for entry in entries_of(folder, name, start + content):
            text = json.dumps(entry.item, allow_nan=False, ensure_ascii=False)
            assert text.encode()
            assert "\\u0000" not in text
        assert_reading_resumes_anywhere(folder, name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_memory_does_not_grow_with_the_manifest(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("w") as file:
        file.write("path\n" if name == "a.csv" else "")
        for number in range(20_000):
            file.write(f"{number}.png\n" if name == "a.csv" else f'{{"path": "{number}.png"}}\n')
        file.write("x" * 20_000_000 + "\n")
    tracemalloc.start()
    try:
        assert sum(1 for _ in entries(Folder(tmp_path), name, None)) == 20_001
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_run_stores_the_url_of_its_source(tmp_path: Path) -> None:
    (tmp_path / "lot").mkdir()
    (tmp_path / "lot/list 1.csv").write_text("path\n1.png\n")
    (tmp_path / "lot/bad.csv").write_text("name\n")
    archives = Archives([str(tmp_path)])

    def source(**fields: Any) -> dict[str, Any]:
        request = RunRequest.model_validate({"recipe": "ring", "model_version": 1, "source": fields})
        return resolve_source(request, archives).source.model_dump(exclude_none=True)

    assert source(folder="lot") == {"folder": (tmp_path / "lot").as_uri()}
    assert source(manifest="lot/list 1.csv") == {"manifest": (tmp_path / "lot/list 1.csv").as_uri()}
    assert source(where={"lot_id": "L-1"}) == {"where": {"lot_id": "L-1"}}
    for invalid in ({"folder": "/etc"}, {"manifest": "lot"}, {"manifest": "lot/bad.csv"}, {"manifest": "../x.csv"}):
        with pytest.raises(Refused) as caught:
            source(**invalid)
        assert caught.value.code is Code.SOURCE_REFUSED
