// Opens a page in a real browser and makes one call in it: {browser, page, specification} comes as JSON on standard
// input; one line of JSON with the outcome, and with what the browser itself complained of, goes to standard output.
import { text } from "node:stream/consumers";
import { chromium } from "playwright-core";

const QUIET = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const { browser: executablePath, page: url, specification } = JSON.parse(await text(process.stdin));
const browser = await chromium.launch({
  executablePath,
  chromiumSandbox: process.getuid() !== 0, // Chromium refuses to sandbox what root starts
  args: QUIET,
});
try {
  const page = await browser.newPage();
  const console_ = [];
  page.on("console", (message) => console_.push(message.text()));
  await page.goto(url);
  const outcome = await page.evaluate((asked) => globalThis.perform(asked), specification);
  process.stdout.write(`${JSON.stringify({ ...outcome, console: console_ })}\n`);
} finally {
  await browser.close();
}
