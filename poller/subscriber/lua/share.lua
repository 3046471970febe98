-- Deliver the next entries to one of several readers that share a group. A symbol is with one reader
-- until that has acknowledged all it received, so each symbol stays in order.
--
-- A window of up to WINDOW entries is read into the name of a consumer of its own; from it, in
-- order, a reader gets those of its share of the symbols. What a dead reader had goes back there.
--
-- KEYS  1 stream  2 lock: 'shared' keeps a reader that wants the group for itself waiting
--       3 record  4 sorted set: reader → when it counts as dead, milliseconds
--       5 hash: symbol → the reader that holds it
-- ARGV  1 group  2 reader  3 time to live in milliseconds  4 where a new group starts
--       5 most entries  6 where a deleted group goes on ("": not decided yet)
-- →     as receive.lua, and third how many entries wait for other readers; nil: one reader has the
--       group for itself
local WINDOW, QUEUE = 100, 'shared'
-- anybody may append entries of any size: read so many at a time, until they have so many bytes
local STEP, LARGEST = 10, 4194304
local group, reader = ARGV[1], ARGV[2]
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= 'shared' then
  local left = redis.call('PTTL', KEYS[2])
  if left == -1 or left > tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
  return false
end
redis.call('SET', KEYS[2], 'shared', 'PX', ARGV[3])
redis.call('ZADD', KEYS[4], now + ARGV[3], reader)
redis.call('PEXPIRE', KEYS[4], ARGV[3] * 2)
local gone = begin(ARGV[4], ARGV[6])
if gone then return { 'gone', gone } end

-- after the clock was set back, an end further away than a time to live is none
local function lives(name)
  local ends = redis.call('ZSCORE', KEYS[4], name)
  return ends and tonumber(ends) > now and tonumber(ends) <= now + ARGV[3]
end
local function symbol_of(entry)
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'code' then return fields[i + 1] end
  end
  return entry[1] -- nobody else's
end
local function size_of(entry)
  local size = 0
  for _, text in ipairs(entry[2]) do size = size + #text end
  return size
end
-- what a consumer has received and not acknowledged, and its bytes; trimmed entries are acknowledged
local function pending(name, most)
  local found, size, after, read = {}, 0, '0', {}
  repeat
    read = redis.call(
      'XREADGROUP', 'GROUP', group, name, 'COUNT', STEP, 'STREAMS', KEYS[1], after)[1][2]
    for _, entry in ipairs(read) do
      after = entry[1]
      if not entry[2] then
        redis.call('XACK', KEYS[1], group, entry[1])
      elseif #found < most then
        found[#found + 1], size = entry, size + size_of(entry)
      end
    end
  until #read < STEP or #found >= most or size >= LARGEST
  return found, size
end

local readers = 0
for _, known in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
  local name = named(known).name
  if name == QUEUE then -- not a reader
  elseif name == reader or lives(name) then
    readers = readers + 1
  else
    repeat
      local left = redis.call('XPENDING', KEYS[1], group, '-', '+', WINDOW, name)
      for _, each in ipairs(left) do
        if #redis.call('XCLAIM', KEYS[1], group, QUEUE, 0, each[1], 'JUSTID') == 0 then
          redis.call('XACK', KEYS[1], group, each[1]) -- it was trimmed
        end
      end
    until #left == 0
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, name)
    redis.call('ZREM', KEYS[4], name)
  end
end

local lost = pending(reader, tonumber(ARGV[5])) -- in an answer that did not arrive
if #lost > 0 then return { delivered(), lost, 0 } end

local held = named(redis.call('HGETALL', KEYS[5]))
for symbol, name in pairs(held) do
  if name == reader or not lives(name) then
    redis.call('HDEL', KEYS[5], symbol)
    held[symbol] = nil
  end
end

local waiting, size = pending(QUEUE, WINDOW)
while #waiting < WINDOW and size < LARGEST do
  local count = math.min(STEP, WINDOW - #waiting)
  local read = redis.call(
    'XREADGROUP', 'GROUP', group, QUEUE, 'COUNT', count, 'STREAMS', KEYS[1], '>')
  if not read then break end
  for _, entry in ipairs(read[1][2]) do
    waiting[#waiting + 1], size = entry, size + size_of(entry)
  end
end
local free, count = {}, 0
for _, entry in ipairs(waiting) do
  local symbol = symbol_of(entry)
  if not held[symbol] and not free[symbol] then
    free[symbol], count = true, count + 1
  end
end
local share = math.ceil(count / math.max(readers, 1))
local found, mine = {}, {}
for _, entry in ipairs(waiting) do
  local symbol = symbol_of(entry)
  if free[symbol] and not mine[symbol] and share > 0 then
    share, mine[symbol] = share - 1, true
    redis.call('HSET', KEYS[5], symbol, reader)
  end
  if mine[symbol] then
    redis.call('XCLAIM', KEYS[1], group, reader, 0, entry[1], 'JUSTID')
    found[#found + 1] = entry
    if #found >= tonumber(ARGV[5]) then break end
  end
end
redis.call('PEXPIRE', KEYS[5], ARGV[3] * 2)
return { delivered(), found, #waiting - #found }
