"""Sources of re-scoring that lie in archives: found, and named in one way, before a run is made."""

from contextlib import suppress
from typing import TypeVar

from core.rescoring.requests import RunOptions
from core.storage import manifests
from core.storage.archives import Archives, ArchiveUnavailable

AnyAsked = TypeVar("AnyAsked", bound=RunOptions)


def check_source(request: AnyAsked, archives: Archives) -> AnyAsked:
    """The same request with the URL of its folder or manifest. It asks the disk or the S3 server, so it blocks.

    Raises:
        Refused: SOURCE_REFUSED for what lies outside every root, is not there, or is no manifest.
    """
    source = request.source
    if source.folder is not None:
        source = source.model_copy(update={"folder": archives.locate(source.folder).url})
    elif source.manifest is not None:
        place, name = archives.locate_file(source.manifest)
        with suppress(ArchiveUnavailable):  # reading it will show
            next(manifests.entries(place, name, None), None)  # its header is looked at, and its first line
        source = source.model_copy(update={"manifest": place.url_of(name)})
    return request.model_copy(update={"source": source})
