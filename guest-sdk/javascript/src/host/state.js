export { delete, get, set } from "pelton:worker/state@0.1.0";
