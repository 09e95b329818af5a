/** The listing of inspections, read page by page. It is kept while a person looks at one of them and comes back. */

import { useEffect, useLayoutEffect, useRef, useState } from "../vendor/hooks.mjs";
import { call } from "./api.js";
import { cameBack, href } from "./router.js";

const PAGE = 60;
const REREAD_EVERY = 1_000; // milliseconds, while the newest inspections are not final
const IN_FLIGHT = new Set(["queued", "running"]);

const empty = (key) => ({ key, items: [], cursor: null, ended: false, problem: null });

/** What was left last, and how far the page was scrolled. */
let left = { state: empty(null), scrolled: 0 };

/** Show inspections as they are after a change, wherever a listing has them. */
export function replaceInListing(changed) {
  left = { ...left, state: replaced(left.state, changed) };
}

function replaced(state, changed) {
  const byId = new Map(changed.map((inspection) => [inspection.id, inspection]));
  return { ...state, items: state.items.map((each) => byId.get(each.id) ?? each) };
}

/**
 * The inspections of a filter that were read so far.
 *
 * @returns {{items: object[], cursor: string | null, ended: boolean, problem: Problem | null, more: () => Promise<void>,
 *   replace: (changed: object[]) => void}} `more` reads the next page, which may be empty though others follow.
 */
export function useListing(filter) {
  const key = JSON.stringify(filter);
  const [state, setState] = useState(() => (cameBack() && left.state.key === key ? left.state : empty(key)));
  const shown = state.key === key ? state : empty(key);
  const reading = useRef(null);
  const more = async () => {
    if (reading.current === key || shown.ended) return;
    reading.current = key;
    try {
      const page = await call(href("/v1/inspections", { ...filter, limit: PAGE, cursor: shown.cursor }));
      if (reading.current !== key) return;
      setState({ ...empty(key), items: [...shown.items, ...page.items], cursor: page.next_cursor, ended: !page.next_cursor });
    } catch (problem) {
      if (reading.current === key) setState({ ...shown, problem });
    } finally {
      if (reading.current === key) reading.current = null;
    }
  };
  useEffect(() => {
    if (shown.items.length === 0) more();
  }, [key]);
  const isWaiting = shown.items.slice(0, PAGE).some(({ status }) => IN_FLIGHT.has(status));
  useEffect(() => {
    if (!isWaiting) return undefined;
    const reread = async () => {
      try {
        const { items } = await call(href("/v1/inspections", { ...filter, limit: PAGE }));
        setState((before) => (before.key === key ? replaced(before, items) : before));
      } catch (problem) {
        setState((before) => (before.key === key ? { ...before, problem } : before));
      }
    };
    const timer = setInterval(reread, REREAD_EVERY);
    return () => clearInterval(timer);
  }, [key, isWaiting]);
  useKeptPlace(shown);
  return { ...shown, more, replace: (changed) => setState((before) => replaced(before, changed)) };
}

/** Scroll to where the listing was left, and keep it when it is left again. */
function useKeptPlace(state) {
  const latest = useRef(state);
  latest.current = state;
  useLayoutEffect(() => {
    const { pathname } = location;
    if (cameBack() && left.state.key === state.key) scrollTo(0, left.scrolled);
    const remember = () => {
      if (location.pathname === pathname) left = { state: latest.current, scrolled: scrollY };
    };
    addEventListener("scroll", remember, { passive: true });
    return () => {
      removeEventListener("scroll", remember);
      left = { ...left, state: latest.current };
    };
  }, []);
}
