import { currentHost } from "../current.js";

export const commit = () => currentHost().checkpoint();
