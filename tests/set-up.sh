#!/bin/sh
# Makes .venv from the pinned, hashed packages: those that run (`run`), or also those that test (`dev`).
# Needs Python 3.11 or newer and a package index.
set -eu
python=${1:-python3}
pins=${2:-dev}
refuse() {
    echo "$*" >&2
    exit 2
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    refuse "this project needs Python 3.11 or newer, which $python is not; try: make PYTHON=python3.12"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # a bare Debian ships Python without its venv module
    package=$(basename "$python")-venv
    command -v apt-get >/dev/null || refuse "$python lacks its venv module: install it and try again"
    [ "$(id -u)" = 0 ] || refuse "as root, type: apt-get install -y $package"
    echo "installing Debian's $package" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq "$package" >/dev/null; } ||
        refuse "Debian's $package cannot be installed here"
fi
"$python" -m venv .venv
pip=".venv/bin/python -m pip --quiet --disable-pip-version-check install"
echo "installing the pinned packages into .venv (once, one to three minutes)" >&2
$pip --require-hashes -r config/pins/build.txt
# futu-api is published as source only: it is built here, without looking for other build tools
$pip --require-hashes -r "config/pins/$pins.txt"
$pip --no-deps --no-build-isolation --editable .
