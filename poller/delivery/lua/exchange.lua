-- Write down how claims ended, then claim due lanes: one write, and one way to the server and back.
-- A claim that somebody else took over meanwhile is passed over. A claimed lane becomes due again by
-- itself unless its claim is settled before.
-- KEYS  1 state  2 due  3 queue  4 deliveries  5 claims  6 attempts  7 dead
-- ARGV  1 JSON list of settlements: lane, token, how, ids (padded), delay, hold, disable, error,
--       attempts (their JSON), letters (JSON of each dead letter); times in milliseconds
--       2 token  3 most lanes  4 most deliveries of each  5 milliseconds the claim lasts
--       6, 7 milliseconds: see NOTED and ABSENT of the outbox
-- →     JSON: now, wait (until the next lane is due; absent: none is), disabled (why; absent: it is
--       not), since (when failing), retrying (lanes with something to retry), claims: lane,
--       attempts (their JSON), deliveries: { padded id, JSON of fields }
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'disabled', 'failing_since', 'hold_until', 'seen')
local disabled, since, hold = state[1], tonumber(state[2] or nil), tonumber(state[3] or 0)
local seen = tonumber(state[4] or nil)

-- a call for all of them is several times quicker than one for each
local function all(command, key, members)
  for at = 1, #members, 1000 do
    redis.call(command, key, unpack(members, at, math.min(at + 999, #members)))
  end
end

-- a clock that was set back leaves what is due as far ahead of it: that comes nearer by as much
local passed = now - (seen or now)
if passed < 0 then
  local ahead = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf', 'WITHSCORES')
  local nearer = {}
  for i = 1, #ahead, 2 do
    nearer[i], nearer[i + 1] = math.max(now, ahead[i + 1] + passed), ahead[i]
  end
  all('ZADD', KEYS[2], nearer)
  if state[3] then
    hold = hold + passed
    redis.call('HSET', KEYS[1], 'hold_until', hold)
  end
end
-- an endpoint that nobody tried meanwhile has not failed, nor while a clock jumped
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

local ours, gone, members, taken = {}, {}, {}, false
for _, ending in ipairs(cjson.decode(ARGV[1])) do
  if redis.call('HGET', KEYS[5], ending.lane) == ending.token then
    ours[#ours + 1] = ending
    if ending.how == 'sent' then
      if since then redis.call('HDEL', KEYS[1], 'failing_since') end
      taken, since = true, nil
    elseif ending.how ~= 'returned' then
      failed(ending)
    end
    if ending.how == 'later' then redis.call('HSET', KEYS[6], ending.ids[1], ending.attempts) end
    if ending.how == 'sent' or ending.how == 'dead' then
      for i, id in ipairs(ending.ids) do
        if ending.letters then redis.call('HSET', KEYS[7], id, ending.letters[i]) end
        gone[#gone + 1], members[#members + 1] = id, ending.lane .. '|' .. id
      end
    end
  end
end
if taken then redis.call('HSET', KEYS[1], 'last_success', now) end
all('ZREM', KEYS[3], members)
all('HDEL', KEYS[4], gone)
all('HDEL', KEYS[6], gone)
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

local answer = { now = now, since = since, retrying = redis.call('HLEN', KEYS[6]), claims = {} }
if disabled then
  answer.disabled = disabled
  return cjson.encode(answer)
end
if hold > now then
  answer.wait = hold - now
  return cjson.encode(answer)
end
local claimed, tokens, nothing = {}, {}, {}
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local first = waiting(lane, ARGV[4])
  if #first == 0 then
    nothing[#nothing + 1] = lane
  else
    local claim = { lane = lane, deliveries = {} }
    for i, member in ipairs(first) do
      local id = string.sub(member, #lane + 2)
      claim.deliveries[i] = { id, redis.call('HGET', KEYS[4], id) }
    end
    if answer.retrying > 0 then
      claim.attempts = redis.call('HGET', KEYS[6], claim.deliveries[1][1]) or nil
    end
    claimed[#claimed + 1], claimed[#claimed + 2] = now + ARGV[5], lane
    tokens[#tokens + 1], tokens[#tokens + 2] = lane, ARGV[2]
    answer.claims[#answer.claims + 1] = claim
  end
end
all('ZREM', KEYS[2], nothing)
all('ZADD', KEYS[2], claimed)
all('HSET', KEYS[5], tokens)
local next_due = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if next_due[2] then answer.wait = math.max(next_due[2] - now, 0) end
return cjson.encode(answer)
