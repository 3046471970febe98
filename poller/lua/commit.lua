-- One poll, whole or not at all. A script runs alone but is not rolled back, so everything that can
-- refuse stands first, the entries follow, and the watermark moves last: a server that dies in
-- between can only make the same comparison run again, and that is refused or finds nothing.
--
-- KEYS  1 stream  2 watermark  3 history  4 vintages  5 lease
-- ARGV  1 code  2 lease value ("": one-off, no lease)  3 watermark expected ("": none)  4 watermark
--       next  5 number of days W, then W times: day, expected text, new text, revision ("": repair)
--       then number of entries E, number of fields F, the F field names, then E times the F values
local types = { 'stream', 'hash', 'hash', 'hash', 'string' }
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
local entries, fields = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
at = at + 1
local values, texts = at + fields, {}
for field = 1, fields do texts[2 * field - 1] = ARGV[at + field] end
for entry = 0, entries - 1 do
  for field = 1, fields do texts[2 * field] = ARGV[values + entry * fields + field] end
  redis.call('XADD', KEYS[1], '*', unpack(texts))
end

-- a call takes some 8,000 arguments at the most
local function set(key, pairs_)
  for first = 1, #pairs_, 2000 do
    redis.call('HSET', key, unpack(pairs_, first, math.min(first + 1999, #pairs_)))
  end
end
set(KEYS[4], vintages)
set(KEYS[3], days)
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], code, ARGV[4]) end
return { 'ok' }
