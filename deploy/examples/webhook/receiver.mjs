// A receiver of forestall's webhook: checks who calls, and does each action once. Needs nothing but Node 18.
//
//     node receiver.mjs --key-file KEY [--key-file OLD_KEY] [--port 9000] [--host 127.0.0.1] [--callback URL]
//
// `verified` is what to copy; the server shows what else a receiver has to see to. Prints one line for each action that it
// carries out. What it has done is kept in memory here; a real one keeps it where it does not get lost, together with the
// effect. With `--callback http://127.0.0.1:9797/api/v1/forestall/actions/{id}/outcome` it says by itself when it is done.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";

// Older or newer than this is a replay, or a clock that is wrong.
const TOLERANCE_SECONDS = 300;
const BODY_BYTES_MAX = 1 << 20;
// How often forestall is told what has become of an action, until it has written that down.
const CALLS_MAX = 20;

/** A key file holds the key itself, or `whsec_` and the key in base64. */
function readKey(path) {
  const secret = readFileSync(path, "utf8").trimEnd();
  return secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret);
}

/** Whether the holder of one of the keys has sent this, and lately (Standard Webhooks, HMAC-SHA256). */
export function verified(headers, body, keys, now) {
  const id = headers["webhook-id"] ?? "";
  const sentAt = headers["webhook-timestamp"] ?? "";
  if (!id || !/^[0-9]{1,12}$/.test(sentAt) || Math.abs(now - Number(sentAt)) > TOLERANCE_SECONDS) return false;
  const wanted = keys.map((key) =>
    Buffer.from("v1," + createHmac("sha256", key).update(`${id}.${sentAt}.`).update(body).digest("base64")));
  const given = (headers["webhook-signature"] ?? "").split(" ").map((one) => Buffer.from(one));
  return wanted.some((one) => given.some((other) => one.length === other.length && timingSafeEqual(one, other)));
}

/** The headers of a callback, signed as what comes from forestall is. */
function signed(id, body, key, now) {
  const sentAt = String(Math.floor(now));
  return {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": sentAt,
    "webhook-signature": "v1," + createHmac("sha256", key).update(`${id}.${sentAt}.${body}`).digest("base64"),
  };
}

/** Says that an action is done: 202 is heard, 200 is written down; anything else is tried again. */
async function callBack(url, id, keyFile) {
  const body = JSON.stringify({ state: "done" });
  for (let attempt = 0; attempt < CALLS_MAX; attempt++) {
    try {
      const headers = signed(id, body, readKey(keyFile), Date.now() / 1000);
      const answer = await fetch(url.replace("{id}", encodeURIComponent(id)), { method: "POST", body, headers });
      if (answer.status === 200 || answer.status === 404) return;
    } catch {
      // Nobody there, for now.
    }
    await new Promise((resolve) => setTimeout(resolve, Math.min(2 ** attempt, 30) * 1000));
  }
}

async function read(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const done = new Set();

/** Answers `[status, body]`. */
function take(request, body, keys) {
  if (!verified(request.headers, body, keys, Date.now() / 1000)) {
    return [401, { error: "the signature is missing, wrong or old" }];
  }
  if (request.method === "GET") {
    // The status URL: http://HOST/status/{id}.
    const id = decodeURIComponent(request.url.slice(request.url.lastIndexOf("/") + 1));
    return [200, { state: done.has(id) ? "done" : "unknown" }];
  }
  const action = JSON.parse(body);
  if (action.id !== request.headers["webhook-id"]) return [400, { error: "the id is not the one that was signed" }];
  // The same id again is an attempt whose answer got lost: it is done already.
  if (!done.has(action.id)) {
    done.add(action.id);
    console.log("effect", action.id, action.action, action.target.component);
    if (values.callback) callBack(values.callback, action.id, values["key-file"][0]);
  }
  return [200, { state: values.callback ? "pending" : "done" }];
}

const { values } = parseArgs({
  options: {
    "key-file": { type: "string", multiple: true },
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "9000" },
    callback: { type: "string" },
  },
});
if (!values["key-file"]) throw new Error("give --key-file");
const server = createServer(async (request, response) => {
  let answer;
  try {
    const body = await read(request);
    // Keys are read each time, so that a rotated one counts at once.
    answer = body === null ? [413, { error: "too large" }] : take(request, body, values["key-file"].map(readKey));
  } catch (error) {
    answer = [400, { error: String(error.message) }];
  }
  response.writeHead(answer[0], { "content-type": "application/json" }).end(JSON.stringify(answer[1]));
});
server.listen(Number(values.port), values.host, () => console.log("listening on", server.address().port));
