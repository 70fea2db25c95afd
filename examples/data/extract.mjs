// Makes github-webhooks.ndjson of the payloads in npm's @octokit/webhooks-examples: `npm ci && node extract.mjs`.
//
// Each line is an event as `pelton append --format event` reads it. Payloads lose what is bulk to a handler: see README.md.

import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const BYTES_MAX = 600_000;

const OUT = new URL("github-webhooks.ndjson", import.meta.url);

/** What is kept of a user and of a repository, wherever one stands. */
const USER_FIELDS = ["login", "id", "type", "html_url"];
const REPOSITORY_FIELDS = [
  "id", "name", "full_name", "private", "html_url", "description", "fork", "language", "default_branch",
  "stargazers_count", "open_issues_count", "visibility", "archived",
];

/** API addresses, which all follow from the names beside them, and identifiers that nobody reads. */
function isBulk(name, value) {
  if (["node_id", "gravatar_id", "_links", "permissions", "events"].includes(name)) return true;
  if (name.endsWith("_url") && name !== "html_url") return true;
  return typeof value === "string" && value.startsWith("https://api.github.com/");
}

function pick(object, fields) {
  return Object.fromEntries(fields.filter((field) => field in object).map((field) => [field, object[field]]));
}

function prune(value) {
  if (Array.isArray(value)) return value.map(prune);
  if (value === null || typeof value !== "object") return value;
  if ("login" in value && "id" in value) return pick(value, USER_FIELDS);
  if ("full_name" in value) return pick(value, REPOSITORY_FIELDS);
  const kept = Object.entries(value).filter(([name, field]) => !isBulk(name, field));
  return Object.fromEntries(kept.map(([name, field]) => [name, prune(field)]));
}

function toEvent(name, payload, index) {
  return {
    id: `${name}-${String(index + 1).padStart(2, "0")}`,
    key: payload.repository?.full_name ?? null,
    kind: payload.action ? `${name}.${payload.action}` : name,
    headers: { "x-github-event": name },
    payload: prune(payload),
  };
}

const webhooks = createRequire(import.meta.url)("@octokit/webhooks-examples");
const events = webhooks.flatMap(({ name, examples }) => examples.map((payload, index) => toEvent(name, payload, index)));
const lines = events.map((event) => `${JSON.stringify(event)}\n`).join("");

const bytes = Buffer.byteLength(lines);
if (bytes > BYTES_MAX) throw new Error(`${bytes} bytes are more than ${BYTES_MAX}: prune more`);
if (new Set(events.map((event) => event.id)).size !== events.length) throw new Error("ids are not unique");
writeFileSync(OUT, lines);
console.log(`${events.length} events of ${new Set(events.map((event) => event.kind)).size} kinds, ${bytes} bytes`);
