import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { curl, missing, quote } from "../static/lib/curl.js";
import { parse } from "../static/lib/json.js";

const bash = ["/bin/bash", "/usr/bin/bash"].find(existsSync);
/** What a shell makes of arguments. */
const read = (args) => execFileSync(bash, ["--noprofile", "--norc", "-c", `printf '%s\\0' ${args}`], { env: { LC_ALL: "C.UTF-8", SECRET: "leaked", PATH: "" } }).toString().split("\0").slice(0, -1);

const hostile = [
  "", "plain", "it's", "'; rm -rf / #", "$(id)", "`id`", "${SECRET} $SECRET", '"', "\\", "\\'", "a\nb", "!!", "-rf", "~", "*", "a b\tc", "\u001b[201~; id\n", "\u202egpj", "\u0085", "ü 日本 😀", "😀\u200b", "\r\n", "%s",
];

test("whatever a text holds, it is one argument", { skip: !bash && "there is no bash" }, () => {
  for (const text of hostile) assert.deepEqual(read(quote(text)), [text]);
  assert.deepEqual(read(hostile.map(quote).join(" ")), hostile);
});

/** What a shell that knows only the quotes of POSIX does, or one in which \\ escapes within them, as in fish: the words, and what it would run besides. */
function words(command, escaped) {
  const out = [];
  let [word, quoted] = ["", false];
  for (let i = 0; i < command.length; i++) {
    const c = command[i];
    if (quoted && escaped && c === "\\" && "\\'".includes(command[i + 1])) word += command[++i];
    else if (quoted && c !== "'") word += c;
    else if (c === "'") quoted = !quoted;
    else if (c === "\\") word += command[++i];
    else if (/\s/.test(c)) (out.push(word), (word = ""));
    else if (/[;&|<>()#`]/.test(c)) assert.fail(`${c} at ${i} would be read as a command: ${command}`);
    else word += c;
  }
  assert.equal(quoted, false, command);
  return [...out, word];
}

test("no shell runs a part of a text, whatever it knows of quotes", () => {
  const texts = [...hostile, "\u001b'; touch pwned; '", "\\'; touch pwned; #", "\\\\\\'; touch pwned; #", "x\\", "; touch pwned; #", "\\\\'; id; '", "\\\u001b'; id; #"];
  for (const escaped of [false, true]) {
    for (const text of texts) assert.equal(words(quote(text), escaped).length, 1, text);
    assert.equal(words(texts.map(quote).join(" "), escaped).length, texts.length);
  }
  const dash = ["/bin/dash", "/usr/bin/dash"].find(existsSync);
  if (dash) assert.equal(execFileSync(dash, ["-c", `printf '%s\\0' ${texts.map(quote).join(" ")}`]).toString().split("\0").length - 1, texts.length);
  if (bash) assert.deepEqual(read(texts.map(quote).join(" ")), texts);
});

test("a terminal acts on nothing in it", () => {
  for (const text of hostile) assert.doesNotMatch(quote(text), /[\p{Cc}\u202e\u200b]/u);
  assert.equal(quote("a\0b"), "'ab'");
});

test("a command has the request, and references stay text", { skip: !bash && "there is no bash" }, () => {
  const body = parse('{"id":12345678901234567890,"note":"it\'s $(id) \u202e \u2028"}', { maps: true });
  const command = curl({ method: "POST", url: "http://x/$(id)?[a]={b}", headers: { Authorization: "Bearer ${SECRET}", "X-Empty": "", "@/etc/passwd": "x" }, body }, "f.json");
  const args = read(command.replace(/^curl/, ""));
  assert.deepEqual(args.slice(0, 5), ["--globoff", "--request", "POST", "--url", "http://x/$(id)?[a]={b}"]);
  assert.deepEqual(args.filter((_, i) => args[i - 1] === "--header"), ["Content-Type: application/json", "Authorization: Bearer ${SECRET}", "X-Empty;", "/etc/passwd: x"]);
  assert.equal(args.at(-2), "--data-raw");
  assert.deepEqual(JSON.parse(args.at(-1).replace("12345678901234567890", "1")), { id: 1, note: "it's $(id) \u202e \u2028" });
  assert.match(args.at(-1), /12345678901234567890/);
  assert.match(curl({ method: "POST", url: "u", headers: { "content-type": "a/b" }, body: "x".repeat(200_000) }, "it's.json"), /^(?!.*application).*--data-binary '@it'\\''s\.json'$/s);
});

test("a form is sent as it is, and a request without a body has none", { skip: !bash && "there is no bash" }, () => {
  const headers = { "Content-Type": "application/x-www-form-urlencoded" };
  assert.equal(read(curl({ method: "POST", url: "u", headers, body: "a=b+c" }, "f").replace(/^curl/, "")).at(-1), "a=b+c");
  assert.equal(read(curl({ method: "POST", url: "u", body: "a=b+c" }, "f").replace(/^curl/, "")).at(-1), '"a=b+c"');
  assert.deepEqual(read(curl({ method: "GET", url: "u", body: null }, "f").replace(/^curl/, "")), ["--globoff", "--request", "GET", "--url", "u"]);
  assert.deepEqual(missing({ url: "u", expands: ["a ${TOKEN}"] }), ["${TOKEN}"]);
});

test("what has to be filled in is named", () => {
  assert.deepEqual(missing({ url: "http://${HOST}/", headers: { A: "Bearer ${file:/run/x} ${HOST}", B: "<redacted>" } }), ["${HOST}", "${file:/run/x}", "the header B"]);
  assert.deepEqual(missing({ url: "http://x/" }), []);
});
