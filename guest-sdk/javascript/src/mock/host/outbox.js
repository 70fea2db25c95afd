import { currentHost } from "../current.js";

export const emit = (stream, event) => currentHost().emit(stream, event);
