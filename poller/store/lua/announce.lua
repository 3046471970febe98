-- Append one notice of a release, once: an id that was announced is never announced again.
--
-- The entry is written before its mark: a server that dies in between can only repeat it, not lose it.
--
-- KEYS  1 stream of releases  2 told  3 lease
-- ARGV  1 lease value ("": one-off, no lease)  2 id  3 observed at  4 … field, value, field, value
local types = { 'stream', 'hash', 'string' }
for i, wanted in ipairs(types) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= wanted then return { 'type', KEYS[i], found, wanted } end
end
if ARGV[1] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[1] then return { 'lease' } end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return { 'told' } end
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 4))
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return { 'ok' }
