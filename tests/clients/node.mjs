// Makes one call with the real client on Node: the specification comes as JSON on standard input, the outcome goes
// as one line of JSON to standard output.
import { File } from "node:buffer";
import { text } from "node:stream/consumers";
import { perform } from "./calls.mjs";

globalThis.File ??= File;
console.warn = () => {}; // the client's advice on the use of tokens
const real = globalThis.fetch;
globalThis.fetch = (url, init) => {
  const { hostname } = new URL(url);
  if (hostname !== "127.0.0.1") {
    throw new Error(`a request left for ${hostname}`); // before it does
  }
  return real(url, init);
};
const specification = JSON.parse(await text(process.stdin));
const client = await import(specification.package);
const outcome = specification.code
  ? await pasted(client, specification.code)
  : await perform(specification, { create: client.createFalClient, older: specification.package !== "@fal-ai/client" });
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0)); // the client may keep timers alive

// Runs code as a reader of README.md pastes it, less its import; its last `data` is the value.
async function pasted({ fal }, code) {
  const AsyncFunction = (async () => {}).constructor;
  try {
    return { ok: true, value: await new AsyncFunction("fal", `${code}\nreturn data;`)(fal), attempts: [] };
  } catch ({ name, message }) {
    return { ok: false, error: { name, message }, attempts: [] };
  }
}
