#!/usr/bin/env bash
# Makes the image of TOMAAT from this clone, after `npm ci`:
#   deploy/container/build.sh NAME [more arguments of the engine's build]
#   deploy/container/build.sh tomaat:0.1.0 --build-arg BASE=registry.example/debian:bookworm-slim
# ENGINE chooses docker (the default), podman or buildah.
set -euo pipefail
[ $# -ge 1 ] || { echo 'Usage: deploy/container/build.sh NAME [ARGUMENT…]' >&2; exit 2; }
name="$1"
shift
cd "$(dirname "$0")"
engine="${ENGINE:-docker}"
command -v "${engine%% *}" >/dev/null || { echo "$engine is not installed. Set ENGINE to docker, podman or buildah." >&2; exit 2; }
context="$(mktemp -d)"
trap 'rm -rf "$context"' EXIT
../release.sh "$context"
rm "$context"/*.tar.gz
mv "$context"/tomaat-* "$context/release"
cp Containerfile healthcheck.js "$context"
# Only the format of docker has a health check.
case "${engine%% *}" in
  *podman | *buildah) set -- --format docker "$@" ;;
esac
# $engine may have options of its own.
$engine build -t "$name" "$@" -f "$context/Containerfile" "$context"
