#!/bin/sh
# Makes .venv from the pinned, hashed packages. Needs Python 3.11 or newer and a package index.
set -eu
python=${1:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "this project needs Python 3.11 or newer; try: make PYTHON=python3.12 $*" >&2
    exit 2
}
if ! "$python" -m venv .venv 2>/dev/null; then
    # a bare Debian ships Python without its venv module
    echo "installing Debian's python3-venv" >&2
    if [ "$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv; else
        sudo apt-get update -qq && sudo apt-get install -y -qq python3-venv
    fi
    "$python" -m venv --clear .venv
fi
pip=".venv/bin/python -m pip --quiet --disable-pip-version-check install"
echo "installing the pinned packages into .venv (once, one to three minutes)" >&2
$pip --require-hashes -r config/pins/build.txt
# futu-api is published as source only: it is built here, without looking for other build tools
$pip --require-hashes -r config/pins/dev.txt
$pip --no-deps --no-build-isolation --editable .
