#!/usr/bin/env bash
# Makes static chat and chat-server, the same bytes from whatever folder: ./deploy/build.sh [TARGET…]
# They are in dist/TARGET, beside an empty folder that the image takes as the relay's.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=("$@")
if [ ${#targets[@]} = 0 ]; then targets=("$(rustc -vV | sed -n 's/^host: //p')"); fi

cargo_home=${CARGO_HOME:-$HOME/.cargo}
out=${CARGO_TARGET_DIR:-target}
# Time and folders are no part of the result.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
flags=(-C target-feature=+crt-static "--remap-path-prefix=$PWD=/src" "--remap-path-prefix=$cargo_home=/cargo"
  "--remap-path-prefix=$(realpath -m "$out")=/target")
# Paths may have spaces in them.
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' "${flags[@]}")
export CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}

for target in "${targets[@]}"; do
  # Named also where it is the host's: else the flags would be for build scripts and macros, too.
  # One after the other: built together, the relay would get the features of the library that only people need.
  for package in server client; do
    cargo build --profile dist --locked --target "$target" -p "$package" --bins
  done
  mkdir -p "dist/$target/data"
  for program in chat chat-server; do
    cp "$out/$target/dist/$program" "dist/$target/$program"
  done
done
