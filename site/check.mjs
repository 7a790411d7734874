// Checks the site that was built: pages, links with their anchors, the search, llms.txt, and that no
// page asks another host for anything.
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { dirname, join, posix, relative } from "node:path";
import { groups, home } from "./prepare.mjs";

const dist = join(home, "dist");
const base = process.env.SITE_BASE ?? "/";
const wrong = [];

function* below(directory) {
  for (const e of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, e.name);
    if (e.isDirectory()) yield* below(path);
    else yield path;
  }
}

const files = [...below(dist)];
const pages = new Map(files.filter((f) => f.endsWith(".html")).map((f) => [relative(dist, f), readFileSync(f, "utf8")]));
const ids = new Map([...pages].map(([name, html]) => [name, new Set([...html.matchAll(/ id="([^"]+)"/g)].map((m) => m[1]))]));
const decode = (text) => decodeURIComponent(text.replaceAll("&amp;", "&"));

for (const [name, html] of pages) {
  if (name === "404.html") continue;
  for (const [, tag, to] of html.matchAll(/<(\w+)\b[^>]*? (?:href|src)="([^"]*)"/g)) {
    if (/^(https?:|mailto:|data:)/.test(to)) {
      if (tag !== "a" && !to.startsWith("data:")) wrong.push(`${name} asks another host: ${to}`);
      continue;
    }
    const [path, hash] = decode(to).split("#");
    let target = path === "" ? name : posix.normalize(path.startsWith("/") ? path.slice(base.length) : posix.join(dirname(name), path));
    if (target === "" || target === "." || target.endsWith("/")) target = posix.join(target, "index.html");
    if (!existsSync(join(dist, target)) && existsSync(join(dist, `${target}.html`))) target += ".html";
    if (!existsSync(join(dist, target)) || !statSync(join(dist, target)).isFile()) wrong.push(`${name}: ${to} leads nowhere`);
    else if (hash && !ids.get(target)?.has(hash)) wrong.push(`${name}: ${to}: there is no such heading`);
  }
  const shown = html.slice(html.indexOf("<main"), html.indexOf("</main>")).replace(/<(pre|code)\b[^]*?<\/\1>/g, "");
  if (!shown.includes("<h1")) wrong.push(`${name} has no heading`);
}
const index = files.find((f) => /localSearchIndex/.test(f));
const searched = index ? readFileSync(index, "utf8") : "";
const listed = readFileSync(join(dist, "llms.txt"), "utf8");
for (const { page } of groups.flatMap((g) => g.items)) {
  const name = `${page}.html`;
  if (!pages.has(name)) wrong.push(`there is no ${name}`);
  if (!searched.includes(`${base}${page.replace(/index$/, "")}`)) wrong.push(`the search does not find ${page}`);
  if (!listed.includes(`(${page}.md)`) || !existsSync(join(dist, `${page}.md`))) wrong.push(`llms.txt does not lead to ${page}`);
}
if (wrong.length) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
console.log(`${pages.size} pages, ${groups.flatMap((g) => g.items).length} of them listed: links, search and llms.txt are right`);
