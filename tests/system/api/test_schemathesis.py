"""Requests that schemathesis generates from the OpenAPI document: no 5xx, and no answer that is not documented."""

import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy import Engine

from core.access import keys
from core.settings import Settings
from tests.fixtures.api_process import running_api

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
)
# Left out: positive_data_acceptance, because a schema cannot say that two fields exclude each other, or that a URL is
# allowed; and use_after_free and the like, which need links between operations.
EXAMPLES = 8


def test_the_document_is_true(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        secret = keys.create(connection, "schemathesis", ["admin"], actor="tests")[1]
    config = tmp_path / "schemathesis.toml"
    config.write_text('[parameters]\n"query.wait" = 0\n')
    with running_api(settings, LINEWATCH_AUTH="on") as client:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
        command += [str(client.base_url.join("/openapi.json")), "--header", f"Authorization: Bearer {secret}"]
        command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--no-color"]
        command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--suppress-health-check", "all"]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.fixtures.schemathesis_hooks"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    print(done.stdout[done.stdout.index("SUMMARY") :])
