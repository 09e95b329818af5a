"""Protection from other web pages, which a browser lets send requests to this api."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from core.errors import Code, Refused
from core.settings import LOOPBACK_HOSTS


def check_loopback_host(headers: Headers) -> None:
    """Check that a request without keys is for a loopback name: with DNS rebinding, any page could send it.

    Raises:
        Refused: FOREIGN_ORIGIN.
    """
    if _host_name(headers.get("host", "")) not in LOOPBACK_HOSTS:
        raise Refused(Code.FOREIGN_ORIGIN, "Without API keys, use localhost, 127.0.0.1 or [::1].")


def check_same_origin(headers: Headers) -> None:
    """Check that a request with an unsafe method is not from a page of another origin.

    Browsers send `Sec-Fetch-Site` over HTTPS and to loopback addresses, and no page can change it. Otherwise the origin
    is compared with the host; a proxy must pass on the `Host` header.

    Raises:
        Refused: FOREIGN_ORIGIN.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site == "same-origin":
        return
    is_foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
    if is_foreign or site in ("cross-site", "same-site"):
        raise Refused(Code.FOREIGN_ORIGIN, "Requests from another web page may not change anything.")


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
