// Makes one call with the real client on Node: the specification comes as JSON on standard input, the outcome goes
// as one line of JSON to standard output.
import { File } from "node:buffer";
import { text } from "node:stream/consumers";
import { perform } from "./calls.mjs";

globalThis.File ??= File;
console.warn = () => {}; // the client's advice on the use of tokens
const outcome = await perform(JSON.parse(await text(process.stdin)));
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0)); // the client may keep timers alive
