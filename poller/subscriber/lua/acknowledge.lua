-- Acknowledge an entry, and learn whether the reader may go on with what else it was given.
-- KEYS  1 stream  2 lock   ARGV  1 group  2 reader  3 id   → 1 when the lock is still the reader's
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return redis.call('GET', KEYS[2]) == ARGV[2] and 1 or 0
