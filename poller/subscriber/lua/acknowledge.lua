-- Acknowledge an entry; returns whether the reader may go on with the other entries it received.
-- Only the active reader moves the record: a former one would move it back.
-- KEYS  1 stream  2 lock  3 record
-- ARGV  1 group  2 reader  3 id
-- →     1 when the lock is still the reader's
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
record(ARGV[3])
return 1
