"""What a user would write instead: loop over the SDK, XADD what is newer. A baseline only."""

import sys
from pathlib import Path

import futu
import redis

port, url, listed = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
client = redis.Redis.from_url(url, decode_responses=True)
futu.SysConfig.set_all_thread_daemon(True)
context = futu.OpenQuoteContext(host="127.0.0.1", port=port)
for code in listed.read_text().split():
    status, us_frame, hk_frame = context.get_short_interest(code)
    if status != futu.RET_OK:
        sys.stderr.write(f"{code}: {us_frame}\n")
        continue
    frame = hk_frame if code.startswith("HK.") else us_frame
    known = str(client.hget("seen", code) or "")
    for row in reversed(frame.to_dict("records")):
        if str(row["timestamp_str"]) > known:
            client.xadd("bare", {"code": code, **{k: str(v) for k, v in row.items()}})
            client.hset("seen", code, str(row["timestamp_str"]))
context.close()
