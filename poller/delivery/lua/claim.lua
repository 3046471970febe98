-- Claim due lanes: they become due again by themselves unless the claim is settled before.
-- KEYS  1 state  2 due  3 queue  4 deliveries  5 claims  6 attempts
-- ARGV  1 token  2 most lanes  3 most deliveries of each  4 milliseconds the claim lasts
-- →     now, milliseconds until the next lane is due ("": none), why disabled, failing since,
--       then per lane: { lane, JSON of failed attempts, padded id, JSON of fields, … }
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'disabled', 'failing_since', 'hold_until')
local answer = { now, '', state[1] or '', state[2] or '' }
if state[1] then return answer end
local held = tonumber(state[3] or 0) - now
if held > 0 then
  answer[2] = held
  return answer
end
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  -- '}' follows '|': everything that starts with this lane and a '|'
  local waiting = redis.call('ZRANGEBYLEX', KEYS[3], '[' .. lane .. '|', '(' .. lane .. '}',
    'LIMIT', 0, ARGV[3])
  if #waiting == 0 then
    redis.call('ZREM', KEYS[2], lane)
  else
    local claim = { lane }
    for i, member in ipairs(waiting) do
      local id = string.sub(member, #lane + 2)
      if i == 1 then claim[2] = redis.call('HGET', KEYS[6], id) or '' end
      claim[#claim + 1] = id
      claim[#claim + 1] = redis.call('HGET', KEYS[4], id)
    end
    redis.call('ZADD', KEYS[2], now + ARGV[4], lane)
    redis.call('HSET', KEYS[5], lane, ARGV[1])
    answer[#answer + 1] = claim
  end
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if first[2] then answer[2] = math.max(first[2] - now, 0) end
return answer
