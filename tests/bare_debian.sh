#!/bin/sh
# `make test` and `make demo` in a Debian bootstrapped for it, which has python3 and make and nothing
# else: no name of its own that resolves, no /etc/hosts, no sudo, no venv module. Nothing is booted.
# As root, with Debian's debootstrap. The tree is removed at the end; BARE_DEBIAN names one to keep.
# What is given as arguments runs there instead, as root: tests/bare_debian.sh make dev
set -eu
cd "$(dirname "$0")/.."

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" = 0 ] || { echo "as root, type: make bare" >&2; exit 2; }
    command -v debootstrap >/dev/null || {
        echo "as root, type: apt-get install -y debootstrap" >&2
        exit 2
    }
    tree=${BARE_DEBIAN:-}
    if [ -z "$tree" ]; then
        tree=$(mktemp -d)
        chmod 755 "$tree" # its root directory
        # its mounts are gone by then; were one left, nothing would be removed across it
        trap 'rm -rf --one-file-system "$tree"' EXIT
    fi
    # what is mounted there is seen by nobody else, and ends with the first process, as do all others
    unshare --mount --pid --uts --ipc --fork --kill-child \
        sh tests/bare_debian.sh --inside "$tree" "$@" &
    trap 'kill -KILL $!; sleep 1; exit 130' INT TERM
    wait $! && exit || exit $?
fi

shift
tree=$1
shift
say() { printf '\n== %s ==\n' "$*"; }
seconds() { date +%s; }
size() { du -smx "$1" | cut -f1; }

# the sources this machine uses, as apt knows them, and how it reaches them
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
source=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    sed -n "s/^$release //p" | head -n 1)
began=$(seconds)
if [ ! -x "$tree/usr/bin/make" ]; then
    say "debootstrap $release"
    mkdir -p "$tree"
    # a browser or a Node would have to be installed: what needs them is left out, and said
    debootstrap --variant=minbase --include=make,python3 "$release" "$tree" $source >"$tree/bootstrap.log" ||
        { tail -n 20 "$tree/bootstrap.log" >&2; exit 1; }
    rm "$tree/bootstrap.log"
    apt-config dump Acquire >"$tree/etc/apt/apt.conf.d/outside"
    chroot "$tree" useradd --create-home somebody
fi
bare=$(size "$tree")
hostname bare-debian
rm -f "$tree/etc/hosts" "$tree/etc/hostname"
mount -t proc proc "$tree/proc"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$tree/dev/pts"

# pip reaches its index as it does outside: the merged configuration, and the files it names
python3 - "$tree" <<'PYTHON'
import re, shlex, shutil, subprocess, sys
from pathlib import Path

tree = Path(sys.argv[1])
told = subprocess.run(
    [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
).stdout
found = dict(line.split("=", 1) for line in told.splitlines() if line.startswith("global."))
environment = dict(line.split("=", 1) for line in told.splitlines() if line.startswith(":env:"))
found |= {"global." + name.removeprefix(":env:."): value for name, value in environment.items()}
lines = ["[global]"]
for name, value in found.items():
    value = " ".join(" ".join(shlex.split(value)).split())
    for place in re.findall(r"(?:^|\s|file://)(/\S+)", value):
        path = Path(place)
        if path.exists():
            if path.is_file():  # a copy elsewhere: packages of the tree may write the file itself
                inside = tree / "outside" / path.name
                inside.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, inside)
                value = value.replace(place, f"/outside/{path.name}")
                continue
            # what a local index names may lie beside it
            path = path.parent if path.name == "simple" else path
            inside = tree / path.relative_to("/")
            inside.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "--bind", "-o", "ro", path, inside], check=True)
    lines.append(f"{name.removeprefix('global.')} = {value}")
(tree / "etc/pip.conf").write_text("\n".join(lines) + "\n")
PYTHON
if cache=$(python3 -m pip cache dir 2>/dev/null) && [ -d "$cache" ]; then
    there=$tree$(chroot "$tree" getent passwd root | cut -d: -f6)/.cache/pip # where its pip looks
    mkdir -p "$there"
    mount --bind "$cache" "$there"
fi

# runs a line of shell in the tree as $1, with no variable of this machine but those of its network
inside() {
    who=$1
    shift
    network=$(env | grep -Ei '^(https?_proxy|no_proxy|all_proxy)=[^[:space:]]*$' || true)
    # shellcheck disable=SC2086  one word each
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 $network \
        chroot "$tree" su "$who" --shell /bin/sh --command "$*" </dev/null
}

