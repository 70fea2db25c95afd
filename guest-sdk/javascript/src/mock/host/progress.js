import { currentHost } from "../current.js";

export const handled = (count) => currentHost().handled(count);
