-- Deliver the next entries to the one active reader of a group: first those delivered to any reader
-- and not acknowledged, then new ones. The lock is taken in the same step, so that entries stay in
-- order across crashes, and a lost answer is delivered again.
--
-- KEYS  1 stream  2 lock  3 record
-- ARGV  1 group  2 reader  3 lock's time to live in milliseconds  4 where a new group starts
--       5 most entries  6 where a deleted group goes on ("": not decided yet)
-- →     nil: another reader is active; else { last id delivered, { { id, { field, value, … } }, …
--       } }; or { 'gone', JSON: now, acknowledged, at (absent: not stored), last, first, added (from
--       XINFO STREAM; absent: not there) }
local group, reader = ARGV[1], ARGV[2]
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
local gone = begin(ARGV[4], ARGV[6])
if gone then return { 'gone', gone } end

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
    local facts = named(known)
    if facts.name ~= reader then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, facts.name) end
  end
end
return { delivered(), found }
