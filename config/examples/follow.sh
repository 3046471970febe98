#!/bin/sh
# Prints every new event, a field name or a value a line. Takes the options of redis-cli:
#   sh follow.sh -h 127.0.0.1 -p 6379     with a password: REDISCLI_AUTH=… sh follow.sh …
#   REDISCLI_AUTH=$(cat state/redis/password) sh follow.sh -s state/redis/redis.sock

# where the stream ends now: what follows is new, also when the server goes away before it comes
until last=$(redis-cli "$@" --no-auth-warning --raw XREVRANGE short-interest + - COUNT 1) &&
    [ "${last#LOADING}" = "$last" ]; do
    sleep 1
done
last=$(printf '%s\n' "${last:-0-0}" | sed -n 1p)
while :; do
    entry=$(redis-cli "$@" --no-auth-warning --raw \
        XREAD COUNT 1 BLOCK 0 STREAMS short-interest "$last")
    case $entry in # redis-cli ends with 0 on a refusal, too; its -e is not in every version
    short-interest*)
        printf '%s\n' "$entry" | tail -n +3
        last=$(printf '%s\n' "$entry" | sed -n 2p)
        ;;
    '' | LOADING*) sleep 1 ;; # the server is away, as redis-cli has said, or starts
    *)
        printf 'Redis refuses: %s\n' "$entry" >&2
        exit 1
        ;;
    esac
done
