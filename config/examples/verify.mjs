// The receiver's half of a webhook in Node: verify(secret, headers, body) returns the event.
// Copy the function into your receiver; it throws for what does not come from the poller.
import { createHmac, timingSafeEqual } from "node:crypto";

export function verify(secret, headers, body) {
  const [id, time] = [headers["webhook-id"], headers["webhook-timestamp"]];
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const good = Buffer.from("v1," + createHmac("sha256", key).update(`${id}.${time}.`).update(body).digest("base64"));
  const same = headers["webhook-signature"].split(" ").map((s) => Buffer.from(s)).some((s) => s.length === good.length && timingSafeEqual(s, good));
  if (!same || Math.abs(Date.now() / 1000 - time) > 300) throw new Error("not from the poller, or more than five minutes old");
  return JSON.parse(body);
}
