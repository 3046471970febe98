-- Stay one of the readers of a shared group (time to live above 0), or leave it (0). What a reader
-- that left had received goes to the others.
-- KEYS  as share.lua  ARGV 1 group  2 reader  3 time to live in milliseconds
if tonumber(ARGV[3]) > 0 then
  if not redis.call('ZSCORE', KEYS[4], ARGV[2]) then return end -- it counted as dead
  redis.call('ZADD', KEYS[4], now + ARGV[3], ARGV[2])
  redis.call('PEXPIRE', KEYS[4], ARGV[3] * 2)
  redis.call('PEXPIRE', KEYS[5], ARGV[3] * 2)
  redis.call('SET', KEYS[2], 'shared', 'NX', 'PX', ARGV[3]) -- it expired during a stall
  if redis.call('GET', KEYS[2]) == 'shared' then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
  return
end
redis.call('ZREM', KEYS[4], ARGV[2])
if redis.call('ZCOUNT', KEYS[4], now, '+inf') == 0 and redis.call('GET', KEYS[2]) == 'shared' then
  redis.call('DEL', KEYS[2])
end
