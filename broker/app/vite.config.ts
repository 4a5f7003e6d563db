// How the app is built: one page, its parts loaded when they are needed, and the service worker beside it.
//
// Rule: nothing inline and nothing from elsewhere, so that the gateway's content policy can forbid both; every file but
// the page, the worker and the manifest carries the hash of its contents in its name and may be kept for ever.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const SHELL = "__SHELL__";

/** Tells the service worker which files make the shell: all that is built, and one hash over their names. */
function shell(): Plugin {
  return {
    name: "peanut-shell",
    enforce: "post",
    generateBundle(_options, bundle) {
      const worker = bundle["sw.js"];
      if (worker?.type !== "chunk") throw new Error("no service worker in the bundle");
      const files = Object.keys(bundle).filter((name) => name.startsWith("assets/")).sort();
      const version = createHash("sha256").update(files.join("\n")).digest("hex").slice(0, 12);
      const list = JSON.stringify({ version, files: ["./", ...files, "icon.svg", "manifest.webmanifest"] });
      if (!worker.code.includes(SHELL)) throw new Error("the service worker does not ask for the shell");
      worker.code = worker.code.replace(new RegExp(`["'\`]${SHELL}["'\`]`), () => JSON.stringify(list));
    },
  };
}

/** Puts a packed copy beside every file that gets smaller by it; the gateway sends that to whoever takes it. */
function packed(): Plugin {
  let folder = "";
  return {
    name: "peanut-packed",
    configResolved(config) {
      folder = config.build.outDir;
    },
    closeBundle() {
      for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
        if (!/\.(js|css|html|svg|webmanifest)$/.test(name)) continue;
        const data = readFileSync(join(folder, name));
        for (const [end, small] of [[".gz", gzipSync(data, { level: 9 })], [".br", brotliCompressSync(data)]] as const) {
          if (small.length < data.length) writeFileSync(join(folder, name + end), small);
        }
      }
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [shell(), packed()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: resolve(import.meta.dirname, "../../build/app"),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      input: { app: resolve(import.meta.dirname, "index.html"), sw: resolve(import.meta.dirname, "src/sw.ts") },
      output: { entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js") },
    },
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
} as Parameters<typeof defineConfig>[0]);
