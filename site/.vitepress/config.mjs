import { join } from "node:path";
import { defineConfig } from "vitepress";
import { groups, home, language, prepare, repository, source } from "../prepare.mjs";

prepare();

export default defineConfig({
  title: "Rowhook",
  description: "Postgres row changes to webhooks",
  base: process.env.SITE_BASE ?? "/",
  srcDir: source,
  outDir: join(home, "dist"),
  cacheDir: join(home, "cache"),
  srcExclude: ["public/**"],
  vite: { build: { chunkSizeWarningLimit: 2000 } }, // the index of the search is one
  markdown: {
    // Headings have the anchors that the repository's pages have, so that links work in both.
    anchor: { slugify: (heading) => heading.trim().toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(/\s/g, "-") },
    config(md) {
      // Indented blocks are shown as fenced ones are. Besides, text in braces is text, and no expression.
      const fence = md.renderer.rules.fence;
      md.renderer.rules.code_block = (tokens, i, ...rest) => {
        tokens[i].info = language(tokens[i].content);
        return fence(tokens, i, ...rest);
      };
      for (const rule of ["text", "code_inline"]) {
        const render = md.renderer.rules[rule];
        md.renderer.rules[rule] = (...args) => render(...args).replaceAll("{{", "&#123;&#123;");
      }
    },
  },
  themeConfig: {
    search: { provider: "local" },
    socialLinks: [{ icon: "github", link: repository }],
    nav: [
      { text: "Quick start", link: "/quickstart" },
      { text: "Operations", link: "/operations" },
      { text: "Reference", link: "/rowhook-yaml" },
    ],
    sidebar: groups.map((g) => ({ text: g.text, items: g.items.map((i) => ({ text: i.text, link: `/${i.page.replace(/index$/, "")}` })) })),
    outline: { level: [2, 3] },
  },
});
