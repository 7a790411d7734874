// A receiver in Node, without packages. It verifies a request, stores its event once, and answers.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const secret = process.env.ORDERS_SECRET;
if (!secret) throw new Error("ORDERS_SECRET is not set");

function verify(headers, body) {
  const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret);
  const sentAt = headers["webhook-timestamp"] ?? "";
  if (!/^[0-9]+$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > 300) return false;
  const hmac = createHmac("sha256", key).update(`${headers["webhook-id"]}.${sentAt}.`).update(body);
  const want = Buffer.from(`v1,${hmac.digest("base64")}`);
  return (headers["webhook-signature"] ?? "").split(" ").some((given) => {
    const bytes = Buffer.from(given);
    return bytes.length === want.length && timingSafeEqual(bytes, want);
  });
}

const seen = new Set(); // stands for a table with a unique id, written in the transaction that does the work

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
    const body = Buffer.concat(chunks); // as it arrived: JSON that is parsed and written again has another signature
    const answer = (status) => response.writeHead(status).end();
    if (!verify(request.headers, body)) return answer(401);
    let event;
    try {
      event = JSON.parse(body);
    } catch {
      return answer(400);
    }
    if (!event?.id) return answer(400);
    if (!seen.has(event.id)) {
      seen.add(event.id);
      console.log(event.trigger.name, event.event.op, JSON.stringify(event.event.data.new));
    }
    answer(204);
  });
});
const [host, port] = (process.env.LISTEN ?? "127.0.0.1:3000").split(":");
server.listen(port, host, () => console.log(`listening on ${host}:${server.address().port}`));
