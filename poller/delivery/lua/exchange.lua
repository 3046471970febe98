-- Settle claims, then claim due lanes, in one call. A settlement is ignored if another process has
-- claimed its lane since. A claimed lane becomes due again by itself unless it is settled before.
-- KEYS  1 state  2 due  3 queue  4 deliveries  5 claims  6 attempts  7 dead
-- ARGV  1 JSON list of settlements: lane, token, how, ids (sort keys), delay, hold, disable, error,
--       attempts (their JSON), letters (JSON of each dead letter), parked (however the claim ended:
--       pairs of an unreadable delivery's sort key and the JSON of its dead letter); times in
--       milliseconds
--       2 token  3 most lanes  4 most deliveries of each  5 milliseconds the claim lasts
--       6, 7, 8 milliseconds: see NOTED, ABSENT and FURTHEST of the outbox
-- →     JSON: now, wait (until the next lane is due; absent: none is), disabled (why; absent: it is
--       not), since (when it began to fail; absent: it does not), retrying (lanes with something to
--       retry), missing (removed queue entries without a delivery), unplaced (deliveries without a
--       queue entry; absent: not counted), claims: lane, attempts (their JSON), deliveries: { sort
--       key, JSON of fields }
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local furthest = tonumber(ARGV[8])
local far = 10 * 365 * 86400000 -- no clock is set back or forward by ten years

-- anybody may have written these: a time that this service cannot have written counts as absent
local function moment(text, earliest, latest)
  local time = tonumber(text or nil)
  if time and time >= earliest and time <= latest then return time end
end

local state = redis.call('HMGET', KEYS[1], 'disabled', 'failing_since', 'hold_until', 'seen')
local disabled = state[1] and state[1] ~= '' and state[1]
local seen = moment(state[4], now - far, now + far)
local ahead = seen and math.max(seen - now, 0) or 0 -- how far the clock was set back, if it was
local since = moment(state[2], now - far, now + ahead + 60000) -- `seen` may be older by NOTED
local hold = moment(state[3], 0, now + ahead + furthest) or 0

-- one call for many members is several times faster than one call each
local function all(command, key, members)
  for at = 1, #members, 1000 do
    redis.call(command, key, unpack(members, at, math.min(at + 999, #members)))
  end
end

-- the queue is sorted by member only while all scores are equal; otherwise lanes would seem empty
for _, bounds in ipairs({ { '-inf', '(0' }, { '(0', '+inf' } }) do
  local level = {}
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], bounds[1], bounds[2])) do
    level[#level + 1], level[#level + 2] = 0, member
  end
  all('ZADD', KEYS[3], level)
end

-- after the clock was set back, due times are too far in the future: move them back by as much
local passed = now - (seen or now)
if passed < 0 then
  local later = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf', 'WITHSCORES')
  local nearer = {}
  for i = 1, #later, 2 do
    nearer[i], nearer[i + 1] = math.max(now, tonumber(later[i + 1]) + passed), later[i]
  end
  all('ZADD', KEYS[2], nearer)
  if hold > 0 then
    hold = hold + passed
    redis.call('HSET', KEYS[1], 'hold_until', hold)
  end
end
-- this service writes no due time so far in the future: such lanes are due now
local slipped = {}
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now + furthest, '+inf')) do
  slipped[#slipped + 1], slipped[#slipped + 2] = now, lane
end
all('ZADD', KEYS[2], slipped)
-- time in which nobody tried the endpoint, or by which the clock jumped, does not count as failing
since = since and (passed < 0 and since or math.min(since, now))
if since and (passed < 0 or passed > tonumber(ARGV[7])) then
  since = math.min(now, since + passed)
  redis.call('HSET', KEYS[1], 'failing_since', since)
end
if not seen or passed < 0 or passed > tonumber(ARGV[6]) then
  redis.call('HSET', KEYS[1], 'seen', now)
end

local function waiting(lane, most)
  -- '}' follows '|': everything that starts with this lane and a '|'
  return redis.call('ZRANGEBYLEX', KEYS[3], '[' .. lane .. '|', '(' .. lane .. '}', 'LIMIT', 0, most)
end

local function failed(ending)
  since = since or now
  redis.call('HSET', KEYS[1], 'failing_since', since, 'last_error', ending.error,
    'last_error_at', now)
  if ending.hold > 0 and now + ending.hold > hold then
    hold = now + ending.hold
    redis.call('HSET', KEYS[1], 'hold_until', hold)
  end
  if ending.disable ~= '' and not disabled then
    disabled = ending.disable
    redis.call('HSET', KEYS[1], 'disabled', disabled, 'disabled_at', now)
  end
end

local ours, ended, members, succeeded = {}, {}, {}, false
for _, ending in ipairs(cjson.decode(ARGV[1])) do
  if redis.call('HGET', KEYS[5], ending.lane) == ending.token then
    ours[#ours + 1] = ending
    if ending.how == 'sent' then
      if since then redis.call('HDEL', KEYS[1], 'failing_since') end
      succeeded, since = true, nil
    elseif ending.how ~= 'returned' then
      failed(ending)
    end
    if ending.how == 'later' then redis.call('HSET', KEYS[6], ending.ids[1], ending.attempts) end
    for _, parked in ipairs(ending.parked) do
      redis.call('HSET', KEYS[7], parked[1], parked[2])
      ended[#ended + 1], members[#members + 1] = parked[1], ending.lane .. '|' .. parked[1]
    end
    if ending.how == 'sent' or ending.how == 'dead' then
      for i, id in ipairs(ending.ids) do
        if ending.letters then redis.call('HSET', KEYS[7], id, ending.letters[i]) end
        ended[#ended + 1], members[#members + 1] = id, ending.lane .. '|' .. id
      end
    end
  end
end
if succeeded then redis.call('HSET', KEYS[1], 'last_success', now) end
all('ZREM', KEYS[3], members)
all('HDEL', KEYS[4], ended)
all('HDEL', KEYS[6], ended)
local released, empty, due = {}, {}, {}
for _, ending in ipairs(ours) do
  released[#released + 1] = ending.lane
  if #waiting(ending.lane, 1) == 0 then
    empty[#empty + 1] = ending.lane
  else
    due[#due + 1], due[#due + 2] = now + ending.delay, ending.lane
  end
end
all('ZREM', KEYS[2], empty)
all('ZADD', KEYS[2], due)
all('HDEL', KEYS[5], released)

local answer = {
  now = now, since = since, retrying = redis.call('HLEN', KEYS[6]), missing = 0, claims = {},
}
if disabled then
  answer.disabled = disabled
  return cjson.encode(answer)
end
if hold > now then
  answer.wait = hold - now
  return cjson.encode(answer)
end

-- keys of this service are printable; other bytes would not survive the way to the client and back
local function named(text)
  return string.match(text, '^[ -~]+$')
end

-- the first deliveries of a lane; queue entries without a delivery are removed
local function first_of(lane)
  while true do
    local members, found, hollow = waiting(lane, ARGV[4]), {}, {}
    for _, member in ipairs(members) do
      local id = string.sub(member, #lane + 2)
      local text = named(lane) and named(id) and redis.call('HGET', KEYS[4], id)
      if text then found[#found + 1] = { id, text } else hollow[#hollow + 1] = member end
      if not named(id) then redis.call('HDEL', KEYS[4], id) end
    end
    all('ZREM', KEYS[3], hollow)
    answer.missing = answer.missing + #hollow
    if #found > 0 or #members == 0 then return found end
  end
end

-- if somebody has removed the due times, every lane is due now
if redis.call('EXISTS', KEYS[2]) == 0 then
  local strays = {}
  for at = 0, redis.call('ZCARD', KEYS[3]) - 1, 1000 do
    for _, member in ipairs(redis.call('ZRANGE', KEYS[3], at, at + 999)) do
      local lane = string.match(member, '^(.*)|')
      if lane then
        redis.call('ZADD', KEYS[2], 'NX', now, lane)
      else
        strays[#strays + 1] = member
      end
    end
  end
  all('ZREM', KEYS[3], strays)
  if redis.call('EXISTS', KEYS[3]) == 0 then answer.unplaced = redis.call('HLEN', KEYS[4]) end
end

local claimed, tokens, nothing = {}, {}, {}
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local first = first_of(lane)
  if #first == 0 then
    nothing[#nothing + 1] = lane
  else
    local claim = { lane = lane, deliveries = first }
    if answer.retrying > 0 then
      claim.attempts = redis.call('HGET', KEYS[6], first[1][1]) or nil
    end
    claimed[#claimed + 1], claimed[#claimed + 2] = now + ARGV[5], lane
    tokens[#tokens + 1], tokens[#tokens + 2] = lane, ARGV[2]
    answer.claims[#answer.claims + 1] = claim
  end
end
all('ZREM', KEYS[2], nothing)
all('HSET', KEYS[5], tokens) -- before the times: if this fails, nothing was claimed
all('ZADD', KEYS[2], claimed)
local next_due = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if next_due[2] then answer.wait = math.max(tonumber(next_due[2]) - now, 0) end
return cjson.encode(answer)
