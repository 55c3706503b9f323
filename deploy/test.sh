#!/usr/bin/env bash
# What is handed out, used as people use it: archives, packages, image, compose file, unit. Wants root, Docker,
# docker-compose, debootstrap, cargo-deb and systemd-analyze; what is missing is said loudly, and left out.
#   deploy/test.sh               all of it
#   deploy/test.sh reproducible  whether another folder gives the same files (compiles everything once more)
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

work=$(mktemp -d)
containers=()
clean_up() {
  for name in "${containers[@]}"; do docker rm -f "$name" >/dev/null 2>&1 || true; done
  docker network rm chat-test >/dev/null 2>&1 || true
  docker volume rm chat-test >/dev/null 2>&1 || true
  mountpoint -q "$work/disk" && umount -l "$work/disk"
  rm -rf "$work"
}
trap clean_up EXIT

step() { printf '\n-- %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# says TEXT COMMAND…: whether it prints that. What it prints is read to its end: nobody is cut off while writing.
says() {
  local text=$1 all
  shift
  all=$("$@" 2>&1) && [[ $all == *"$text"* ]]
}
left_out() { printf 'LEFT OUT: %s\n' "$*"; }
# until_true SECONDS COMMAND…: tries until it succeeds
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "in vain: $*"
    sleep 0.2
  done
}

if [ "${1:-}" = reproducible ]; then
  step "the same files from another folder"
  git clone -q "$repository" "$work/elsewhere"
  (cd "$work/elsewhere" && CARGO_TARGET_DIR="$work/built" deploy/release.sh >/dev/null)
  diff dist/SHA256SUMS "$work/elsewhere/dist/SHA256SUMS" || fail "another folder gives other files"
  exit
fi

deploy/release.sh
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')
(cd dist && sha256sum --quiet --check SHA256SUMS)

step "archives: a friend has the link and nothing else"
tar -xzf "dist/chat-server-$version-$host.tar.gz" -C "$work"
tar -xzf "dist/chat-$version-$host.tar.gz" -C "$work"
chat=$work/chat-$version-$host/chat
server=$work/chat-server-$version-$host/chat-server
for program in "$chat" "$server"; do
  if ldd "$program" 2>&1 | grep "=>"; then fail "$program wants shared libraries"; fi
done

# person NAME FLAG…: chat as somebody with a profile of their own
person() {
  local name=$1
  shift
  timeout 60 "$chat" --home "$work/home" --profile "$name" "$@"
}

# talk LINK: alice writes to bob while he is away, and sends a file; he has both, and answers
talk() {
  head -c 3000000 /dev/urandom > "$work/photo.png"
  [ -d "$work/home/alice" ] || person alice --no-passphrase join "$1" --nick alice >/dev/null
  [ -d "$work/home/bob" ] || person bob --no-passphrase join "$1" --nick bob >/dev/null
  person alice send bob "tea?" >/dev/null
  says "tea?" person bob receive || fail "bob has no message"
  person bob send alice "yes" >/dev/null
  says "yes" person alice receive || fail "alice has no answer"
  person alice send-file bob "$work/photo.png" >/dev/null
  rm -rf "$work/saved"
  person bob receive --to "$work/saved" >/dev/null
  cmp "$work/photo.png" "$work/saved/photo.png" || fail "bob has another file"
  rm -rf "$work/saved"
}

"$server" --data "$work/data" --listen 127.0.0.1:0 --link-file "$work/link" >/dev/null 2>&1 &
relay=$!
until_true 20 test -s "$work/link"
talk "$(cat "$work/link")"
"$server" health --data "$work/data"
kill "$relay"
wait "$relay"
rm -rf "$work/home"

step "image"
if ! docker info >/dev/null 2>&1; then
  left_out "image, compose file, names in containers: no Docker engine"
