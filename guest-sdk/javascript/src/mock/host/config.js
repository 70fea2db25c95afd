import { currentHost } from "../current.js";

export const get = (key) => currentHost().setting(key);
