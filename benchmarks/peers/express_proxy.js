// fal's own proxy on Express, as its documentation shows it.
// `express_proxy.js PORT ORIGIN_PORT SECRET`, with NODE_PATH naming the folder of its packages.
// Three departures: the origin of the benchmark is allowed as a target, bodies of 50 MB are let in, and the `next()` that
// the handler calls behind each answer ends in a handler of ours: Express's own would cut the connection.
const express = require("express");
const { createHandler } = require("@fal-ai/server-proxy/express");

const [port, originPort, secret] = process.argv.slice(2);
const app = express();
app.use(express.json({ limit: "200mb" }));
app.all(
  "/api/fal/proxy",
  createHandler({
    allowedUrlPatterns: [`127.0.0.1:${originPort}/**`],
    allowedEndpoints: ["**"],
    allowUnauthorizedRequests: false,
    isAuthenticated: async (behavior) => behavior.getHeader("authorization") === `Bearer ${secret}`,
  }),
  () => {},
);
app.listen(Number(port), "127.0.0.1");
