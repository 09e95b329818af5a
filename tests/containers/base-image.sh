#!/usr/bin/env bash
# Make an image of Debian with Python, as a stand-in for the Dockerfile's base where no image registry can be reached.
#
#   base-image.sh TAG
set -euo pipefail

tag=$1
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' | head -n 1)
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
folder=$(mktemp --directory)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$folder" "$mirror"
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
tar --create --directory "$folder" . | docker import - "$tag"
