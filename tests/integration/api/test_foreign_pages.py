"""Without API keys, no page of another origin reaches a route: not by a name of its own, and not by a form."""

from itertools import product

from api.access.authentication import PROBES
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.api_routes import ROUTES, address

FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost.",
    "127.0.0.2",
    "2130706433",
    "0x7f.0.0.1",
    "[::ffff:127.0.0.1]",
    "[",
    "",
]
FORMS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/plain"]
"""The content types that a form may have: a page may send them to another origin without being asked first."""
CROSS_SITE = [
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
]
CHANGES = [(method, path) for method, path in ROUTES if method != "GET"]


def test_no_route_answers_to_a_foreign_name(settings: Settings) -> None:
    with running_api(settings) as http:
        for method, path in ROUTES:
            answer = http.request(method, address(path), headers={"Host": "evil.example"})
            if path in PROBES:
                assert answer.status_code == 200, path
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin"), (method, path)
        for host in FOREIGN_HOSTS:
            assert http.get("/v1/recipes", headers={"Host": host}).status_code == 403, host
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"):
            assert http.get("/v1/recipes", headers={"Host": host}).status_code == 200, host


def test_no_form_of_another_page_changes_anything(settings: Settings) -> None:
    with running_api(settings) as http:
        for (method, path), content_type, headers in product(CHANGES, FORMS, CROSS_SITE):
            answer = http.request(
                method, address(path), content=b"a=b", headers={"Content-Type": content_type, **headers}
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin"), (method, path, headers)


def test_a_form_without_an_origin_cannot_send_json(settings: Settings) -> None:
    """Old browsers leave the origin out."""
    with running_api(settings) as http:
        described = http.get("/openapi.json").json()["paths"]
        takes_json = [
            (method.upper(), path)
            for path, item in described.items()
            for method, operation in item.items()
            if operation.get("requestBody", {}).get("content", {}).keys() == {"application/json"}
        ]
        assert ("POST", "/v1/recipes") in takes_json
        for method, path in takes_json:
            for content_type in FORMS:
                answer = http.request(
                    method, address(path), content=b'{"name": "evil"}', headers={"Content-Type": content_type}
                )
                assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type"), (method, path)
        assert http.get("/v1/recipes").json()["items"] == []


def test_the_page_of_the_api_itself_may_change_things(settings: Settings) -> None:
    with running_api(settings) as http:
        own = {"Origin": str(http.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        for method, path in CHANGES:
            assert http.request(method, address(path), headers=own).status_code not in (401, 403), (method, path)
