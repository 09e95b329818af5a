"""From the work on a branch to the tag of a release.

The release is committed in a work tree of its own, and first becomes visible with its tag. So an interruption leaves
either nothing, or a tag that the branch is moved to when the release is run again.
"""

import datetime as dt

from release import ReleaseError, changelog, versions
from release.repository import Repository


def tag_release(repository: Repository, version: str) -> bool:
    """Commit and tag the version, and move the branch to it.

    Returns:
        Whether it was tagged now; false if it had been.

    Raises:
        ReleaseError: the work tree has changes, the version is not newer than the last one, its tag is on other work,
            or the changelog has nothing new.
    """
    versions.parse(version)
    repository.require_clean()
    tag = f"v{version}"
    is_new = version not in repository.tags()
    if is_new:
        _require_newer(repository, version)
        _commit(repository, version)
    if repository.commit_of(tag) != repository.head:
        if repository.parents_of(tag) != [repository.head]:
            raise ReleaseError(
                f"the tag {tag} exists, on other work: git checkout {tag} to build it, or release a newer version"
            )
        repository.git("merge", "--ff-only", "--quiet", tag)
    written = versions.read(repository.root)
    if written != version:
        raise ReleaseError(f"the tag {tag} exists, on a commit with version {written}: release a newer version")
    return is_new


def _require_newer(repository: Repository, version: str) -> None:
    """Check that the version is newer than every one that is tagged, written in the files, or in the changelog."""
    written = versions.read(repository.root)
    former = {written, *changelog.versions((repository.root / "CHANGELOG.md").read_text()), *repository.tags()}
    last = max(former, key=versions.parse)
    if versions.parse(version) <= versions.parse(last):
        raise ReleaseError(f"{version} is not newer than {last}, the last version")


def _commit(repository: Repository, version: str) -> None:
    if repository.branch is None:
        raise ReleaseError("no branch is checked out: git switch main, or the branch to release from")
    with repository.checkout("HEAD") as folder:
        file = folder / "CHANGELOG.md"
        text = file.read_text()
        entries = changelog.unreleased(text)
        file.write_text(changelog.released(text, version, dt.datetime.now(dt.UTC).date()))
        names = versions.write(folder, version)
        # Hooks have checked what is released; they need the environment of the other work tree.
        repository.git(
            "commit", "--quiet", "--no-verify", "-m", f"Release {version}", "--", file.name, *names, root=folder
        )
        message = f"Linewatch {version}\n\n{entries}\n"
        # Lines of the changelog begin with #, which is not a comment here.
        repository.git("tag", "--annotate", "--cleanup=verbatim", "-m", message, f"v{version}", root=folder)
