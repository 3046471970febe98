-- What the scripts of a group share, put before each of them.
-- KEYS  1 stream  2 lock  3 record   ARGV  1 group
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function named(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- the last id ever delivered to the group; nil: there is no group
local function delivered()
  if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
  for _, known in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local facts = named(known)
    if facts.name == ARGV[1] then return facts['last-delivered-id'] end
  end
end

-- the id that directly precedes another
local function before(id)
  local milliseconds, number = string.match(id, '^(%d+)-(%d+)$')
  if number ~= '0' then return milliseconds .. '-' .. string.format('%.0f', number - 1) end
  if milliseconds == '0' then return '0-0' end
  return string.format('%.0f', milliseconds - 1) .. '-18446744073709551615'
end

local function record(acknowledged)
  redis.call('HSET', KEYS[3], 'acknowledged', acknowledged, 'at', now)
end

-- the last id up to which everything is acknowledged
local function settled()
  local first = redis.call('XPENDING', KEYS[1], ARGV[1])[2]
  return first and before(first) or delivered()
end

-- Make the group if it is absent. The record of what was acknowledged outlives the group: if the
-- group was deleted, the caller decides by the record where it goes on (`decided`), and calls again.
-- Returns what the caller decides by, or nil.
local function begin(start, decided)
  local known = redis.call('HMGET', KEYS[3], 'acknowledged', 'at')
  if delivered() then
    -- a version without records made it: pending entries are delivered again
    if not known[1] then record(settled()) end
    return nil
  end
  if decided == '' and (known[1] or known[2]) then
    local state = {}
    if redis.call('EXISTS', KEYS[1]) == 1 then state = named(redis.call('XINFO', 'STREAM', KEYS[1])) end
    return cjson.encode({
      now = now, acknowledged = known[1] or nil, at = known[2] or nil,
      last = state['last-generated-id'], added = state['entries-added'],
      first = state['first-entry'] and state['first-entry'][1] or nil,
    })
  end
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], decided ~= '' and decided or start, 'MKSTREAM')
  record(delivered())
end
