-- Stay the active reader (time to live above 0), or let another one take over (0), if it is the one.
-- KEYS  1 stream  2 lock  3 record   ARGV  1 group  2 reader  3 time to live in milliseconds
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return end
if tonumber(ARGV[3]) > 0 then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
else
  redis.call('DEL', KEYS[2])
end
