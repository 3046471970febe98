-- Extend the lease (time to live above 0) or release it (0), if it is still ours.
-- KEYS 1 lease   ARGV 1 lease value  2 time to live in milliseconds   → 1 when it was ours
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('DEL', KEYS[1])
end
return 1
