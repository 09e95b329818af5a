/** Results as they are finished, by server-sent events. The browser reconnects by itself and misses none. */

import { useEffect, useRef, useState } from "../vendor/hooks.mjs";
import { href } from "./router.js";

/**
 * The newest results, newest first, at most `keep`.
 *
 * @returns {{items: object[], connected: boolean, waiting: number}} `waiting` counts the results that arrived while paused.
 */
export function useResults(query, { keep, paused }) {
  const [items, setItems] = useState([]);
  const [connected, setConnected] = useState(false);
  const [waiting, setWaiting] = useState(0);
  const held = useRef([]);
  const isPaused = useRef(paused);
  isPaused.current = paused;
  const address = href("/v1/results/stream", query);

  useEffect(() => {
    setItems([]);
    held.current = [];
    const source = new EventSource(address);
    let frame = null;
    const show = () => {
      frame = null;
      setWaiting(isPaused.current ? held.current.length : 0);
      if (isPaused.current) return;
      const arrived = held.current.reverse();
      held.current = [];
      setItems((before) => [...arrived, ...before].slice(0, keep));
    };
    source.onopen = () => setConnected(true);
    source.onerror = () => setConnected(false);
    source.addEventListener("inspection", (event) => {
      held.current.push(JSON.parse(event.data));
      held.current = held.current.slice(-keep);
      frame ??= setTimeout(show, 100); // a burst is drawn at once
    });
    return () => {
      clearTimeout(frame);
      source.close();
    };
  }, [address]);
  useEffect(() => {
    if (paused || held.current.length === 0) return;
    const arrived = held.current.reverse();
    held.current = [];
    setWaiting(0);
    setItems((before) => [...arrived, ...before].slice(0, keep));
  }, [paused]);
  return { items, connected, waiting };
}
