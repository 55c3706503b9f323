#!/usr/bin/env bash
# Makes what is handed out, in dist/: per target a tar.gz and a .deb of chat and of chat-server, and SHA256SUMS of them.
# The same commit gives the same files, in whatever folder. Wants cargo-deb for the .deb: cargo install cargo-deb
#   deploy/release.sh [TARGET…]
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  targets=("$host")
  if [[ $(rustup target list --installed 2>/dev/null) == *aarch64-unknown-linux-gnu* ]] \
    && command -v aarch64-linux-gnu-gcc >/dev/null; then
    targets+=(aarch64-unknown-linux-gnu)
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  else
    echo "LEFT OUT: aarch64; it wants the target aarch64-unknown-linux-gnu and the linker aarch64-linux-gnu-gcc"
  fi
fi
has_deb=yes
if ! command -v cargo-deb >/dev/null; then
  has_deb=no
  echo "LEFT OUT: .deb; they want cargo-deb: cargo install cargo-deb"
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
umask 022

deploy/build.sh "${targets[@]}"
case " ${targets[*]} " in
  *" $host "*) ;;
  *) deploy/build.sh "$host" ;; # what writes the manual pages has to run here
esac

stage=dist/stage
rm -rf "$stage" dist/*.tar.gz dist/*.deb
mkdir -p "$stage"
for program in chat chat-server; do
  run="dist/$host/$program"
  "$run" completions bash > "$stage/$program.bash"
  "$run" completions zsh > "$stage/_$program"
  "$run" completions fish > "$stage/$program.fish"
done
"dist/$host/chat" man --to "$stage/client-man"
"dist/$host/chat-server" man --to "$stage/server-man"
# The time in the compressed file is no part of the result.
gzip -9 -n "$stage"/*-man/*

# pack NAME FILE…: NAME.tar.gz with the files in a folder of that name
pack() {
  local name=$1
  shift
  rm -rf "$stage/$name"
  mkdir -p "$stage/$name"
  cp -R "$@" "$stage/$name/"
  tar --create --directory "$stage" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --format=gnu "$name" | gzip -9 -n > "dist/$name.tar.gz"
}

for target in "${targets[@]}"; do
  cp "dist/$target/chat" "dist/$target/chat-server" "$stage/"
  pack "chat-$version-$target" "$stage"/{chat,chat.bash,_chat,chat.fish,client-man} deploy/FIRST-STEPS.txt LICENSE-*
  pack "chat-server-$version-$target" "$stage"/{chat-server,chat-server.bash,_chat-server,chat-server.fish,server-man} \
    deploy/chat-server.{service,toml} docs/OPERATING.md LICENSE-*
  if [ "$has_deb" = yes ]; then
    for package in client server; do
      cargo deb --quiet --no-build --no-strip --package "$package" --target "$target" --output dist/
    done
  fi
done
(cd dist && sha256sum ./*.tar.gz $([ "$has_deb" = no ] || echo ./*.deb) | sed 's# \./# #' > SHA256SUMS)
rm -rf "$stage"
cat dist/SHA256SUMS
