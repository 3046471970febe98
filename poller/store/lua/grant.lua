-- Spend one request, exactly: a sliding log on the server's clock, in each of several ledgers.
-- Until it is answered, a request counts as sent `margin` after it was granted: it may be in transit
-- that long, even if its sender was killed meanwhile.
-- KEYS  1 budget of the account  2… of the users it is logged in as
-- ARGV  1 request  2 limit  3 period  4 margin, both in microseconds
-- →     microseconds to wait, 0: granted
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local limit, period, margin = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local recent = '(' .. string.format('%.0f', now - period)
-- a clock that was set back leaves entries far in the future: they were spent now at the latest
local ahead = '(' .. string.format('%.0f', now + margin)
for _, key in ipairs(KEYS) do
  for _, request in ipairs(redis.call('ZRANGEBYSCORE', key, ahead, '+inf')) do
    redis.call('ZADD', key, now + margin, request)
  end
end
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local wait = 0
for _, key in ipairs(KEYS) do
  local spent = redis.call('ZCOUNT', key, recent, '+inf')
  if spent >= limit then
    local blocking =
      redis.call('ZRANGEBYSCORE', key, recent, '+inf', 'WITHSCORES', 'LIMIT', spent - limit, 1)
    -- one in the future is still unanswered and may be settled at any moment: ask again by then
    wait = math.max(wait, 1, math.ceil(math.min(blocking[2], now) + period - now))
  end
end
if wait > 0 then return wait end
for _, key in ipairs(KEYS) do
  -- a full memory refuses only the first write of a script: it must be one that needs memory
  redis.call('ZADD', key, now + margin, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - period))
  redis.call('PEXPIRE', key, math.ceil((period + margin) / 500))
end
return 0
