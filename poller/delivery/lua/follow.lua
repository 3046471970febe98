-- Read what follows an id on the stream, and how the stream stands, as one text: a client takes it
-- apart much quicker than a reply of as many parts.
-- KEYS  1 stream
-- ARGV  1 id  2 most entries
-- →     JSON: entries: list of { id, { name, value, … } }; state: XINFO STREAM as a list of names
--       and values (absent: there is no stream)
local last = '18446744073709551615-18446744073709551615' -- a server refuses to look behind it
local entries = {}
if ARGV[1] ~= last then
  entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
end
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
local state = {}
if not info.err then
  for i = 1, #info, 2 do
    local name, value = info[i], info[i + 1]
    if name == 'last-generated-id' or name == 'entries-added' then state[name] = value end
    if name == 'first-entry' and value then state[name] = value[1] end
  end
end
return cjson.encode({ entries = entries, state = state })
