"""Store a bundle and register it as a model version: the same for uploads and for trainings in a worker."""

import logging
from dataclasses import dataclass

from sqlalchemy import Connection

from core.errors import Code, Refused
from core.models import model_versions
from core.models.model_versions import ModelVersion
from core.storage.image_store import Staged, Store, StoreUnavailable, bundle_key
from core.vision.bundle.held_out_scores import read_held_out_scores
from core.vision.bundle.manifest import MANIFEST, Manifest, digest, verify_bundle
from core.vision.bundle.tar import unpack
from core.vision.errors import InvalidBundle

log = logging.getLogger(__name__)


def size_of(store: Store, sha256: bytes) -> int | None:
    """The size of a stored bundle in bytes; None if the store has none, or cannot say while it is unavailable."""
    try:
        return store.size(bundle_key(sha256))
    except StoreUnavailable as error:
        log.warning("the size of a bundle is unknown for now: %s", error)
        return None


@dataclass(frozen=True)
class VerifiedBundle:
    """A staged tar of a valid bundle.

    Attributes:
        sha256: the digest of the manifest, which identifies the bundle.
        held_out_scores: of the good parts of its calibration, ascending; None if the bundle does not have them.
    """

    staged: Staged
    manifest: Manifest
    sha256: bytes
    held_out_scores: list[float] | None

    def publish(self, store: Store) -> None:
        """Move the tar to its key, durably."""
        store.publish([(self.staged, bundle_key(self.sha256))])

    def register(self, connection: Connection, recipe: str, *, actor: str) -> tuple[ModelVersion, bool]:
        """Register the published bundle; see `core.models.model_versions.register`."""
        return model_versions.register(
            connection,
            recipe,
            sha256=self.sha256,
            manifest=self.manifest.model_dump(mode="json"),
            actor=actor,
            held_out_scores=self.held_out_scores,
        )


def verify(staged: Staged, *, max_bytes: int) -> VerifiedBundle:
    """Verify a flushed tar of a bundle.

    Raises:
        Refused: INVALID_BUNDLE.
    """
    staged.file.seek(0)
    try:
        files = unpack(staged.file, max_bytes=max_bytes)
        manifest = verify_bundle(files)
        sha256 = bytes.fromhex(digest(files[MANIFEST]))
        return VerifiedBundle(staged, manifest, sha256, read_held_out_scores(files, manifest))
    except InvalidBundle as error:
        raise Refused(Code.INVALID_BUNDLE, f"Invalid bundle: {error}.") from error
