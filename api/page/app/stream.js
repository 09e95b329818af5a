/** Results as they are finished, by server-sent events. */

import { useEffect, useRef, useState } from "../vendor/hooks.mjs";
import { call } from "./api.js";
import { href } from "./router.js";

const FIRST = 20; // results from before the view was opened
const DRAWN_EVERY = 100; // milliseconds; a burst is drawn at once
const REOPENED_AFTER = 3_000; // milliseconds

/**
 * The newest results, newest first, at most `keep`.
 *
 * @returns {{items: object[], connected: boolean, waiting: number, problem: Problem | null}} `waiting` counts the results
 *   that arrived while paused; `problem` is why those from before could not be read.
 */
export function useResults(query, { keep, paused }) {
  const [items, setItems] = useState([]);
  const [connected, setConnected] = useState(false);
  const [waiting, setWaiting] = useState(0);
  const [problem, setProblem] = useState(null);
  const held = useRef([]); // arrived and not drawn yet, oldest first
  const isPaused = useRef(paused);
  isPaused.current = paused;
  const address = href("/v1/results/stream", query);

  const draw = () => {
    setWaiting(isPaused.current ? held.current.length : 0);
    if (isPaused.current) return;
    const arrived = held.current.reverse();
    held.current = [];
    setItems((before) => withoutRepeats([...arrived, ...before]).slice(0, keep));
  };
  useEffect(() => {
    setItems([]);
    setProblem(null);
    held.current = [];
    let timer = null;
    const onResult = (inspection) => {
      held.current = [...held.current.slice(1 - keep), inspection];
      timer ??= setTimeout(() => {
        timer = null;
        draw();
      }, DRAWN_EVERY);
    };
    const aborter = new AbortController();
    const filter = { ...query, status: "completed", limit: FIRST };
    call(href("/v1/inspections", filter), { signal: aborter.signal }).then(
      (first) => setItems((before) => withoutRepeats([...before, ...first.items]).slice(0, keep)),
      (refusal) => refusal.name === "AbortError" || setProblem(refusal),
    );
    const close = openStream(query, { onResult, onConnected: setConnected });
    return () => {
      clearTimeout(timer);
      aborter.abort();
      close();
    };
  }, [address]);
  useEffect(draw, [paused]);
  return { items, connected, waiting, problem };
}

/**
 * Follow the feed from now on. After an interruption the browser continues where it was; where it gives up, because the
 * api refused, the stream is opened again: at the same place, or from now on if that place is lost.
 *
 * @returns {() => void} closes the stream.
 */
function openStream(query, { onResult, onConnected }) {
  let source = null;
  let timer = null;
  let place = null;
  const open = () => {
    let answered = false;
    source = new EventSource(href("/v1/results/stream", { ...query, after: place }));
    source.onopen = () => {
      answered = true;
      onConnected(true);
    };
    source.onerror = () => {
      onConnected(false);
      if (source.readyState !== EventSource.CLOSED) return;
      if (!answered) place = null;
      timer = setTimeout(open, REOPENED_AFTER);
    };
    source.addEventListener("inspection", (event) => {
      place = event.lastEventId;
      onResult(JSON.parse(event.data));
    });
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}

function withoutRepeats(inspections) {
  const seen = new Set();
  return inspections.filter(({ id }) => !seen.has(id) && seen.add(id));
}
