-- Write down how claims ended. A claim that somebody else took over meanwhile is passed over.
-- KEYS  1 state  2 due  3 queue  4 deliveries  5 claims  6 attempts  7 dead
-- ARGV  per claim: lane, token, how it ended, milliseconds until the lane is due again, milliseconds
--       the endpoint is held, why it is disabled, the last error, JSON of the failed attempts,
--       number of deliveries, then per delivery: padded id, JSON of the dead letter ("": none)
-- →     how many deliveries have something to retry
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function failed(hold, disable, reason)
  redis.call('HSETNX', KEYS[1], 'failing_since', now)
  redis.call('HSET', KEYS[1], 'last_error', reason, 'last_error_at', now)
  local held = tonumber(redis.call('HGET', KEYS[1], 'hold_until') or 0)
  if hold > 0 and now + hold > held then redis.call('HSET', KEYS[1], 'hold_until', now + hold) end
  if disable ~= '' and redis.call('HSETNX', KEYS[1], 'disabled', disable) == 1 then
    redis.call('HSET', KEYS[1], 'disabled_at', now)
  end
end

local function ended(lane, first, last)
  for at = first, last, 2 do
    local id = ARGV[at]
    if ARGV[at + 1] ~= '' then redis.call('HSET', KEYS[7], id, ARGV[at + 1]) end
    redis.call('ZREM', KEYS[3], lane .. '|' .. id)
    redis.call('HDEL', KEYS[4], id)
    redis.call('HDEL', KEYS[6], id)
  end
end

local function waiting(lane)
  local range = { '[' .. lane .. '|', '(' .. lane .. '}' }
  return #redis.call('ZRANGEBYLEX', KEYS[3], range[1], range[2], 'LIMIT', 0, 1) > 0
end

local at = 1
while at <= #ARGV do
  local lane, how, count = ARGV[at], ARGV[at + 2], tonumber(ARGV[at + 8])
  local first, last = at + 9, at + 8 + 2 * count
  if redis.call('HGET', KEYS[5], lane) == ARGV[at + 1] then
    if how == 'sent' then
      redis.call('HSET', KEYS[1], 'last_success', now)
      redis.call('HDEL', KEYS[1], 'failing_since')
    elseif how ~= 'returned' then
      failed(tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6])
    end
    if how == 'later' then redis.call('HSET', KEYS[6], ARGV[first], ARGV[at + 7]) end
    if how == 'sent' or how == 'dead' then ended(lane, first, last) end
    if waiting(lane) then
      redis.call('ZADD', KEYS[2], now + tonumber(ARGV[at + 3]), lane)
    else
      redis.call('ZREM', KEYS[2], lane)
    end
    redis.call('HDEL', KEYS[5], lane)
  end
  at = last + 1
end
return redis.call('HLEN', KEYS[6])
