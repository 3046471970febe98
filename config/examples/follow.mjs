// Prints every new event as a line of JSON; needs no package: node follow.mjs [URL]
// URL: redis://USER:PASSWORD@HOST:PORT/DB or unix://:PASSWORD@/path/of/redis.sock
import { connect } from "node:net";

const text = process.argv[2] ?? "redis://127.0.0.1:6379";
// a URL must name a host, which a path lacks
const url = new URL(text.replace(/^unix:\/\/([^/]*@)?\//, "unix://$1socket/"));
const [protocol, user, password, path] = ["protocol", "username", "password", "pathname"].map(
  (part) => decodeURIComponent(url[part]),
);
const places = {
  "redis:": { port: Number(url.port || 6379), host: url.hostname.replace(/^\[|\]$/g, "") },
  "unix:": { path },
};
let last; // where the stream ended when this began, then the last event printed

// one value of the protocol at a byte: [value, the byte behind it]; undefined when it is not whole
function read(bytes, at) {
  const end = bytes.indexOf("\r\n", at);
  if (end < 0) return undefined;
  const [kind, text] = [String.fromCharCode(bytes[at]), bytes.toString("utf8", at + 1, end)];
  if (kind === "-") return [new Error(text), end + 2];
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

function end(problem) {
  console.error(problem);
  process.exit(1);
}

function follow() {
  const socket = connect(places[protocol] ?? end(`${protocol}// is not spoken here`));
  const ask = () =>
    socket.write(
      last === undefined
        ? command("XREVRANGE", "short-interest", "+", "-", "COUNT", "1")
        : command("XREAD", "BLOCK", "0", "STREAMS", "short-interest", last),
    );
  let bytes = Buffer.alloc(0);
  socket.on("connect", () => {
    if (password) socket.write(command("AUTH", ...(user ? [user] : []), password));
    if (protocol === "redis:" && path.length > 1) socket.write(command("SELECT", path.slice(1)));
    ask();
  });
  socket.on("data", (piece) => {
    bytes = Buffer.concat([bytes, piece]);
    for (let answer; (answer = read(bytes, 0)) !== undefined; ) {
      bytes = bytes.subarray(answer[1]);
      tell(answer[0]);
    }
  });
  function tell(value) {
    if (value === "OK") return; // of AUTH and SELECT
    if (value instanceof Error) {
      if (!value.message.startsWith("LOADING")) end(`Redis refuses: ${value.message}`);
      socket.destroy(); // it is starting: try again
      return;
    }
    if (last === undefined) {
      last = value[0]?.[0] ?? "0-0";
      ask();
      return;
    }
    for (const [id, texts] of value[0][1]) {
      const event = {};
      for (let n = 0; n < texts.length; n += 2) event[texts[n]] = texts[n + 1];
      console.log(JSON.stringify({ ...event, data: JSON.parse(event.data) }));
      last = id;
    }
    ask();
  }
  socket.on("error", (problem) => console.error(problem.message || problem.code));
  socket.on("close", () => setTimeout(follow, 1000)); // a server that restarts is waited for
}

follow();
