// Which mock host the SDK talks to now.

let current;

export function currentHost() {
  if (current === undefined) {
    throw new Error('no host here: call this within a delivery, or in host.run(…) of a MockHost of "pelton-sdk/mock"');
  }
  return current;
}

/** Calls `body` with `host` in the place of the host. */
export function within(host, body) {
  const outer = current;
  current = host;
  try {
    return body();
  } finally {
    current = outer;
  }
}
