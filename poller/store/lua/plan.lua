-- Save the plan if the lease is still held: a former leader's is older than its successor's.
-- KEYS 1 schedule  2 lease   ARGV 1 lease value ("": one-off, no lease)  2 … name, text, name, text
-- → 1 when it was kept
if ARGV[1] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
