#!/bin/sh
# Prints every new event, a field name or a value a line: sh follow.sh [URL]
url=${1:-redis://127.0.0.1:6379} last='$'
while entry=$(redis-cli -u "$url" --raw XREAD COUNT 1 BLOCK 0 STREAMS short-interest "$last"); do
    printf '%s\n' "$entry" | tail -n +3
    last=$(printf '%s\n' "$entry" | sed -n 2p)
done
