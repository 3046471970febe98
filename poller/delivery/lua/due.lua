-- Find the endpoints that have something due now. Lanes whose due time is out of range or missing
-- count as due.
-- KEYS  for each endpoint: due, queue   ARGV  1 milliseconds: see FURTHEST of the outbox
-- →     the endpoints' indexes, from 1
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = {}
for i = 1, #KEYS, 2 do
  local first = redis.pcall('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  local at = tonumber(first[2] or nil)
  local due = at and (at <= now or at > now + ARGV[1])
  if not at and not first.err then due = redis.call('EXISTS', KEYS[i + 1]) == 1 end
  if due or first.err then found[#found + 1] = (i + 1) / 2 end
end
return found
