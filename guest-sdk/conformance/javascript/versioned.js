import { state } from "pelton-sdk";

const toSecond = ({ count }) => ({ count, unit: "pieces" });
const toThird = ({ count }) => ({ counts: [count] });

/** The code of each version of the format: what it begins with, and how it counts. */
const codes = {
  1: {
    profile: state.versioned({ version: 1 }),
    first: { count: 0 },
    // A newer version's unit is not known here.
    counted: ({ count }) => ({ count: count + 1 }),
  },
  2: {
    profile: state.versioned({ version: 2, readableFrom: 1, upgrade: { 1: toSecond } }),
    first: { count: 0, unit: "pieces" },
    counted: ({ count, unit }) => ({ count: count + 1, unit }),
  },
  3: {
    profile: state.versioned({ version: 3, upgrade: { 1: toSecond, 2: toThird } }),
    first: { counts: [0] },
    counted: ({ counts: [count, ...others] }) => ({ counts: [count + 1, ...others] }),
  },
};

export function countAs(version) {
  const { profile, first, counted } = codes[version];
  const value = counted(profile.get("profile") ?? first);
  profile.set("profile", value);
  return value;
}
