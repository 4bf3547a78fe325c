#!/bin/bash
# Builds the image so that the same commit gives the same digest on any machine, and prints that digest.
set -euo pipefail

readonly BUILDKIT=v0.20.2
readonly BUILDER=dstack-ingress-buildkit-$BUILDKIT
# One architecture, and no attestations beside it: dstack cannot pull an index by its digest.
readonly PLATFORM=linux/amd64

usage() {
  cat >&2 <<'TEXT'
usage: ./build-image.sh NAME:TAG [--push] [--allow-dirty]

  NAME:TAG       what to call the image, as in registry.example.com/dstack-ingress:0.1.0
  --push         push it to the registry instead of loading it into the local docker
  --allow-dirty  build although files differ from the commit; the image says so in its revision
TEXT
  exit 2
}

fail() {
  printf 'build-image: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

image='' push=false allow_dirty=false
for argument in "$@"; do
  case $argument in
    --push) push=true ;;
    --allow-dirty) allow_dirty=true ;;
    -*) usage ;;
    *) [ -z "$image" ] || usage; image=$argument ;;
  esac
done
[[ $image =~ ^[a-z0-9][a-z0-9._:/-]*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || usage

cd "$(dirname "${BASH_SOURCE[0]}")"
command -v docker >/dev/null || fail 'docker is not installed' 'https://docs.docker.com/engine/install/'
docker buildx version >/dev/null 2>&1 || fail 'docker has no buildx' 'on Debian: apt-get install docker-buildx'

revision=$(git rev-parse HEAD) || fail 'this is not a git repository: the image must say what it was built from'
if [ -n "$(git status --porcelain)" ]; then
  $allow_dirty || fail "files differ from commit $revision" 'commit them, or build with --allow-dirty'
  revision+=-dirty
fi

# A builder of a fixed version: BuildKit decides how layers are packed, and with it the digest.
docker buildx inspect "$BUILDER" >/dev/null 2>&1 ||
  docker buildx create --name "$BUILDER" --driver docker-container --driver-opt "image=moby/buildkit:$BUILDKIT" >/dev/null ||
  fail 'the builder cannot be created' 'is the docker daemon running, and may you use it?'

if $push; then
  output=type=image,push=true
else
  output=type=docker
fi

metadata=$(mktemp)
trap 'rm -f "$metadata"' EXIT
docker buildx build \
  --builder "$BUILDER" \
  --platform "$PLATFORM" \
  --build-arg SOURCE_DATE_EPOCH=0 \
  --build-arg "GIT_REVISION=$revision" \
  --provenance=false \
  --sbom=false \
  --output "$output,name=$image,oci-mediatypes=false,rewrite-timestamp=true" \
  --metadata-file "$metadata" \
  . >&2

digest=$(grep -o '"containerimage.digest": *"sha256:[0-9a-f]\{64\}"' "$metadata" | grep -o 'sha256:[0-9a-f]*') ||
  fail 'the builder did not say which digest it made'
printf '%s@%s\n' "$image" "$digest"
