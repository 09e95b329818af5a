"""The Git repository of a release."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from release import ReleaseError
from release.versions import is_version


class Repository:
    """A repository, by its work tree."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def git(self, *arguments: str, root: Path | None = None) -> str:
        """Run Git and return what it prints.

        Raises:
            ReleaseError: it failed, or is missing.
        """
        try:
            completed = subprocess.run(
                ["git", *arguments], cwd=root or self.root, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ReleaseError("Git is missing: install it") from error
        if completed.returncode:
            reason = " ".join(completed.stderr.split())
            raise ReleaseError(f"git {arguments[0]} failed: {reason}")
        return completed.stdout.strip()

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    @property
    def branch(self) -> str | None:
        """The branch that is checked out, if one is."""
        return self.git("branch", "--show-current") or None

    def require_clean(self) -> None:
        """Check that the work tree is what is committed.

        Raises:
            ReleaseError: there are changes, or files that are neither committed nor ignored.
        """
        changes = self.git("status", "--porcelain").splitlines()
        if changes:
            raise ReleaseError(f"{len(changes)} files are not committed, such as {changes[0][3:]}: commit them first")

    def tags(self) -> list[str]:
        """Return the versions that have a tag."""
        names = self.git("tag", "--list", "v*").splitlines()
        return [name[1:] for name in names if is_version(name[1:])]

    def commit_of(self, revision: str) -> str:
        """Return the commit of a tag or another revision."""
        return self.git("rev-parse", f"{revision}^{{commit}}")

    def parents_of(self, revision: str) -> list[str]:
        """Return the commits that a commit follows."""
        return self.git("rev-list", "--parents", "--max-count=1", revision).split()[1:]

    @contextmanager
    def checkout(self, revision: str) -> Iterator[Path]:
        """Yield a work tree of its own, with nothing in it but what the revision holds."""
        with tempfile.TemporaryDirectory(prefix="linewatch-release-") as folder:
            path = Path(folder, "linewatch")
            self.git("worktree", "prune")  # of an interrupted release
            self.git("worktree", "add", "--quiet", "--detach", str(path), revision)
            try:
                yield path
            finally:
                self.git("worktree", "remove", "--force", str(path))
