/** Requests to the public API. Every figure of the page comes from here. */

import { useCallback, useEffect, useRef, useState } from "../vendor/hooks.mjs";
import { href, rooted } from "./router.js";

const UNSAFE = new Set(["POST", "PATCH", "DELETE", "PUT"]);
export const SIGNED_OUT = "linewatch:signed-out";

let csrfToken = null;

/** Keep the token that unsafe requests of a signed-in person carry; null without a sign-in. */
export function setCsrfToken(token) {
  csrfToken = token;
}

/** A refusal of the API (RFC 9457), or a request that got no answer. */
export class Problem extends Error {
  /** @param {{code: string, detail: string, status: number}} problem further members of it are kept in `members`. */
  constructor({ code, detail, status, ...members }) {
    super(detail);
    this.code = code;
    this.status = status;
    this.members = members;
  }
}

/** Send a request and return the response, or throw a `Problem`. `json` is sent as a JSON body. */
export async function send(path, { method = "GET", json, body, headers = {}, signal } = {}) {
  const all = { ...headers };
  if (json !== undefined) all["Content-Type"] = "application/json";
  if (UNSAFE.has(method) && csrfToken) all["X-CSRF-Token"] = csrfToken;
  const sent = json === undefined ? body : JSON.stringify(json);
  let response;
  try {
    response = await fetch(rooted(path), { method, headers: all, body: sent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "unreachable", detail: String(error.message), status: 0 });
  }
  if (response.ok) return response;
  if (response.status === 401) dispatchEvent(new Event(SIGNED_OUT));
  const problem = await response.json().catch(() => ({}));
  throw new Problem({
    ...problem,
    code: problem.code ?? `http_${response.status}`,
    detail: problem.detail ?? response.statusText,
    status: response.status,
  });
}

/** The JSON answer to a request; null if the answer is empty. */
export async function call(path, options) {
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
}

/**
 * Read something and read it again when its address changes, and every so many milliseconds while the page is visible.
 *
 * @param {string | null} path null reads nothing.
 * @returns {{data: any, problem: Problem | null, loading: boolean, reload: () => void}} `data` stays while it is read
 *   again; it is null after the address changed.
 */
export function useResource(path, { query = {}, every = null } = {}) {
  const address = path === null ? null : href(path, query);
  const [state, setState] = useState({ address: null, data: null, problem: null });
  const current = useRef(address);
  current.current = address;
  const read = useCallback(async (signal) => {
    if (address === null) return;
    try {
      const data = await call(address, { signal });
      if (current.current === address) setState({ address, data, problem: null });
    } catch (problem) {
      if (problem.name === "AbortError" || current.current !== address) return;
      setState((before) => ({ address, data: before.address === address ? before.data : null, problem }));
    }
  }, [address]);
  useEffect(() => {
    const aborter = new AbortController();
    read(aborter.signal);
    const timer = every && setInterval(() => document.hidden || read(aborter.signal), every);
    return () => {
      clearInterval(timer);
      aborter.abort();
    };
  }, [read, every]);
  const fresh = state.address === address;
  const data = fresh ? state.data : null;
  const problem = fresh ? state.problem : null;
  return { data, problem, loading: address !== null && !data && !problem, reload: read };
}
