// Copies what the site shows into site/.cache/src: docs/, README.md as the first page, rowhook.yaml
// and CHANGELOG.md. Links that lead out of docs/ become links of the site, or of the repository.
// Writes llms.txt, and the pages themselves in one file for programs that read.
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, posix, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

export const repository = "https://github.com/rowhook/rowhook";
export const root = join(dirname(fileURLToPath(import.meta.url)), "..");
export const home = join(root, ".cache", "site");
export const source = join(root, "site", ".cache", "src");
export const groups = JSON.parse(readFileSync(join(root, "site", "pages.json"), "utf8"));

/** Pages that are made of files outside of docs/, by those files. */
const outside = { "README.md": "index", "rowhook.yaml": "rowhook-yaml", "CHANGELOG.md": "changelog" };

/** The page of a file of the repository, without ".md"; undefined: it has none. */
function pageOf(file) {
  if (file in outside) return outside[file];
  if (!file.startsWith("docs/") || !file.endsWith(".md")) return undefined;
  return file.slice("docs/".length, -".md".length).replace(/(^|\/)README$/, "$1index");
}

/** Rewrites the links of a Markdown file of the repository for the page that it becomes. */
function links(text, file) {
  const here = dirname(pageOf(file));
  return text.replace(/(!?\[[^\]]*\])\(([^)\s]+)\)/g, (whole, label, to) => {
    if (/^(\w+:|#)/.test(to)) return whole;
    const [path, hash] = to.split("#");
    const target = posix.join(dirname(file), path).replace(/\/$/, "");
    if (!existsSync(join(root, target))) throw new Error(`${file}: the link ${to} leads nowhere`);
    const anchor = hash ? `#${hash}` : "";
    const directory = statSync(join(root, target)).isDirectory();
    const page = pageOf(directory ? `${target}/README.md` : target);
    if (page !== undefined && (!directory || existsSync(join(root, target, "README.md")))) return `${label}(${near(here, page)}.md${anchor})`;
    if (label.startsWith("!")) return `${label}(${near(here, target.replace(/^docs\//, ""))})`;
    return `${label}(${repository}/${directory ? "tree" : "blob"}/main/${target}${anchor})`;
  });
}

const near = (/** @type {string} */ from, /** @type {string} */ to) => {
  const path = posix.relative(from, to);
  return path.startsWith(".") ? path : `./${path}`;
};

const languages = [
  [/^\s*(#.*\n)*\s*[{[]\s*("|\n|\{)/, "json"],
  [/^(select|insert|update|delete|create|alter|drop|grant|revoke|begin|set|with|copy|truncate|explain)\b/im, "sql"],
  [/^\s*(- )?[a-z_]+:( |$)/m, "yaml"],
  [/^(import |from |def )/m, "python"],
  [/^\s*(rowhook|curl|export|docker|go|scripts\/|psql|git|sudo|pg_dump|kubectl|helm|make)\b/m, "sh"],
];

/** The language of an indented block, for colours; a guess. */
export function language(code) {
  const found = languages.find(([pattern]) => pattern.test(code));
  return found ? found[1] : "text";
}

/** All files below a directory of the repository. */
function* below(directory) {
  for (const e of readdirSync(join(root, directory), { withFileTypes: true })) {
    const path = `${directory}/${e.name}`;
    if (e.isDirectory()) yield* below(path);
    else yield path;
  }
}

export function prepare() {
  rmSync(source, { recursive: true, force: true });
  mkdirSync(join(source, "public"), { recursive: true });
  const write = (path, text) => {
    mkdirSync(dirname(join(source, path)), { recursive: true });
    writeFileSync(join(source, path), text);
  };
  const made = new Map();
  const page = (file, text) => {
    made.set(pageOf(file), text);
    write(`${pageOf(file)}.md`, text);
  };
  for (const file of below("docs")) {
    if (file.endsWith(".md")) page(file, links(readFileSync(join(root, file), "utf8"), file));
    else if (/\.(png|svg)$/.test(file)) {
      mkdirSync(dirname(join(source, file.slice(5))), { recursive: true });
      cpSync(join(root, file), join(source, file.slice(5)));
    }
  }
  cpSync(join(root, "docs", "rowhook.schema.json"), join(source, "public", "rowhook.schema.json"));
  for (const file of ["README.md", "CHANGELOG.md"]) page(file, links(readFileSync(join(root, file), "utf8"), file));
  const yaml = readFileSync(join(root, "rowhook.yaml"), "utf8");
  page("rowhook.yaml", `# rowhook.yaml\n\nEvery key with its default. Editors check and complete the file with [its schema](${repository}/blob/main/docs/rowhook.schema.json).\n\n\`\`\`yaml\n${yaml}\`\`\`\n`);
  const listed = new Set(groups.flatMap((g) => g.items.map((i) => i.page)));
  for (const name of listed) if (!made.has(name)) throw new Error(`site/pages.json: there is no page ${name}`);
  for (const name of made.keys()) {
    if (name !== "index" && !listed.has(name) && !name.startsWith("decisions/")) throw new Error(`site/pages.json lacks the page ${name}`);
  }
  const summary = /^# .*\n\n([^]*?)\n\n/.exec(made.get("index"))[1].replaceAll("\n", " ");
  const lines = groups.map((g) => `## ${g.text}\n\n${g.items.map((i) => `- [${i.text}](${i.page}.md): ${i.about}`).join("\n")}`);
  write("public/llms.txt", `# Rowhook\n\n> ${summary}\n\nAll pages in one file: [llms-full.txt](llms-full.txt)\n\n${lines.join("\n\n")}\n`);
  const order = ["index", ...listed];
  write("public/llms-full.txt", order.map((name) => `<!-- ${name}.md -->\n\n${made.get(name).trim()}\n`).join("\n"));
  for (const name of made.keys()) write(`public/${name}.md`, made.get(name)); // as text, for programs that read
  return [...made.keys()];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(relative(root, source).split(sep).join("/"), prepare().length, "pages");