else
  docker build -q -f deploy/Dockerfile.binary --build-arg TARGET="$host" -t chat-server . >/dev/null 2>&1
  size=$(docker image inspect --format '{{.Size}}' chat-server)
  echo "$size bytes"
  [ "$size" -le 25000000 ] || fail "the image has $size bytes"

  # start NAME FLAG…: a relay in a container, locked in as in the compose file
  start() {
    local name=$1
    shift
    containers+=("$name")
    docker run -d --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges "$@" chat-server >/dev/null
  }
  health_is() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = "$2" ]; }
  link_of() { docker exec "$1" chat-server ctl invite; }

  start chat-test -p 127.0.0.1::7667 -v chat-test:/data --health-interval 1s -e CHAT_SERVER_PUBLIC_ADDRESS=127.0.0.1:7667
  until_true 20 health_is chat-test healthy
  says chat:// docker logs chat-test || fail "no link in the log"
  docker exec chat-test chat-server ctl --json users >/dev/null
  at() { docker port chat-test 7667 | head -n 1; }
  here() { link_of chat-test | sed "s#//[^/]*/#//$(at)/#"; }
  talk "$(here)"
  person alice send bob "before the end" >/dev/null
  docker kill chat-test >/dev/null
  docker start chat-test >/dev/null
  until_true 20 link_of chat-test
  # The engine chose another port.
  person bob join "$(here)" >/dev/null
  says "before the end" person bob receive || fail "what was accepted is lost"
  docker stop -t 60 chat-test >/dev/null
  [ "$(docker inspect --format '{{.State.ExitCode}}' chat-test)" = 0 ] || fail "it did not end by itself"
  rm -rf "$work/home"

  step "image: a disk that fills up"
  mkdir "$work/disk"
  if mount -t tmpfs -o size=400m tmpfs "$work/disk" 2>/dev/null; then
    chown 10001:10001 "$work/disk"
    chmod 700 "$work/disk"
    start chat-test-full -v "$work/disk:/data" --health-interval 1s --health-retries 1
    until_true 20 health_is chat-test-full healthy
    dd if=/dev/zero of="$work/disk/filler" bs=1M count=390 2>/dev/null || true
    until_true 20 health_is chat-test-full unhealthy
    docker exec chat-test-full chat-server health || echo "exit code $?"
    rm "$work/disk/filler"
    until_true 30 health_is chat-test-full healthy
    docker rm -f chat-test-full >/dev/null
    umount "$work/disk"
  else
    left_out "a disk that fills up: only root can make one"
  fi

  step "image: names in a network of containers"
  docker network create chat-test >/dev/null
  start chat-test-relay --network chat-test --network-alias relay -e CHAT_SERVER_PUBLIC_ADDRESS=relay
  until_true 20 link_of chat-test-relay
  mkdir -p "$work/image/home"
  cp "$chat" "$work/image/"
  printf 'FROM scratch\nCOPY chat /chat\nCOPY home /home\nENTRYPOINT ["/chat", "--home", "/home"]\n' > "$work/image/Dockerfile"
  docker build -q -t chat-test "$work/image" >/dev/null 2>&1
  docker run --rm --network chat-test chat-test --no-passphrase join "$(link_of chat-test-relay)" --nick carol
  docker rm -f chat-test-relay >/dev/null
  docker rmi -f chat-test >/dev/null

  step "compose file"
  if command -v docker-compose >/dev/null; then
    compose=(docker-compose)
  else
    compose=(docker compose)
  fi
  if "${compose[@]}" version >/dev/null 2>&1; then
    export CHAT_TARGET=$host CHAT_SERVER_PORT=17667 CHAT_SERVER_PUBLIC_ADDRESS=localhost:17667
    in_compose() { "${compose[@]}" -p chat-test -f deploy/compose.yaml "$@"; }
    quietly() { "$@" >"$work/said" 2>&1 || { cat "$work/said"; fail "$*"; }; }
    quietly in_compose up -d --build
    relay_says() { in_compose exec -T relay chat-server "$@"; }
    until_true 20 relay_says health
    talk "$(relay_says ctl invite | tr -d '\r')"
    person alice send bob "kept over a kill" >/dev/null
    quietly in_compose kill
    quietly in_compose up -d
    until_true 20 relay_says health
    says "kept over a kill" person bob receive || fail "what was accepted is lost"
    quietly in_compose down -v
    rm -rf "$work/home"
  else
    left_out "compose file: no docker-compose"
  fi
