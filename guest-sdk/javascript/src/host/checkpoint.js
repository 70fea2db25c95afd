export { commit } from "pelton:worker/checkpoint@0.1.0";
