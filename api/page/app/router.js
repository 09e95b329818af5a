/** The address is the state of a view: its path, and its query, which holds the recipe and the filters. */

import { useEffect, useState } from "../vendor/hooks.mjs";

const CHANGED = "linewatch:address";

/** The path below which a proxy publishes the page; empty without one. Everything else here knows paths from `/` on. */
export const ROOT = new URL("../..", import.meta.url).pathname.slice(0, -1);

/** An address of this system for the browser. */
export const rooted = (address) => (ROOT && /^\/(?!\/)/.test(address) ? ROOT + address : address);

let isBack = false;

/** Whether the address is one that the person has come back to, by the browser's history. */
export const cameBack = () => isBack;

/** The path of the address, and its query as an object of strings. */
export function readAddress() {
  return { path: location.pathname.slice(ROOT.length) || "/", query: Object.fromEntries(new URLSearchParams(location.search)) };
}

/** The address, and a new rendering whenever it changes. */
export function useAddress() {
  const [address, setAddress] = useState(readAddress);
  useEffect(() => {
    const update = () => setAddress(readAddress());
    const comeBack = () => {
      isBack = true;
      update();
    };
    addEventListener("popstate", comeBack);
    addEventListener(CHANGED, update);
    return () => {
      removeEventListener("popstate", comeBack);
      removeEventListener(CHANGED, update);
    };
  }, []);
  return address;
}

/** An address with a query. Empty values are left out. */
export function href(path, query = {}) {
  const filled = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(filled).toString();
  return text ? `${path}?${text}` : path;
}

/** Go to an address. `replace` leaves no entry in the history, for a filter that is being typed. */
export function go(address, { replace = false } = {}) {
  if (address === readAddress().path + location.search) return;
  isBack = false;
  history[replace ? "replaceState" : "pushState"](null, "", rooted(address));
  dispatchEvent(new Event(CHANGED));
}

/** Change some values of the query and keep the others. */
export function changeQuery(changes, options) {
  const { path, query } = readAddress();
  go(href(path, { ...query, ...changes }), options);
}

/** Follow links within the page without loading it anew. */
export function followLinks(event) {
  const link = event.target.closest?.("a[href]");
  const modified = event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
  if (!link || modified || event.defaultPrevented || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href);
  const path = url.pathname.slice(ROOT.length);
  if (url.origin !== location.origin || !url.pathname.startsWith(`${ROOT}/`) || !isView(path)) return;
  event.preventDefault();
  go(path + url.search);
  document.querySelector("main")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** Whether a path is one of the page's own, not of the API. */
function isView(path) {
  return !/^\/(v1|static|docs|openapi\.json|predict|heatmap|health)/.test(path);
}
