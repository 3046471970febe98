-- Record requests as sent `margin` from now, whether they were recorded before or not.
-- KEYS  1 budget
-- ARGV  1 period  2 margin, both in microseconds, then the requests
local clock = redis.call('TIME')
local at = clock[1] * 1000000 + clock[2] + ARGV[2]
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], at, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], math.ceil((ARGV[1] + ARGV[2]) / 500))
