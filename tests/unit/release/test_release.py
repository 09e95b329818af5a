"""`make release` in a real Git repository, with real wheels."""

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from release import versions
from release.__main__ import main

ROOT = Path(__file__).parents[3]
CODE = ("api", "core", "migrations", "worker", "linewatch")
FILES = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "deploy/helm/linewatch/Chart.yaml")
CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Fixed\n- A fault.\n\n## 0.1.0\n\n- All.\n"
BUILT = [
    "SHA256SUMS",
    "linewatch-7.8.9-py3-none-any.whl",
    "linewatch-7.8.9.tar.gz",
    "linewatch_client-7.8.9-py3-none-any.whl",
    "linewatch_client-7.8.9.tar.gz",
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Run":
    monkeypatch.setenv("PATH", str(_programs(tmp_path / "bin")))
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Release test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "release@plant.example")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    return Run(_repository(tmp_path / "repository"), tmp_path / "bin", capsys)


def _programs(folder: Path) -> Path:
    """Create a folder for PATH that has Git, and no Docker."""
    folder.mkdir()
    git = shutil.which("git")
    assert git is not None
    (folder / "git").symlink_to(git)
    return folder


def _repository(root: Path) -> Path:
    """Create a repository with what a release needs of this one."""
    for name in CODE:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "CHANGELOG.md").write_text(CHANGELOG)
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root)
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Work")


class Run:
    """Runs releases of a repository."""

    def __init__(self, root: Path, programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.programs = root, programs
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code and everything that is printed."""
        code = main(arguments, self.root)
        printed = self._capsys.readouterr()
        return code, printed.out + printed.err

    def built(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.root / "dist/7.8.9").iterdir())}


def test_a_release_is_committed_tagged_and_built(run: Run) -> None:
    code, printed = run("7.8.9")
    assert code == 0, printed
    assert git(run.root, "log", "-1", "--format=%s|%D") == "Release 7.8.9|HEAD -> main, tag: v7.8.9"
    assert git(run.root, "cat-file", "-t", "v7.8.9") == "tag"
    assert (
        git(run.root, "tag", "--list", "--format=%(contents)", "v7.8.9") == "Linewatch 7.8.9\n\n### Fixed\n- A fault."
    )
    assert git(run.root, "status", "--porcelain") == ""
    assert git(run.root, "worktree", "list").count("\n") == 0
    assert versions.read(run.root) == "7.8.9"
    assert (run.root / "CHANGELOG.md").read_text().count("## Unreleased\n\n## 7.8.9 (") == 1

    files = run.built()
    assert list(files) == BUILT
    lines = [line.split("  ") for line in files.pop("SHA256SUMS").decode().splitlines()]
    sums = {name: digest for digest, name in lines}
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    metadata = zipfile.ZipFile(run.root / "dist/7.8.9" / BUILT[1]).read("linewatch-7.8.9.dist-info/METADATA").decode()
    assert "\nVersion: 7.8.9\n" in metadata
    assert "\nRequires-Dist: linewatch-client==7.8.9\n" in metadata
    assert "no Docker engine answers, so these images were left out: api, worker-cpu." in printed
    assert "git push --atomic origin main v7.8.9" in printed


def test_a_release_that_is_run_again_builds_the_same_bytes_and_images(run: Run) -> None:
    """Also if it was interrupted after the tag, and whatever else is in the work tree."""
    assert run("7.8.9")[0] == 0
    files = run.built()
    git(run.root, "reset", "--quiet", "--hard", "HEAD~")  # the branch was not moved yet
    (run.root / "dist/7.8.9").rename(run.root / "dist/7.8.9.building")  # nor were all files built
    (run.root / "core/__pycache__").mkdir()
    (run.root / "core/__pycache__/ignored.pyc").touch()
    docker = run.programs / "docker"
    docker.write_text(f'#!/bin/sh\necho "$DOCKER_BUILDKIT $@" >> {run.programs}/calls\n')
    docker.chmod(0o755)
    code, printed = run("7.8.9", "--images", "api", "worker", "--docker-options=--build-arg A='b c'")
    assert (code, "v7.8.9 was tagged before" in printed) == (0, True), printed
    assert git(run.root, "log", "-1", "--format=%s|%D") == "Release 7.8.9|HEAD -> main, tag: v7.8.9"
    assert run.built() == files
    assert [path.name for path in (run.root / "dist").iterdir()] == ["7.8.9"]
    assert (run.programs / "calls").read_text().splitlines() == [
        " version",
        "1 build --target api --tag linewatch/api:7.8.9 --build-arg A=b c .",
        "1 build --target worker --tag linewatch/worker:7.8.9 --build-arg A=b c .",
    ]
    assert "docker push linewatch/worker:7.8.9" in printed


@pytest.mark.parametrize("version", ["0.0.9", "0.1.0", "next"])
def test_a_version_that_is_not_newer_is_refused(run: Run, version: str) -> None:
    assert_refused(run, version, "three numbers" if version == "next" else f"{version} is not newer than")


def test_what_is_not_committed_is_refused(run: Run) -> None:
    (run.root / "notes.txt").touch()
    assert_refused(run, "7.8.9", "1 files are not committed, such as notes.txt")


def test_a_release_without_news_is_refused(run: Run) -> None:
    (run.root / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 0.1.0\n\n- All.\n")
    commit(run.root)
    assert_refused(run, "7.8.9", "nothing under")


def test_a_tag_on_other_work_is_refused(run: Run) -> None:
    git(run.root, "tag", "v7.8.9")
    (run.root / "notes.txt").touch()
    commit(run.root)
    assert_refused(run, "7.8.9", "the tag v7.8.9 exists, on other work")
    git(run.root, "tag", "--force", "v7.8.9")
    assert_refused(run, "7.8.9", "the tag v7.8.9 exists, on a commit with version")
    assert_refused(run, "7.8.8", "not newer than 7.8.9")


def test_a_release_needs_a_branch(run: Run) -> None:
    git(run.root, "checkout", "--quiet", "--detach")
    assert_refused(run, "7.8.9", "no branch is checked out")


def assert_refused(run: Run, version: str, problem: str) -> None:
    """Check that one line has the problem, and that nothing was changed."""
    before = git(run.root, "show-ref", "--head")
    code, printed = run(version)
    assert (code, printed.count("\n"), problem in printed) == (1, 1, True), printed
    assert git(run.root, "show-ref", "--head") == before
    assert not (run.root / "dist").exists()
