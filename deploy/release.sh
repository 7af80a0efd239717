#!/usr/bin/env bash
# Makes a release of this clone that is installed by unpacking it, on a machine without a network:
#   deploy/release.sh OUT_DIR   →   OUT_DIR/tomaat-VERSION-linux-x64/ and the same as .tar.gz
# It holds the packed packages, what they depend on at the versions of package-lock.json, and Node and the ONNX engine of this
# platform alone. Needs npm, and `npm ci` in the clone for the page. Run bin/tomaat of it.
set -euo pipefail
[ $# = 1 ] || { echo 'Usage: deploy/release.sh OUT_DIR' >&2; exit 2; }
mkdir -p "$1"
out="$(cd "$1" && pwd)"
cd "$(dirname "$0")/.."
root="$PWD"

version="$(sed -n 's/^  "version": "\(.*\)",$/\1/p' packages/server/package.json)"
case "$(uname -m)" in
  x86_64) arch=x64 ;;
  aarch64) arch=arm64 ;;
  *) echo "There is no release for $(uname -s) on $(uname -m): use npm ci in a clone." >&2; exit 2 ;;
esac
name="tomaat-$version-linux-$arch"
tree="$out/$name"
if [ -e "$tree" ]; then
  echo "$tree exists. Remove it, or name another folder." >&2
  exit 2
fi

packed="$(mktemp -d)"
trap 'rm -rf "$packed"; rm -rf "$root/packages/server/apps" "$root/packages/server/page"' EXIT
for package in core client server; do
  (cd "packages/$package" && npm pack --silent --pack-destination "$packed") >/dev/null
  mkdir -p "$tree/packages/$package"
  tar -xzf "$packed"/*"${package/server/tomaat}-$version.tgz" -C "$tree/packages/$package" --strip-components=1
  rm "$packed"/*.tgz
done

# The lock file names every workspace, so all of them have to be there while npm reads it.
cp package.json package-lock.json .npmrc "$tree"
mkdir "$tree/packages/web"
cp packages/web/package.json "$tree/packages/web"
(cd "$tree" && npm ci --silent --no-audit --no-fund --omit=dev --ignore-scripts -w packages/core -w packages/client -w packages/server)
rm -rf "$tree/packages/web" "$tree/node_modules/@tomaat/web" "$tree"/package.json "$tree"/package-lock.json "$tree"/.npmrc \
  "$tree/node_modules/.package-lock.json"

# Of the engines, and of Node, what this platform runs; of the packages, what runs.
for platform in "$tree"/node_modules/onnxruntime-node/bin/napi-v*/*/*; do
  [[ "$platform" == */linux/$arch ]] || rm -rf "$platform"
done
node="node_modules/node-linux-$arch"
rm -rf "$tree/$node"/{include,share}
find "$tree" -type f \( -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.map' -o -name '*.md' \) \
  -not -iname 'licen*' -not -path "$tree/packages/server/apps/*" -delete
find "$tree/node_modules" -mindepth 2 -maxdepth 3 -type d \( -name test -o -name tests -o -name integration -o -name benchmarks \) -prune \
  -exec rm -rf {} +
# Of the page's files, the compressed forms: the server unpacks them for a browser that takes neither (http/page.ts).
for file in "$tree"/packages/server/page/assets/*.gz; do rm -f "${file%.gz}"; done
# Other builds of what Node loads from lib/ and build/, and of the codecs those that encode, too.
rm -rf "$tree"/node_modules/@zip.js/zip.js/{dist,index*} "$tree"/node_modules/pkijs/build/index.es.js
rm -f "$tree"/node_modules/@cornerstonejs/codec-{charls,openjpeg,libjpeg-turbo-8bit}/dist/*{js,js_decode,wasm}.js \
  "$tree"/node_modules/@cornerstonejs/codec-{charls,openjpeg,libjpeg-turbo-8bit}/dist/*wasm.wasm
# Copies of the S3 client for bundlers: Node reads dist-cjs.
find "$tree"/node_modules/@aws-sdk "$tree"/node_modules/@smithy -type d -name dist-es -prune -exec rm -rf {} +
# Its symbols are 18 MB.
if command -v strip >/dev/null; then strip --strip-unneeded "$tree/$node/bin/node"; fi

# The Node of the release, whatever the machine has.
mkdir "$tree/bin"
ln -s "../$node/bin/node" "$tree/bin/node"
cat >"$tree/bin/tomaat" <<SH
#!/bin/sh
root="\$(dirname "\$(readlink -f "\$0")")/.."
exec "\$root/bin/node" "\$root/packages/server/bin/tomaat.js" "\$@"
SH
chmod 755 "$tree/bin/tomaat"
tar -czf "$tree.tar.gz" -C "$out" --owner=0 --group=0 "$name"
du -sh "$tree" "$tree.tar.gz"
