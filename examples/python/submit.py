"""Submit one image and print its verdict. Needs Python 3.9 and nothing else.

Usage: submit.py IMAGE RECIPE PART_ID     (LINEWATCH_URL, LINEWATCH_API_KEY)
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

URL = os.environ.get("LINEWATCH_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("LINEWATCH_API_KEY")
TRIES = 10


def main() -> None:
    """Submit, wait, print."""
    image, recipe, part_id = sys.argv[1:]
    query = urlencode({"recipe": recipe, "part_id": part_id})
    headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": str(uuid.uuid4())}
    accepted = send(Request(f"{URL}/v1/inspections?{query}", Path(image).read_bytes(), headers))  # noqa: S310
    result = send(Request(f"{URL}/v1/inspections/{accepted['id']}?wait=60"))  # noqa: S310
    print(result["effective_verdict"])


def send(request: Request) -> dict[str, Any]:
    """Send a request until there is an answer. The key is the same for every try, so nothing is accepted twice."""
    if API_KEY:
        request.add_header("Authorization", f"Bearer {API_KEY}")
    for attempt in range(TRIES):
        pause = min(2**attempt, 30)
        try:
            with urlopen(request, timeout=90) as answer:  # noqa: S310
                document: dict[str, Any] = json.load(answer)
                return document
        except HTTPError as error:
            if "Retry-After" not in error.headers and error.code not in (408, 502, 504):
                sys.exit(f"refused: {error.read().decode()}")
            pause = int(error.headers.get("Retry-After", pause))
        except OSError as error:
            print(f"no answer, trying again: {error}", file=sys.stderr)
        time.sleep(pause)
    sys.exit("no answer")


if __name__ == "__main__":
    main()
