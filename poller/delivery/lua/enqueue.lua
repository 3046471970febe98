-- Queue deliveries for endpoints, and move the record of what each has taken: for each endpoint one
-- write, so that nothing is lost or queued twice whoever is killed. The record moves last: what
-- fails before, as on a key of another type, is done again as a whole.
-- KEYS  1 stream; then for each endpoint: state, due, queue, deliveries, claims, attempts, dead
-- ARGV  1 JSON: field (of the position), read (how many entries were ever appended up to it; absent:
--         not known), most_waits, takes: list, for each endpoint:
--           group, after (the record as it must be, "": no id; absent: a replay, which moves nothing),
--           upto,
--           items: list of { sort key, lane, milliseconds its lane waits }
--           letters: list of { sort key, JSON of a dead letter }
--       2 JSON: sort key → JSON of the entry's fields
-- →     JSON list, for each endpoint: queued (how many were not waiting already), or superseded, or
--       error; gone: its group was not there
local told, texts = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- a lane that is being sent, or has something to retry, keeps its time
local function fixed(keys, lane)
  if redis.call('HEXISTS', keys.claims, lane) == 1 then return true end
  for _, id in ipairs(redis.call('HKEYS', keys.attempts)) do
    if redis.call('ZSCORE', keys.queue, lane .. '|' .. id) then return true end
  end
  return false
end

-- when what stands first was appended: the beginning of its sort key
local function began(keys, lane)
  local first = redis.call('ZRANGEBYLEX', keys.queue, '[' .. lane .. '|', '(' .. lane .. '}',
    'LIMIT', 0, 1)[1]
  return first and tonumber(string.sub(first, #lane + 2, #lane + 16)) or now
end

local function queue(keys, items)
  local queued, gathering = 0, {}
  for _, item in ipairs(items) do
    local id, lane, wait = unpack(item)
    redis.call('HDEL', keys.dead, id)
    redis.call('HSET', keys.deliveries, id, texts[id])
    if redis.call('ZADD', keys.queue, 'NX', 0, lane .. '|' .. id) == 1 then
      queued = queued + 1
      if wait > 0 then gathering[lane] = wait end
    end
    if wait == 0 then redis.call('ZADD', keys.due, 'NX', now, lane) end
  end
  for lane, wait in pairs(gathering) do
    if redis.call('ZADD', keys.due, 'NX', now + wait, lane) == 0 and not fixed(keys, lane) then
      -- later only: what is queued long after it was appended, as by a replay, waits all the same
      local latest = began(keys, lane) + told.most_waits * wait
      redis.call('ZADD', keys.due, 'GT', math.min(now + wait, latest), lane)
    end
  end
  return queued
end

-- returns whether the group was gone; 6.2 does not count, and refuses to be told
local function mirror(group, position)
  local counted = told.read
    and not redis.pcall('XGROUP', 'SETID', KEYS[1], group, position, 'ENTRIESREAD', told.read).err
  if counted or not redis.pcall('XGROUP', 'SETID', KEYS[1], group, position).err then
    return false
  end
  redis.call('XGROUP', 'CREATE', KEYS[1], group, position, 'MKSTREAM')
  if told.read then
    redis.pcall('XGROUP', 'SETID', KEYS[1], group, position, 'ENTRIESREAD', told.read)
  end
  return true
end

-- what is no id counts as absent: see positions.lua
local function record(state)
  return string.match(redis.call('HGET', state, told.field) or '', '^%d+%-%d+$') or ''
end

local function take(keys, one)
  if one.after and record(keys.state) ~= one.after then
    return { superseded = true }
  end
  local queued = queue(keys, one.items)
  for _, letter in ipairs(one.letters) do redis.call('HSET', keys.dead, letter[1], letter[2]) end
  if not one.after then return { queued = queued } end
  local gone = mirror(one.group, one.upto)
  redis.call('HSET', keys.state, told.field, one.upto, told.field .. ':at', now)
  if told.read then
    redis.call('HSET', keys.state, told.field .. ':read', told.read)
  else
    redis.call('HDEL', keys.state, told.field .. ':read')
  end
  return { queued = queued, gone = gone }
end

local answers = {}
for i, one in ipairs(told.takes) do
  local at = 2 + (i - 1) * 7
  local keys = {
    state = KEYS[at], due = KEYS[at + 1], queue = KEYS[at + 2], deliveries = KEYS[at + 3],
    claims = KEYS[at + 4], attempts = KEYS[at + 5], dead = KEYS[at + 6],
  }
  local done, answer = pcall(take, keys, one)
  if not done then
    answer = { error = type(answer) == 'table' and answer.err or tostring(answer) }
  end
  answers[i] = answer
end
return cjson.encode(answers)
