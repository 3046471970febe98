-- Read what follows an id on the stream, as one text: a client takes it apart much quicker than a
-- reply of as many parts.
-- KEYS  1 stream
-- ARGV  1 id  2 most entries
-- →     JSON list of entries: { id, { name, value, … } }
return cjson.encode(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2]))
