-- Let the one active reader of a group have what is next: what was delivered and not acknowledged,
-- by whomever, before what is new. Delivery and the right to it are one step, so that entries come
-- in order whoever dies, and a lost answer is given again.
--
-- KEYS  1 stream  2 lock
-- ARGV  1 group  2 reader  3 lock's time to live in milliseconds  4 where a new group starts
--       5 how many at the most
-- →     nil: another reader is active; else { last id delivered, { { id, { field, value, … } }, … } }
local group, reader = ARGV[1], ARGV[2]
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= reader then
  -- a clock that stepped back leaves it for as long as the step; who lives prolongs it before
  if redis.call('PTTL', KEYS[2]) > tonumber(ARGV[3]) then
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
if not delivered() then redis.call('XGROUP', 'CREATE', KEYS[1], group, ARGV[4], 'MKSTREAM') end

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

-- readers that are gone have nothing left now that it was claimed
if #found == 0 then
  for _, known in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    local facts = {}
    for i = 1, #known, 2 do facts[known[i]] = known[i + 1] end
    if facts.name ~= reader then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, facts.name) end
  end
end
return { delivered(), found }