# runs it as root in the checkout, and notes when the demo showed its first new row, and a failure
timed() {
    rm -f "$tree/first-row" "$tree/not-done"
    start=$(seconds)
    { inside root "cd ~/poller && $*" || touch "$tree/not-done"; } | while IFS= read -r line; do
        printf '%s\n' "$line"
        case $line in
        *" s  "*" reported "*) [ -e "$tree/first-row" ] || echo $(($(seconds) - start)) >"$tree/first-row" ;;
        esac
    done
    took=$(($(seconds) - start))
    row=$(cat "$tree/first-row" 2>/dev/null || echo -)
    [ ! -e "$tree/not-done" ]
}

checkout() { # the last commit into $1, over what is there, as $2's
    mkdir -p "$tree$1"
    git archive HEAD | tar -x -C "$tree$1"
    chroot "$tree" chown -R "$2:" "$1"
}

if [ $# -gt 0 ]; then
    checkout /root/poller root
    timed "$*" && done=0 || done=1
    echo "bare Debian $bare MB; it took $took s, first row after $row s;" \
        ".venv $(size "$tree/root/poller/.venv") MB"
    exit $done
fi

failed=
verdict() { # $1: what was expected, $2: what came
    if [ "$1" = "$2" ]; then echo "as it must be: $1"; else
        echo "WRONG: expected $1, got $2"
        failed=yes
    fi
}
home=/home/somebody/poller
files() { (cd "$tree" && find root home etc usr var/lib -xdev -type f -newer "$tree/before" | sort); }

inside root "apt-get purge -y --auto-remove 'python3*-venv' >/dev/null 2>&1" || true # of an earlier run
rm -rf --one-file-system "${tree:?}/root/poller" "${tree:?}$home"

say "as somebody who is not root"
checkout $home somebody
touch "$tree/before"
sleep 1
for command in "make demo" "make test"; do
    told=$(inside somebody "cd ~/poller && $command" 2>&1) && status=0 || status=$?
    printf '%s\n' "\$ $command" "$told"
    verdict "exit code 2" "exit code $status"
    # make itself says that it failed
    verdict "as root, type: apt-get install -y python3-venv" "$(echo "$told" | grep -v '^make: ')"
    verdict "no file made" "$(files | grep . || echo no file made)"
done

checkout /root/poller root
say "as root: make demo, set-up included"
timed make demo || failed=yes
[ -d "$tree/root/poller/.venv" ] || exit 1 # no set-up, nothing else to see
demo=$took
runs=$(size "$tree/root/poller/.venv")

say "as root: set-up for make test"
start=$(seconds)
inside root "cd ~/poller && make dev" || failed=yes
set_up=$(($(seconds) - start))

say "as root: make test"
start=$(seconds)
inside root "cd ~/poller && make test" || failed=yes
tests=$(($(seconds) - start))
verdict "no dump.rdb" "$(ls "$tree/root/poller/dump.rdb" 2>/dev/null || echo no dump.rdb)"

say "as somebody who is not root, with python3-venv: make demo"
inside somebody "cd ~/poller && make demo" || failed=yes

say "as somebody who is not root, in an empty directory: the wheel, without a checkout"
inside root "cd ~/poller && .venv/bin/python -m hatchling build -t wheel -d /srv/wheels" || failed=yes
rm -rf --one-file-system "${tree:?}/home/somebody/empty"
start=$(seconds)
inside somebody "mkdir ~/empty && cd ~/empty && python3 -m venv own && \
    own/bin/pip install --quiet --find-links /srv/wheels short-interest-poller && own/bin/poller demo && \
    own/bin/poller config init && own/bin/poller config files --into files && \
    own/bin/poller service install --dry-run >poller.service" || failed=yes
wheel=$(($(seconds) - start))
verdict "a configuration, the operator's files and a unit" \
    "$(cd "$tree/home/somebody/empty" && grep -q '^\[redis\]' config/poller.toml &&
        [ -s files/prometheus/alerts.yml ] && grep -q PrivateTmp=yes poller.service &&
        echo "a configuration, the operator's files and a unit")"

say "figures"
echo "bare Debian $bare MB; make demo with its set-up $demo s, first row after $row s, .venv $runs MB; set-up for make test" \
    "$set_up s more, .venv $(size "$tree/root/poller/.venv") MB; make test $tests s; the wheel and its demo $wheel s; in all" \
    "$(($(seconds) - began)) s"
[ -z "$failed" ] || { echo "failed"; exit 1; }
echo "all as it must be"
