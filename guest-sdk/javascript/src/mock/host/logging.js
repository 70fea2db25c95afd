import { currentHost } from "../current.js";

export const log = (level, context, message) => currentHost().log(level, context, message);
