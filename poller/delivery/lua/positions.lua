-- Read the positions of endpoints on a stream, and the stream's state. Writes nothing.
-- KEYS  1 stream; then the state of each endpoint
-- ARGV  1 the field of the position  2 that of the other stream; then the group of each endpoint
-- →     JSON: now, state: as of follow.lua, places: list of, for each endpoint: position, at, read,
--       other (its position on the other stream), success, failure (time of the last one), each
--       absent if not stored; group (its last id; absent: there is no group), idle (milliseconds
--       since an older version read through the group); or only error
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function named(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

local state, groups = {}, {}
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = named(redis.call('XINFO', 'STREAM', KEYS[1]))
  state['last-generated-id'] = info['last-generated-id']
  state['entries-added'] = info['entries-added']
  if info['first-entry'] then state['first-entry'] = info['first-entry'][1] end
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = named(flat)
    groups[group['name']] = group
  end
end

-- an older version reads as this consumer; the current one moves the group without a consumer
local function idle(group)
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    local consumer = named(flat)
    if consumer['name'] == 'poller' then return consumer['idle'] end
  end
end

-- what is not an id counts as absent, here and in enqueue.lua: other bytes would not survive the
-- way to the client and back, so such a position could never be replaced
local function id(text)
  return text and string.match(text, '^%d+%-%d+$')
end

local places = {}
for i = 2, #KEYS do
  local group = groups[ARGV[i + 1]]
  local field = ARGV[1]
  local found = redis.pcall('HMGET', KEYS[i], field, field .. ':at', field .. ':read', ARGV[2],
    'last_success', 'last_error_at')
  if found.err then
    places[#places + 1] = { error = found.err }
  else
    places[#places + 1] = {
      position = id(found[1]) or nil, at = found[2] or nil, read = found[3] or nil,
      other = found[4] or nil, success = found[5] or nil, failure = found[6] or nil,
      group = group and group['last-delivered-id'] or nil,
      idle = group and group['consumers'] > 0 and idle(ARGV[i + 1]) or nil,
    }
  end
end
return cjson.encode({ now = now, state = state, places = places })
