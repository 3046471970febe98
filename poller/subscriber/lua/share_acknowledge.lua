-- Acknowledge an entry of a shared group; returns whether the reader may go on with the others.
-- KEYS, ARGV 1, 2  as share.lua  ARGV 3 id
-- →     1 while the reader counts as alive
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if not redis.call('ZSCORE', KEYS[4], ARGV[2]) then return 0 end
local done = settled()
if done then record(done) end
return 1
