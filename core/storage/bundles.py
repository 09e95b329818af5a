"""Store a bundle and register it as a model version: the same for uploads and for trainings in a worker."""

from dataclasses import dataclass

from sqlalchemy import Connection

from core.errors import Code, Refused
from core.models import model_versions
from core.models.model_versions import ModelVersion
from core.storage.image_store import Staged, Store, bundle_key
from core.vision.bundle.manifest import MANIFEST, Manifest, digest, verify_bundle
from core.vision.bundle.tar import unpack
from core.vision.errors import InvalidBundle


@dataclass(frozen=True)
class VerifiedBundle:
    """A staged tar of a valid bundle.

    Attributes:
        sha256: the digest of the manifest, which identifies the bundle.
    """

    staged: Staged
    manifest: Manifest
    sha256: bytes

    def publish(self, store: Store) -> None:
        """Move the tar to its key, durably."""
        store.publish([(self.staged, bundle_key(self.sha256))])

    def register(self, connection: Connection, recipe: str, *, actor: str) -> tuple[ModelVersion, bool]:
        """Register the published bundle; see `core.models.model_versions.register`."""
        return model_versions.register(
            connection, recipe, sha256=self.sha256, manifest=self.manifest.model_dump(mode="json"), actor=actor
        )


def verify(staged: Staged, *, max_bytes: int) -> VerifiedBundle:
    """Verify a flushed tar of a bundle.

    Raises:
        Refused: INVALID_BUNDLE.
    """
    staged.file.seek(0)
    try:
        files = unpack(staged.file, max_bytes=max_bytes)
        return VerifiedBundle(staged, verify_bundle(files), bytes.fromhex(digest(files[MANIFEST])))
    except InvalidBundle as error:
        raise Refused(Code.INVALID_BUNDLE, f"Invalid bundle: {error}.") from error
