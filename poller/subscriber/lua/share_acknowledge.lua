-- Acknowledge an entry of a shared group; returns whether the reader may go on with the others.
-- KEYS, ARGV 1, 2  as share.lua  ARGV 3 id
-- →     1 while the reader counts as alive, if the entry was still with it: during a stall, others
--       may have got all it had, even a reader that has had the group for itself since
if not delivered() then return 0 end
local entry = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
record(settled())
return entry and entry[2] == ARGV[2] and redis.call('ZSCORE', KEYS[4], ARGV[2]) and 1 or 0
