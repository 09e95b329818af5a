/** Results as they are finished, by server-sent events. */

import { useEffect, useRef, useState } from "../vendor/hooks.mjs";
import { call } from "./api.js";
import { href, rooted } from "./router.js";

const FIRST = 20; // results from before the view was opened
const DRAWN_EVERY = 100; // milliseconds; a burst is drawn at once
const REOPENED_AFTER = 3_000; // milliseconds
const UNREAD = { loading: true, problem: null };

/**
 * The newest results, newest first, at most `keep`.
 *
 * @returns {{items: object[], connection: "connecting" | "open" | "lost", loading: boolean, waiting: number,
 *   problem: Problem | null}} `loading` until the listing of earlier results has been read; `problem` is why it could
 *   not be read, which is tried again; `waiting` counts the results that arrived while paused.
 */
export function useResults(query, { keep, paused }) {
  const [items, setItems] = useState([]);
  const [connection, setConnection] = useState("connecting");
  const [earlier, setEarlier] = useState(UNREAD);
  const [waiting, setWaiting] = useState(0);
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
    setEarlier(UNREAD);
    setConnection("connecting");
    held.current = [];
    let drawing = null;
    const onResult = (inspection) => {
      held.current = [...held.current.slice(1 - keep), inspection];
      drawing ??= setTimeout(() => {
        drawing = null;
        draw();
      }, DRAWN_EVERY);
    };
    const readEarlier = followEarlier(query, {
      onRead: (read) => {
        setEarlier({ loading: false, problem: null });
        setItems((before) => newestFirst(withoutRepeats([...before, ...read])).slice(0, keep));
      },
      onProblem: (problem) => setEarlier({ loading: false, problem }),
    });
    const close = openStream(query, {
      onResult,
      onOpen: () => {
        setConnection("open");
        readEarlier.now(); // what finished before the stream was open
      },
      onLost: () => setConnection((before) => (before === "connecting" ? before : "lost")),
    });
    return () => {
      clearTimeout(drawing);
      readEarlier.close();
      close();
    };
  }, [address]);
  useEffect(draw, [paused]);
  return { items, connection, ...earlier, waiting };
}

/** Read the listing of earlier results now, and after a problem again until it has been read. */
function followEarlier(query, { onRead, onProblem }) {
  const path = href("/v1/inspections", { ...query, status: "completed", limit: FIRST });
  const aborter = new AbortController();
  let timer = null;
  const now = async () => {
    clearTimeout(timer);
    try {
      onRead((await call(path, { signal: aborter.signal })).items);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      onProblem(problem);
      clearTimeout(timer);
      timer = setTimeout(now, REOPENED_AFTER);
    }
  };
  now();
  const close = () => {
    clearTimeout(timer);
    aborter.abort();
  };
  return { now, close };
}

/**
 * Follow the feed from now on. After an interruption the browser continues where it was; where it gives up, because the
 * api refused, the stream is opened again: at the same place, or from now on if that place is lost.
 *
 * @returns {() => void} closes the stream.
 */
function openStream(query, { onResult, onOpen, onLost }) {
  let source = null;
  let timer = null;
  let place = null;
  const open = () => {
    let answered = false;
    source = new EventSource(rooted(href("/v1/results/stream", { ...query, after: place })));
    source.onopen = () => {
      answered = true;
      onOpen();
    };
    source.onerror = () => {
      onLost();
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

const newestFirst = (inspections) => inspections.toSorted((one, other) => finishedAt(other) - finishedAt(one));
const finishedAt = (inspection) => Date.parse(inspection.finished_at ?? inspection.created_at);
