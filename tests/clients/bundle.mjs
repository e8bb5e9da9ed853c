// Bundles page.mjs with the real client in it, as a web application would; the script goes to standard output.
import { build } from "esbuild";

const { outputFiles } = await build({ entryPoints: ["page.mjs"], bundle: true, write: false, logLevel: "error" });
process.stdout.write(outputFiles[0].text);
