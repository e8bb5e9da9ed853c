// The calls that the tests make with the real client, the same on Node and in a page. Each takes a specification out
// of JSON and returns something that JSON can hold, so that the tests themselves stay in one place, in Python.
import { createFalClient } from "@fal-ai/client";

const CHUNK_BYTES = 65536;

// Makes a call and tells how it went: {ok, value | error, attempts}. `attempts` lists every request that was sent.
// `older`: the client is one that knows no proxy outside a browser, and is given the middleware that README.md shows.
export async function perform(specification, { create = createFalClient, older = false } = {}) {
  const attempts = [];
  const fal = create({
    ...(older ? { requestMiddleware: through(specification.proxy) } : {}),
    proxyUrl: older ? undefined : specification.proxy && { url: specification.proxy, when: "always" },
    credentials: specification.credentials,
    suppressLocalCredentialsWarning: true,
    fetch: recordingFetch(attempts, specification.direct),
  });
  try {
    const value = await CALLS[specification.call](fal, specification);
    return { ok: true, value, attempts };
  } catch (error) {
    return { ok: false, error: readable(error), attempts };
  }
}

function through(gateway) {
  return async (request) => ({
    ...request,
    url: gateway,
    headers: { ...request.headers, "x-fal-target-url": request.url },
  });
}

// The real fetch, with a record of what it was asked. `direct`: the emulator's address, for calls without a gateway.
function recordingFetch(attempts, direct) {
  return async (url, init = {}) => {
    const target = init.headers?.["x-fal-target-url"] ?? url;
    const { host } = new URL(direct ? withoutHostname(url, direct) : url);
    const attempt = { method: init.method ?? "GET", target, host, key: init.headers?.Authorization ?? null, status: null };
    attempts.push(attempt);
    const response = await fetch(direct ? withoutHostname(url, direct) : url, init);
    attempt.status = response.status;
    return response;
  };
}

function withoutHostname(url, direct) {
  return url.replace(/^https:\/\/([^/]*fal\.(?:run|ai))\//, `${direct}/hosts/$1/`);
}

function readable(error) {
  const { name, message, status = null, body = null, fieldErrors = null } = error;
  return { name, message, status, body, fieldErrors };
}

const CALLS = {
  run: (fal, { endpoint, options }) => fal.run(endpoint, options),
  twice: async (fal, { endpoint, options }) => [await fal.run(endpoint, options), await fal.run(endpoint, options)],
  submit: (fal, { endpoint, options }) => fal.queue.submit(endpoint, options),
  status: (fal, { endpoint, options }) => fal.queue.status(endpoint, options),
  result: (fal, { endpoint, options }) => fal.queue.result(endpoint, options),
  cancel: async (fal, { endpoint, options }) => {
    await fal.queue.cancel(endpoint, options);
    return null;
  },

  subscribe: async (fal, { endpoint, options }) => {
    const updates = [];
    const onQueueUpdate = (update) => updates.push(update.status);
    const result = await fal.subscribe(endpoint, { ...options, onQueueUpdate });
    return { ...result, updates };
  },

  stream: async (fal, { endpoint, options }) => {
    const stream = await fal.stream(endpoint, options);
    const done = stream.done();
    const events = [];
    for await (const event of stream) {
      events.push({ ...event, seen_at: Date.now() / 1000 });
    }
    return { events, last: await done, requestId: stream.requestId };
  },

  // Uploads bytes that no two blocks have in common, and reads them back from where the client says that they are.
  upload: async (fal, { bytes }) => {
    const content = distinctBytes(bytes);
    const file = new File([content], "picture.png", { type: "image/png" });
    const url = await fal.storage.upload(file);
    const back = await (await fetch(url)).arrayBuffer();
    return { url, sent: await sha256(content), returned: await sha256(back), returned_bytes: back.byteLength };
  },

  // Opens a realtime connection as far as it goes through a gateway: the token. The websocket itself goes to fal
  // directly, so in its place stands something that notes where it would have gone.
  realtime: (fal, { endpoint }) =>
    new Promise((resolve) => {
      globalThis.WebSocket = class {
        constructor(url) {
          resolve({ websocket: url });
        }
      };
      fal.realtime.connect(endpoint, { onResult: () => {} }).send({ prompt: "a cat" });
    }),
};

function distinctBytes(length) {
  const content = new Uint8Array(length);
  const block = crypto.getRandomValues(new Uint8Array(Math.min(CHUNK_BYTES, length)));
  const counter = new DataView(block.buffer);
  for (let at = 0; at < length; at += CHUNK_BYTES) {
    counter.setUint32(0, at);
    content.set(block.subarray(0, Math.min(CHUNK_BYTES, length - at)), at);
  }
  return content;
}

async function sha256(content) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
