/** The view for a monitor above the line: readable from across the hall, by colour, word and shape. */

import { useEffect, useLayoutEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { nameOf } from "../components/inspection-card.js";
import { Time } from "../components/time.js";
import { Verdict, outcome } from "../components/verdict.js";
import { integer, number, percent, time } from "../format.js";
import { html } from "../html.js";
import { t, tCode } from "../strings.js";

const SHIFTS = [6, 14, 22]; // o'clock
const POLLED_EVERY = 5_000; // milliseconds
const OVERDUE_AFTER = 3 * POLLED_EVERY;

/** @param {string} [shifts] the hours at which shifts begin, for example `6, 14, 22`. */
export function Wall({ results, filter, shifts, onClose }) {
  const element = useModal();
  const since = shiftStart(readHours(shifts));
  const statistics = useResource("/v1/statistics", { query: { ...filter, since }, every: POLLED_EVERY });
  const fault = useFault(results, statistics);
  const [inspection] = results.items;
  const verdict = inspection ? outcome(inspection) : "other";
  return html`<section ref=${element} class=${`wall ${fault ? "offline" : verdict}`} tabindex="-1" role="dialog"
    aria-modal="true" aria-labelledby="wall-title">
    <h1 id="wall-title" class="visually-hidden">${t("live.wall")}</h1>
    <div class="wall-picture">${inspection && html`<${Picture} inspection=${inspection} verdict=${verdict} />`}</div>
    <div class="wall-side">
      <div class="stack" aria-live="polite">
        ${fault && html`<${Fault} fault=${fault} />`}
        ${inspection && html`<${Named} inspection=${inspection} verdict=${verdict} isOld=${fault !== null} />`}
        ${!inspection && !fault && html`<p>${t(results.loading ? "state.loading" : "live.none")}</p>`}
      </div>
      ${inspection && html`<${Measured} inspection=${inspection} />`}
      <${Counts} of=${statistics.data} />
      <p class="soft">${t("live.shift", { time: time(since) })}</p>
      <button onClick=${onClose}>${t("action.close")} <kbd>Esc</kbd></button>
    </div>
  </section>`;
}

/**
 * Show an element on the whole screen if possible, with the focus in it and nothing else in reach.
 *
 * It is no `<dialog>`, which a page that fills the screen would cover.
 */
function useModal() {
  const element = useRef(null);
  useLayoutEffect(() => {
    const covered = allBeside(element.current).filter((other) => !other.inert);
    for (const other of covered) other.inert = true;
    element.current.focus({ preventScroll: true });
    return () => {
      for (const other of covered) other.inert = false;
      document.querySelector("main")?.focus({ preventScroll: true });
    };
  }, []);
  useEffect(() => {
    // Browsers allow it only after a key or a click. A wall opened by its address fills the page.
    if (navigator.userActivation?.isActive) document.documentElement.requestFullscreen?.();
    return () => document.fullscreenElement && document.exitFullscreen();
  }, []);
  return element;
}

/** All elements of the page that neither contain this one nor are in it, by their topmost. */
function allBeside(element) {
  if (element === document.body) return [];
  const { parentElement } = element;
  return [...parentElement.children].filter((child) => child !== element).concat(allBeside(parentElement));
}

/**
 * Why the wall may be out of date, as a word to be read from afar and a reason; null if it is not.
 *
 * A system that is stopped closes no connection, so an answer that is overdue counts as one that failed.
 */
function useFault(results, statistics) {
  const isOverdue = useOverdue(statistics.data);
  const problem = statistics.problem ?? results.problem;
  if (problem?.code === "unreachable") return { word: t("live.offline"), reason: t("state.unreachable") };
  if (problem) return { word: t("live.offline"), reason: problem.message };
  if (isOverdue) return { word: t("live.offline"), reason: t("state.unreachable") };
  if (results.connection === "lost") return { word: t("live.offline"), reason: t("live.reconnecting") };
  return results.connection === "open" ? null : { word: t("live.connecting"), reason: null };
}

/** Whether the last answer is older than it may be. Each answer is a new object; null is none. */
function useOverdue(answer) {
  const [isOverdue, setOverdue] = useState(false);
  useEffect(() => {
    if (answer) setOverdue(false);
    const timer = setTimeout(() => setOverdue(true), OVERDUE_AFTER);
    return () => clearTimeout(timer);
  }, [answer]);
  return isOverdue;
}

function Fault({ fault: { word, reason } }) {
  return html`
    <p class="wall-verdict" style=${letters(word)}>
      <span class="verdict other"><${Icon} name="triangle-alert" />${word}</span>
    </p>
    ${reason && html`<p class="wall-name">${reason}</p>`}`;
}

/** The stylesheet fits the word into its column by the number of its letters. */
const letters = (word) => ({ "--letters": word.length });

/** Good parts are shown as they are, others with what the machine marked. */
function Picture({ inspection, verdict }) {
  const kind = inspection.status === "completed" && verdict !== "ok" ? "heatmap" : "image";
  const alt = t("card.image", { name: nameOf(inspection) });
  return html`<img src=${`/v1/inspections/${inspection.id}/${kind}`} alt=${alt} />`;
}

/** The verdict is large while it is known to be that of the newest part. */
function Named({ inspection, verdict, isOld }) {
  return html`
    <p class=${isOld ? "" : "wall-verdict"} style=${letters(tCode("verdict", verdict))}><${Verdict} value=${verdict} /></p>
    <p class="wall-name">${nameOf(inspection)}</p>`;
}

function Measured({ inspection }) {
  const score = { score: number(inspection.anomaly_score), threshold: number(inspection.threshold) };
  return html`<div class="stack tight">
    <p class="wall-time">${t("field.finished_at")}: <${Time} at=${inspection.finished_at} /></p>
    ${inspection.anomaly_score !== null && html`<p class="soft">${t("score.label", score)}</p>`}
  </div>`;
}

function Counts({ of }) {
  const counts = of && shiftCounts(of.items);
  return html`<dl class="figures">
    ${["ok", "ng", "review", "failed"].map((name) => html`<div class="figure">
      <dt>${t(`verdict.${name}`)}</dt><dd>${integer(counts?.[name])}</dd>
    </div>`)}
    <div class="figure"><dt>${t("overview.ngRate")}</dt><dd>${percent(counts?.ng_rate)}</dd></div>
  </dl>`;
}

function readHours(text) {
  const hours = (text ?? "").split(/[\s,;]+/).filter((part) => /^\d{1,2}$/.test(part)).map(Number);
  const valid = hours.filter((hour) => hour < 24).toSorted((one, other) => one - other);
  return valid.length > 0 ? valid : SHIFTS;
}

/** The start of the present shift in the browser's zone, as RFC 3339. */
function shiftStart(hours) {
  const start = new Date();
  const begun = hours.filter((hour) => hour <= start.getHours());
  if (begun.length === 0) start.setDate(start.getDate() - 1);
  start.setHours(begun.at(-1) ?? hours.at(-1), 0, 0, 0);
  return start.toISOString();
}

/** The counts of all recipes together. */
function shiftCounts(items) {
  const sum = (count) => items.reduce((total, { totals }) => total + count(totals), 0);
  const counts = Object.fromEntries(["ok", "ng", "review"].map((name) => [name, sum(({ verdict }) => verdict[name])]));
  const judged = counts.ok + counts.ng + counts.review;
  return { ...counts, failed: sum(({ status }) => status.failed), ng_rate: judged ? counts.ng / judged : null };
}
