// The server's JSON API. Failures are `Refused` (the server said no, and why) or `Unreachable` (send again later).

export class Refused extends Error {
  constructor(status, { error, fix, reason }) {
    super([error, fix].filter(Boolean).join(" "));
    this.status = status;
    this.reason = reason;
  }

  get signedOut() {
    return this.status === 401 && this.reason !== "UNKNOWN_TOKEN";
  }
}

export class Unreachable extends Error {}

const TIMEOUT_MS = 20_000;

async function call(path, options) {
  let response;
  let content;
  try {
    response = await fetch(path, { ...options, credentials: "same-origin", signal: AbortSignal.timeout(TIMEOUT_MS) });
    content = await response.json();
  } catch {
    // No connection, a timeout, or an answer that is not ours (a proxy's): the server did not get to say anything.
    throw new Unreachable("The server cannot be reached.");
  }
  if (response.ok) return content;
  if (response.status >= 500) throw new Unreachable(content.error ?? "The server is not ready.");
  throw new Refused(response.status, content);
}

export function read(path) {
  return call(path, { method: "GET" });
}

export function act(path, body = {}) {
  const headers = { "content-type": "application/json", "x-iterpo-page": "1" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body) });
}

// crypto.randomUUID exists in secure contexts only, and a lead may serve the page over a tunnel without TLS.
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
