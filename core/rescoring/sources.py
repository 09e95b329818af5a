"""Sources of re-scoring in archives: checked, and resolved to URLs, before a run is created."""

from contextlib import suppress
from typing import TypeVar

from core.rescoring.requests import RunOptions
from core.storage import manifests
from core.storage.archive_roots import Archives, ArchiveUnavailable

RunOptionsT = TypeVar("RunOptionsT", bound=RunOptions)


def resolve_source(request: RunOptionsT, archives: Archives) -> RunOptionsT:
    """Return the request with the URL of its folder or manifest. Blocks while it asks the disk or the S3 server.

    Raises:
        Refused: SOURCE_REFUSED if the source is outside every root, does not exist, or is not a manifest.
    """
    source = request.source
    if source.folder is not None:
        source = source.model_copy(update={"folder": archives.locate(source.folder).url})
    elif source.manifest is not None:
        location, name = archives.locate_file(source.manifest)
        with suppress(ArchiveUnavailable):  # the run waits for its archive, and checks the manifest when it reads it
            next(manifests.entries(location, name, None), None)  # checks the header and the first line
        source = source.model_copy(update={"manifest": location.url_of(name)})
    return request.model_copy(update={"source": source})
