-- Queue deliveries, and, for an intake, move the endpoint's group behind the entries looked at: one
-- write, so that nothing is lost or queued twice whoever is killed.
-- KEYS  1 stream  2 due  3 queue  4 deliveries  5 dead
-- ARGV  1 group ("": a replay)  2 its last id as read  3 JSON list of the ids of the entries
--       4 JSON list of deliveries: { padded id, lane, milliseconds its lane waits, JSON of fields }
-- →     how many were queued that were not waiting already; -1: superseded
local function last_delivered(group)
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
  if groups.err then return nil end
  for _, told in ipairs(groups) do
    local named = {}
    for i = 1, #told, 2 do named[told[i]] = told[i + 1] end
    if named['name'] == group then return named['last-delivered-id'] end
  end
end

if ARGV[1] ~= '' then
  if last_delivered(ARGV[1]) ~= ARGV[2] then return -1 end
  local ids = cjson.decode(ARGV[3])
  -- reading, not XGROUP SETID: so the server's own count of the lag stays right
  local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], 'poller', 'COUNT', #ids, 'NOACK',
    'STREAMS', KEYS[1], '>')
  local entries = read and read[1][2] or {}
  local same = #entries == #ids
  for i, entry in ipairs(entries) do same = same and entry[1] == ids[i] end
  if not same then
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], ARGV[2])
    return -1
  end
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local queued = 0
for _, delivery in ipairs(cjson.decode(ARGV[4])) do
  local id, lane, wait, fields = unpack(delivery)
  redis.call('HDEL', KEYS[5], id)
  if redis.call('HSETNX', KEYS[4], id, fields) == 1 then
    redis.call('ZADD', KEYS[3], 0, lane .. '|' .. id)
    redis.call('ZADD', KEYS[2], 'NX', now + wait, lane)
    queued = queued + 1
  end
end
return queued
