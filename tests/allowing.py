"""Who may be called, for the tests that ask it."""

import socket
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from core.delivery import allowed_targets
from core.delivery.allowed_targets import AllowList, TargetRefused
from core.errors import Code
from core.settings import Settings

EVERYTHING = "0.0.0.0/0, ::/0, *.example, mes.plant.example"
Names = Callable[..., None]


def allowing(entries: str, **own: str) -> AllowList:
    secret = {name: SecretStr(value) for name, value in own.items()}
    elsewhere = {"database_url": SecretStr("postgresql+psycopg:///x"), "redis_url": SecretStr("unix:///x")}
    return AllowList.of(Settings(webhook_allow=entries, **{**elsewhere, **secret}))  # type: ignore[arg-type]


def refusal(allowed: AllowList, url: str) -> str:
    with pytest.raises(TargetRefused) as refused:
        allowed.resolve(url)
    assert refused.value.code is Code.WEBHOOK_TARGET_REFUSED
    return refused.value.detail


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Sets what names mean from now on; any other name means nothing."""

    def set_names(**meanings: list[str]) -> None:
        def look_up(host: str, _: int) -> list[str]:
            try:
                return meanings[host.replace(".", "_")]
            except KeyError:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None

        monkeypatch.setattr(allowed_targets, "addresses_of", look_up)

    return set_names
