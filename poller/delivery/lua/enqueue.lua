-- Queue deliveries, and, for an intake, move the endpoint's group behind the entries looked at: one
-- write, so that nothing is lost or queued twice whoever is killed.
-- KEYS  1 stream  2 due  3 queue  4 deliveries  5 dead  6 claims  7 attempts
-- ARGV  1 group ("": a replay)  2 its last id as read  3 JSON list of the ids of the entries
--       4 JSON list of deliveries: { padded id, lane, milliseconds its lane waits, JSON of fields }
--       5 how many of its waits a lane gathers at most
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

-- a lane that is being sent, or has something to retry, keeps its time
local function fixed(lane)
  if redis.call('HEXISTS', KEYS[6], lane) == 1 then return true end
  for _, id in ipairs(redis.call('HKEYS', KEYS[7])) do
    if redis.call('ZSCORE', KEYS[3], lane .. '|' .. id) then return true end
  end
  return false
end

-- when what stands first was appended: the beginning of its padded id
local function began(lane)
  local first = redis.call('ZRANGEBYLEX', KEYS[3], '[' .. lane .. '|', '(' .. lane .. '}',
    'LIMIT', 0, 1)[1]
  return tonumber(string.sub(first, #lane + 2, #lane + 16))
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local queued, gathering = 0, {}
for _, delivery in ipairs(cjson.decode(ARGV[4])) do
  local id, lane, wait, fields = unpack(delivery)
  redis.call('HDEL', KEYS[5], id)
  if redis.call('HSETNX', KEYS[4], id, fields) == 1 then
    redis.call('ZADD', KEYS[3], 0, lane .. '|' .. id)
    if wait > 0 then
      gathering[lane] = wait
    else
      redis.call('ZADD', KEYS[2], 'NX', now, lane)
    end
    queued = queued + 1
  end
end
for lane, wait in pairs(gathering) do
  if redis.call('ZADD', KEYS[2], 'NX', now + wait, lane) == 0 and not fixed(lane) then
    -- later only: what is queued long after it was appended, as by a replay, waits all the same
    redis.call('ZADD', KEYS[2], 'GT', math.min(now + wait, began(lane) + ARGV[5] * wait), lane)
  end
end
return queued
