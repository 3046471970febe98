-- Deliver the next entries to the one active reader of a group: first those delivered to any reader
-- and not acknowledged, then new ones. The lock is taken in the same step, so that entries stay in
-- order across crashes, and a lost answer is delivered again.
--
-- The record of what was acknowledged outlives the group. If the group was deleted, the caller
-- decides by the record where it goes on, and calls again.
--
-- KEYS  1 stream  2 lock  3 record
-- ARGV  1 group  2 reader  3 lock's time to live in milliseconds  4 where a new group starts
--       5 most entries  6 where a deleted group goes on ("": not decided yet)
-- →     nil: another reader is active; else { last id delivered, { { id, { field, value, … } }, …
--       } }; or { 'gone', JSON: now, acknowledged, at (absent: not stored), last, first, added (from
--       XINFO STREAM; absent: not there) }
local group, reader = ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local record = redis.call('HMGET', KEYS[3], 'acknowledged', 'at')
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= reader then
  -- after the clock was set back, or if somebody else wrote the lock, it would last too long; a
  -- living reader renews it in time
  local left = redis.call('PTTL', KEYS[2])
  if left == -1 or left > tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
  end
  return false
end
redis.call('SET', KEYS[2], reader, 'PX', ARGV[3])

local function delivered()
  if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
  for _, known in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local facts = {}
    for i = 1, #known, 2 do facts[known[i]] = known[i + 1] end
    if facts.name == group then return facts['last-delivered-id'] end
  end
end
local function named(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- the id that directly precedes another
local function before(id)
  local milliseconds, number = string.match(id, '^(%d+)-(%d+)$')
  if number ~= '0' then return milliseconds .. '-' .. string.format('%.0f', number - 1) end
  if milliseconds == '0' then return '0-0' end
  return string.format('%.0f', milliseconds - 1) .. '-18446744073709551615'
end

if not delivered() then
  if ARGV[6] == '' and (record[1] or record[2]) then
    local state = {}
    if redis.call('EXISTS', KEYS[1]) == 1 then state = named(redis.call('XINFO', 'STREAM', KEYS[1])) end
    return { 'gone', cjson.encode({
      now = now, acknowledged = record[1] or nil, at = record[2] or nil,
      last = state['last-generated-id'], added = state['entries-added'],
      first = state['first-entry'] and state['first-entry'][1] or nil,
    }) }
  end
  local start = ARGV[6] ~= '' and ARGV[6] or ARGV[4]
  redis.call('XGROUP', 'CREATE', KEYS[1], group, start, 'MKSTREAM')
  redis.call('HSET', KEYS[3], 'acknowledged', delivered(), 'at', now)
elseif not record[1] then -- a version without records made it: pending entries are delivered again
  local first = redis.call('XPENDING', KEYS[1], group)[2]
  redis.call('HSET', KEYS[3], 'acknowledged', first and before(first) or delivered(), 'at', now)
end

local found, cursor = {}, '0-0'
repeat
  local claimed = redis.call('XAUTOCLAIM', KEYS[1], group, reader, 0, cursor, 'COUNT', ARGV[5])
  cursor = claimed[1]
  for i = 1, ARGV[5] do -- 6.2 leaves holes where an entry was trimmed
    if claimed[2][i] then found[#found + 1] = claimed[2][i] end
  end
until #found > 0 or cursor == '0-0'
if #found == 0 then
  local read = redis.call(
    'XREADGROUP', 'GROUP', group, reader, 'COUNT', ARGV[5], 'STREAMS', KEYS[1], '>')
  if read then found = read[1][2] end
end

-- former readers: all that they had was claimed above
if #found == 0 then
  for _, known in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    local facts = {}
    for i = 1, #known, 2 do facts[known[i]] = known[i + 1] end
    if facts.name ~= reader then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, facts.name) end
  end
end
return { delivered(), found }
