"""`view=opcua` over HTTP."""

from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.inserted_inspections import insert_inspections


def test_the_listing_uses_the_opc_ua_vocabulary(settings: Settings, engine: Engine) -> None:
    insert_inspections(engine, 5)
    with running_api(settings) as http:
        plain = http.get("/v1/inspections", params={"limit": 3}).json()
        page = http.get("/v1/inspections", params={"limit": 3, "view": "opcua"}).json()
        assert page["next_cursor"] == plain["next_cursor"]
        assert [result["ResultContent"] for result in page["items"]] == [[result] for result in plain["items"]]
        evaluations = [result["ResultEvaluation"] for result in page["items"]]
        assert evaluations == ["NotOK", "NotOK", "OK"]  # the third was `review`, then overruled
        assert "ProductId" not in page["items"][0]
        [newest, *_] = page["items"]
        result = http.get(f"/v1/inspections/{newest['ResultId']['Id']}", params={"view": "opcua", "wait": 1}).json()
        assert result == newest
        assert http.get("/v1/inspections", params={"view": "sap"}).status_code == 422
