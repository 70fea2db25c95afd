export { delete, get, getJson, set, setJson } from "./stored.js";
export { versioned } from "./versioned.js";
