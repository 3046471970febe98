-- Take the lease with the next fencing token, unless another process holds it.
-- KEYS 1 lease  2 fence   ARGV 1 owner  2 time to live in milliseconds   → the lease value, or nil
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- shorten a lease that outlasts its time to live, because the clock was set back or another client
  -- removed its end: a living holder renews it in time
  local left = redis.call('PTTL', KEYS[1])
  if left == -1 or left > tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
  end
  return false
end
local value = redis.call('INCR', KEYS[2]) .. ':' .. ARGV[1]
redis.call('SET', KEYS[1], value, 'PX', ARGV[2])
return value
