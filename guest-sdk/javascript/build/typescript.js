// Lets Node run TypeScript as the build understands it: `node --import pelton-sdk/typescript --test …`. Newer versions of Node
// can do that by themselves, and differently.

import { register } from "node:module";

register("./typescript-hooks.js", import.meta.url);