fi

step "unit"
if command -v systemd-analyze >/dev/null; then
  root=$work/unit
  mkdir -p "$root/usr/bin" "$root/usr/lib/systemd/system" "$root/bin"
  install -m 755 "$server" "$root/usr/bin/chat-server"
  install -m 755 /bin/true "$root/bin/sh"
  cp deploy/chat-server.service "$root/usr/lib/systemd/system/"
  cp /usr/lib/systemd/system/*.target "$root/usr/lib/systemd/system/" 2>/dev/null || cp /lib/systemd/system/*.target "$root/usr/lib/systemd/system/"
  said=$(systemd-analyze verify --man=no --root="$root" chat-server.service 2>&1) || fail "$said"
  if grep chat-server.service <<<"$said"; then fail "the unit is not in order"; fi
  # In tenths.
  systemd-analyze security --offline=true --threshold=20 deploy/chat-server.service | tail -n 1
else
  left_out "unit: no systemd-analyze"
fi

step "packages, in a newer Debian whose names are found by systemd-resolved"
if ls dist/*.deb >/dev/null 2>&1 && command -v debootstrap >/dev/null && [ "$(id -u)" = 0 ]; then
  root=$work/debian
  # Its last step wants a system that runs; the files are there.
  debootstrap --variant=minbase --include=libnss-resolve,ca-certificates trixie "$root" >"$work/debootstrap.log" 2>&1 || true
  [ -e "$(echo "$root"/usr/lib/*/libnss_resolve.so.2)" ] || { tail -n 5 "$work/debootstrap.log"; fail "no Debian"; }
  sed -i 's/^hosts:.*/hosts: files resolve [!UNAVAIL=return] dns/' "$root/etc/nsswitch.conf"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  cp dist/*.deb "$root/"
  in_debian() { timeout 60 chroot "$root" "$@"; }
  in_debian sh -c 'dpkg --install /*.deb'
  in_debian getent passwd chat-server >/dev/null || fail "no system user"
  for file in usr/share/man/man1/chat-server.1.gz usr/share/man/man1/chat-send.1.gz etc/chat-server.toml \
    usr/lib/systemd/system/chat-server.service usr/share/bash-completion/completions/chat; do
    [ -e "$root/$file" ] || fail "$file is not installed"
  done
  in_debian chat-server --config /etc/chat-server.toml --data /tmp/data --listen 127.0.0.1:17668 \
    --public-address localhost:17668 --link-file /tmp/link >/dev/null 2>&1 &
  relay=$!
  until_true 20 test -s "$root/tmp/link"
  in_debian chat --home /tmp/home --no-passphrase join "$(cat "$root/tmp/link")" --nick dave
  # An unknown name is an answer, and no crash of glibc's.
  code=0
  in_debian chat --home /tmp/home --no-passphrase --profile x join "$(sed 's#//[^/]*/#//no-such-host.invalid:1/#' "$root/tmp/link")" --nick x || code=$?
  [ "$code" = 3 ] || fail "exit code $code for an unknown name"
  in_debian chat-server ctl --data /tmp/data quit
  wait "$relay"
  in_debian dpkg --purge chat chat-server >/dev/null 2>&1
  [ ! -e "$root/usr/bin/chat-server" ] || fail "the package stays"
else
  left_out "packages: they want cargo-deb, debootstrap and root"
fi

printf '\nwhat is handed out works\n'
