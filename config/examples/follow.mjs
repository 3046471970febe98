// Prints every new event as a line of JSON; needs no package: node follow.mjs [URL]
import { connect } from "node:net";

const url = new URL(process.argv[2] ?? "redis://127.0.0.1:6379");
let last = "$";

// one value of the protocol at a byte: [value, the byte behind it]; undefined when it is not whole
function read(bytes, at) {
  const end = bytes.indexOf("\r\n", at);
  if (end < 0) return undefined;
  const [kind, text] = [String.fromCharCode(bytes[at]), bytes.toString("utf8", at + 1, end)];
  if (kind === "-") throw new Error(text);
  if (kind === "$") {
    const behind = end + 2 + Number(text);
    return bytes.length < behind + 2 ? undefined : [bytes.toString("utf8", end + 2, behind), behind + 2];
  }
  if (kind !== "*") return [text, end + 2];
  const values = [];
  let next = end + 2;
  for (let n = 0; n < Number(text); n++) {
    const value = read(bytes, next);
    if (value === undefined) return undefined;
    values.push(value[0]);
    next = value[1];
  }
  return [values, next];
}

const command = (...words) =>
  `*${words.length}\r\n` + words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("");

function follow() {
  const socket = connect(Number(url.port || 6379), url.hostname);
  const ask = () => socket.write(command("XREAD", "BLOCK", "0", "STREAMS", "short-interest", last));
  let bytes = Buffer.alloc(0);
  socket.on("connect", ask);
  socket.on("data", (piece) => {
    bytes = Buffer.concat([bytes, piece]);
    const answer = read(bytes, 0);
    if (answer === undefined) return;
    bytes = bytes.subarray(answer[1]);
    for (const [id, texts] of answer[0][0][1]) {
      const event = {};
      for (let n = 0; n < texts.length; n += 2) event[texts[n]] = texts[n + 1];
      console.log(JSON.stringify({ ...event, data: JSON.parse(event.data) }));
      last = id;
    }
    ask();
  });
  socket.on("error", (problem) => console.error(problem.message));
  socket.on("close", () => setTimeout(follow, 1000)); // a server that restarts is waited for
}

follow();
