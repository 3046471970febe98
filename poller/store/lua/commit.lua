-- Commit one poll, all or nothing. Scripts run alone but are not rolled back, so all checks come
-- first, then the entries, and the watermark last: after a crash in between, the same comparison
-- runs again, and is refused or finds nothing new.
--
-- KEYS  1 stream  2 watermark  3 history  4 vintages  5 lease  6 held  7 quarantine stream
-- ARGV  1 code  2 lease value ("": one-off, no lease)  3 watermark expected ("": none)  4 watermark
--       next  5 number of days W, then W times: day, expected text, new text, revision ("": repair)
--       then number of held days H, then H times: day, expected text, new text ("": no longer held)
--       then twice, for the stream and for the quarantine stream: number of entries E, number of
--       fields F, the F field names, E times the F values
local types = { 'stream', 'hash', 'hash', 'hash', 'string', 'hash', 'stream' }
for i, wanted in ipairs(types) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= wanted then return { 'type', KEYS[i], found, wanted } end
end
if ARGV[2] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[2] then return { 'lease' } end
local code = ARGV[1]
if (redis.call('HGET', KEYS[2], code) or '') ~= ARGV[3] then return { 'superseded', 'watermark' } end

local at, count = 6, tonumber(ARGV[5])
local days, vintages = {}, {}
for i = 0, count - 1 do
  local day = at + 4 * i
  if (redis.call('HGET', KEYS[3], ARGV[day]) or '') ~= ARGV[day + 1] then
    return { 'superseded', ARGV[day] }
  end
  days[#days + 1], days[#days + 2] = ARGV[day], ARGV[day + 2]
  if ARGV[day + 3] ~= '' then
    local vintage = ARGV[day] .. ':' .. ARGV[day + 3]
    if redis.call('HEXISTS', KEYS[4], vintage) == 1 then return { 'used', vintage } end
    vintages[#vintages + 1], vintages[#vintages + 2] = vintage, ARGV[day + 2]
  end
end

at = at + 4 * count
local held, settled = {}, {}
count = tonumber(ARGV[at])
for day = at + 1, at + 3 * count, 3 do
  if (redis.call('HGET', KEYS[6], ARGV[day]) or '') ~= ARGV[day + 1] then
    return { 'superseded', ARGV[day] }
  end
  if ARGV[day + 2] == '' then
    settled[#settled + 1] = ARGV[day]
  else
    held[#held + 1], held[#held + 2] = ARGV[day], ARGV[day + 2]
  end
end
at = at + 1 + 3 * count

local function append(stream)
  local entries, fields = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 1
  local values, texts = at + fields, {}
  for field = 1, fields do texts[2 * field - 1] = ARGV[at + field] end
  for entry = 0, entries - 1 do
    for field = 1, fields do texts[2 * field] = ARGV[values + entry * fields + field] end
    redis.call('XADD', stream, '*', unpack(texts))
  end
  at = values + entries * fields + 1
end
append(KEYS[1])
append(KEYS[7])

-- a call takes at most some 8,000 arguments
local function set(key, pairs_)
  for first = 1, #pairs_, 2000 do
    redis.call('HSET', key, unpack(pairs_, first, math.min(first + 1999, #pairs_)))
  end
end
for _, day in ipairs(settled) do redis.call('HDEL', KEYS[6], day) end
set(KEYS[6], held)
set(KEYS[4], vintages)
set(KEYS[3], days)
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], code, ARGV[4]) end
return { 'ok' }
