import { currentHost } from "../current.js";

export const get = (key) => currentHost().read(key);
export const set = (key, value) => currentHost().write(key, value);
const remove = (key) => currentHost().write(key, undefined);
export { remove as delete };
