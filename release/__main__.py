"""`python -m release 0.2.0`: commit, tag and build a release. It pushes nothing. Run it again after an interruption."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from release import ReleaseError
from release.building import build_images, build_packages, has_docker
from release.repository import Repository
from release.tagging import tag_release

IMAGES = ("api", "worker-cpu")


def main(arguments: Sequence[str], root: Path) -> int:
    """Make the release of a repository. Returns 0 if everything is done, 1 if it is refused or failed."""
    parser = argparse.ArgumentParser(prog="make release", description="Commit, tag and build a release.")
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--images", nargs="*", default=IMAGES, metavar="TARGET", help="targets of the Dockerfile")
    parser.add_argument(
        "--docker-options", type=shlex.split, default=[], help="of docker build, as `--build-arg PYTHON_IMAGE=…`"
    )
    options = parser.parse_args(arguments)
    try:
        _release(Repository(root), options.version, options.images, options.docker_options)
    except (ReleaseError, OSError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


def _release(repository: Repository, version: str, targets: Sequence[str], docker_options: Sequence[str]) -> None:
    was_tagged_now = tag_release(repository, version)
    print(f"v{version} {'is committed and tagged' if was_tagged_now else 'was tagged before'}")
    folder = repository.root / "dist" / version
    images: list[str] = []
    with repository.checkout(f"v{version}") as checkout:
        packages = build_packages(repository, checkout, folder)
        for path in packages:
            print(f"built {path.relative_to(repository.root)}")
        if has_docker():
            images = build_images(checkout, version, targets, docker_options)
        elif targets:
            names = ", ".join(targets)
            print(
                f"no Docker engine answers, so these images were left out: {names}. Run this again where there is one."
            )
    for name in images:
        print(f"built {name}")
    print("Nothing was pushed. To publish it:")
    for command in (
        " ".join(["git push --atomic origin", *filter(None, [repository.branch]), f"v{version}"]),
        f"uv publish {folder.relative_to(repository.root)}/linewatch*",
        *(f"docker push {name}" for name in images),
    ):
        print(f"  {command}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parents[1]))
