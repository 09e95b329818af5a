#!/usr/bin/env bash
# Install what `make test-containers` needs on Debian: a daemon, Compose 2.24 or newer, and debootstrap. Run it as root.
set -euo pipefail

apt-get update --quiet --quiet
apt-get install --yes --quiet --quiet --no-install-recommends docker.io iptables debootstrap

version=$(docker compose version --short 2> /dev/null || echo 0)
if dpkg --compare-versions "$version" ge 2.24; then
    exit
fi

# Debian 12 has an older one. That of Debian 13 needs nothing but a C library that both have.
folder=$(mktemp --directory)
trap 'rm -rf "$folder"' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' | head -n 1)
mkdir -p "$folder/lists/partial" "$folder/archives/partial"
echo "deb $mirror trixie main" > "$folder/sources.list"
trixie=(-o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder" -o "Dir::Etc::sourcelist=$folder/sources.list"
    -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root)
apt-get "${trixie[@]}" update --quiet --quiet
cd "$folder"
apt-get "${trixie[@]}" download --quiet --quiet docker-compose
dpkg --install docker-compose_*.deb
docker compose version
