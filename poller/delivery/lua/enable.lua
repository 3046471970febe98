-- Enable an endpoint: everything waiting is due now, with its attempts reset. Claimed lanes stay
-- with the processes that are sending them.
-- KEYS  1 state  2 due  3 claims  4 attempts  5 queue
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('HDEL', KEYS[1], 'disabled', 'disabled_at', 'failing_since', 'hold_until')
redis.call('DEL', KEYS[4])
-- from the queue, which also restores lanes whose due time was removed
local cursor = '0'
repeat
  local found = redis.call('ZSCAN', KEYS[5], cursor, 'COUNT', 1000)
  cursor = found[1]
  for i = 1, #found[2], 2 do
    local lane = string.match(found[2][i], '^(.*)|')
    if lane then redis.call('ZADD', KEYS[2], 'NX', now, lane) end
  end
until cursor == '0'
for _, lane in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if redis.call('HEXISTS', KEYS[3], lane) == 0 then redis.call('ZADD', KEYS[2], now, lane) end
end
return 1
