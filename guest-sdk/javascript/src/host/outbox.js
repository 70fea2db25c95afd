export { emit } from "pelton:worker/outbox@0.1.0";
