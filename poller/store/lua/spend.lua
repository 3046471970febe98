-- Record requests as sent `margin` from now, whether they were recorded before or not.
-- KEYS  the budget of the account, and of the users it is logged in as
-- ARGV  1 period  2 margin, both in microseconds, then the requests
local clock = redis.call('TIME')
local at = clock[1] * 1000000 + clock[2] + ARGV[2]
for _, key in ipairs(KEYS) do
  for i = 3, #ARGV do redis.call('ZADD', key, at, ARGV[i]) end
  redis.call('PEXPIRE', key, math.ceil((ARGV[1] + ARGV[2]) / 500))
end
