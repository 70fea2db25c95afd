import type { Schema } from "./schema.js";

/** The value of `key`, if there is one. */
export function get(key: string): Uint8Array | undefined;
/** Sets the value of `key`; a text is stored as UTF-8. What the host refuses is a permanent error with its reason. */
export function set(key: string, value: Uint8Array | string): void;
/** Removes `key`; nothing happens if there is none. */
declare function remove(key: string): void;
export { remove as delete };
/** The value of `key` as JSON, if there is one, as `event.json` reads it. What is none is a permanent error that names the key. */
export function getJson(key: string): unknown;
/** The value of `key` as JSON that fits the schema. What does not is a permanent error that names key and place. */
export function getJson<T>(key: string, schema: Schema<T>): T | undefined;
/** Sets the value of `key` as JSON. What has no JSON form, as `undefined` or `NaN`, is a permanent error. */
export function setJson(key: string, value: unknown): void;
