export { handled } from "pelton:worker/progress@0.1.0";
