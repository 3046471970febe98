-- Read the entries after an id, and the stream's state, as one text: a client parses it much faster
-- than a reply of as many parts.
-- KEYS  1 stream
-- ARGV  1 id  2 most entries
-- →     JSON: entries: list of { id, { name, value, … } }; state: the last-generated-id,
--       entries-added and id of the first-entry of XINFO STREAM (empty: there is no stream)
local last = '18446744073709551615-18446744073709551615' -- XRANGE fails after the last possible id
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
