"""Verify the bundles of the active model versions in the store."""

import sys

from sqlalchemy import Connection, text

from core.settings import Settings
from core.storage.image_store import Store, StoreUnavailable, bundle_key
from core.storage.stores import open_store
from linewatch.server.doctor.findings import Finding, first_line

_ACTIVE = text("""
    SELECT recipes.name, model_versions.version, model_versions.sha256 FROM recipes
    JOIN model_versions ON model_versions.id = recipes.active_version_id
    WHERE recipes.state = 'active' ORDER BY recipes.name
""")


def check_models(settings: Settings, connection: Connection) -> list[Finding]:
    """Verify every checksum in the bundle of each active version. Reads each bundle once."""
    active = connection.execute(_ACTIVE).all()
    if not active:
        return [Finding("models", "note", "no recipe has an active model version", "train one, or import a bundle")]
    store = open_store(settings)
    remedy = "restore the file from a backup, or import the bundle again with `linewatch models import`"
    damaged = [
        Finding("models", "error", f"version {version} of {recipe}: {problem}", remedy)
        for recipe, version, sha256 in active
        if (problem := _problem_of(store, sha256)) is not None
    ]
    if damaged:
        return damaged
    return [Finding("models", "ok", f"{len(active)} active versions have the right checksums")]


def _problem_of(store: Store, sha256: bytes) -> str | None:
    from core.vision.bundle.manifest import MANIFEST, digest
    from core.vision.bundle.tar import unpack
    from core.vision.errors import InvalidBundle

    key = bundle_key(sha256)
    try:
        with store.local_file(key) as path, path.open("rb") as tar:
            files = unpack(tar, max_bytes=sys.maxsize)
    except FileNotFoundError:
        return f"{key} is missing in the store"
    except StoreUnavailable:
        raise
    except (InvalidBundle, OSError) as error:
        return f"{key} is damaged: {first_line(error)}"
    return None if digest(files[MANIFEST]) == sha256.hex() else f"{key} holds another bundle"
