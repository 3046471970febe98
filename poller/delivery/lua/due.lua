-- Find the endpoints that have something due now; what is due beyond all bounds counts as well.
-- KEYS  the due set of each endpoint   ARGV  1 milliseconds: see FURTHEST of the outbox
-- →     their places in KEYS
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = {}
for i, key in ipairs(KEYS) do
  local first = redis.pcall('ZRANGE', key, 0, 0, 'WITHSCORES')
  local at = tonumber(first[2] or nil)
  if first.err or (at and (at <= now or at > now + ARGV[1])) then found[#found + 1] = i end
end
return found
