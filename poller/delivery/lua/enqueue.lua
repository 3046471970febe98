-- Queue deliveries for endpoints, and move each endpoint's position in the same write, so that a
-- crash neither loses an entry nor queues it twice. The position moves last: if a step before it
-- fails, as on a key of another type, the whole take is repeated.
-- KEYS  1 stream; then for each endpoint: state, due, queue, deliveries, claims, attempts, dead
-- ARGV  1 JSON: field (of the position), read (how many entries were ever appended up to it;
--         absent: unknown), most_waits, takes: list, for each endpoint:
--           group, after (the stored position must be this, "": none; absent: a replay, which does
--           not move it), upto (the new position),
--           items: list of { sort key, lane, milliseconds its lane waits }
--           letters: list of { sort key, JSON of a dead letter }
--       2 JSON: sort key → JSON of the entry's fields
-- →     JSON list, for each endpoint: queued (how many were not waiting already) and gone (whether
--       its group had been deleted), or superseded, or error
local request, texts = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- whether a lane is being sent or retried, so that its due time must not change
local function fixed(keys, lane)
  if redis.call('HEXISTS', keys.claims, lane) == 1 then return true end
  for _, id in ipairs(redis.call('HKEYS', keys.attempts)) do
    if redis.call('ZSCORE', keys.queue, lane .. '|' .. id) then return true end
  end
  return false
end

-- when a lane's first delivery was appended, in milliseconds: the start of its sort key
local function appended(keys, lane)
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
      -- 'GT': deliveries queued long after they were appended, as by a replay, still gather
      local latest = appended(keys, lane) + request.most_waits * wait
      redis.call('ZADD', keys.due, 'GT', math.min(now + wait, latest), lane)
    end
  end
  return queued
end

-- move the group to a position; returns whether it had been deleted. Redis 6.2 lacks ENTRIESREAD
local function mirror(group, position)
  local counted = request.read
    and not redis.pcall('XGROUP', 'SETID', KEYS[1], group, position, 'ENTRIESREAD', request.read).err
  if counted or not redis.pcall('XGROUP', 'SETID', KEYS[1], group, position).err then
    return false
  end
  redis.call('XGROUP', 'CREATE', KEYS[1], group, position, 'MKSTREAM')
  if request.read then
    redis.pcall('XGROUP', 'SETID', KEYS[1], group, position, 'ENTRIESREAD', request.read)
  end
  return true
end

-- the stored position; what is not an id counts as absent: see positions.lua
local function record(state)
  return string.match(redis.call('HGET', state, request.field) or '', '^%d+%-%d+$') or ''
end

local function take(keys, one)
  if one.after and record(keys.state) ~= one.after then
    return { superseded = true }
  end
  local queued = queue(keys, one.items)
  for _, letter in ipairs(one.letters) do redis.call('HSET', keys.dead, letter[1], letter[2]) end
  if not one.after then return { queued = queued } end
  local gone = mirror(one.group, one.upto)
  redis.call('HSET', keys.state, request.field, one.upto, request.field .. ':at', now)
  if request.read then
    redis.call('HSET', keys.state, request.field .. ':read', request.read)
  else
    redis.call('HDEL', keys.state, request.field .. ':read')
  end
  return { queued = queued, gone = gone }
end

local answers = {}
for i, one in ipairs(request.takes) do
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
