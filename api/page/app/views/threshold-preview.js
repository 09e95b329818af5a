/** What a threshold would change: flips with their images, false rejects to expect, and agreement with reviews. */

import { useEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { thumbnailOf } from "../components/inspection-card.js";
import { Verdict } from "../components/verdict.js";
import { integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t } from "../strings.js";

const DELAY = 120; // milliseconds after the last movement

/** The preview of limits by the api, read a moment after they were moved. */
export function usePreview(path, station, limits) {
  const [state, setState] = useState({ data: null, problem: null });
  const latest = useRef(0);
  const key = JSON.stringify(limits);
  useEffect(() => {
    if (!limits) return undefined;
    const turn = ++latest.current;
    const read = async () => {
      const state = await call(href(`${path}/threshold-preview`, { ...limits, station_id: station })).then(
        (data) => ({ data, problem: null }),
        (problem) => ({ data: null, problem }),
      );
      if (turn === latest.current) setState(state);
    };
    const timer = setTimeout(read, DELAY);
    return () => clearTimeout(timer);
  }, [path, station, key]);
  return state;
}

/** `moved` is false for the limits in force: they change verdicts that were recorded under earlier ones. */
export function Consequences({ preview, recipe, moved }) {
  const { flips, reviewed: { ok, ng }, agreement, inspections } = preview;
  const [decided, undecided] = [ok.ok + ok.ng + ng.ok + ng.ng, ok.review + ng.review];
  const flipped = flips.reduce((sum, flip) => sum + flip.count, 0);
  return html`
    <dl class="panel figures" aria-live="polite">
      <div class="figure">
        <dt>${t(moved ? "thresholds.flips" : "thresholds.flips.inForce")}</dt><dd>${integer(flipped)}</dd>
        <dd class="note">${t("thresholds.of", { count: integer(inspections) })}</dd>
      </div>
      <${Expected} expected=${preview.expected_false_reject_rate} />
      <div class="figure">
        <dt>${t("thresholds.agreement")}</dt><dd>${percent(agreement)}</dd>
        <dd class="note">${t("thresholds.reviewed", { count: integer(decided) })}</dd>
      </div>
      <div class="figure"><dt>${t("thresholds.rejectedOk")}</dt><dd>${integer(ok.ng)}</dd></div>
      <div class="figure"><dt>${t("thresholds.missedNg")}</dt><dd>${integer(ng.ok)}</dd></div>
      <div class="figure">
        <dt>${t("thresholds.toReview")}</dt><dd>${integer(undecided)}</dd>
        <dd class="note">${t("thresholds.reviewed", { count: integer(decided + undecided) })}</dd>
      </div>
    </dl>
    ${flips.map((flip) => html`<${Flip} key=${`${flip.from} ${flip.to}`} flip=${flip} recipe=${recipe} />`)}`;
}

function Expected({ expected }) {
  const [low, high] = expected?.confidence_interval ?? [];
  const note = expected ? t("thresholds.interval", { low: percent(low), high: percent(high) }) : t("thresholds.unknown");
  return html`<div class="figure">
    <dt>${t("thresholds.expected")}</dt><dd>${percent(expected?.rate)}</dd><dd class="note">${note}</dd>
  </div>`;
}

function Flip({ flip, recipe }) {
  return html`<section class="stack">
    <h3 class="row">
      <${Verdict} value=${flip.from} /> → <${Verdict} value=${flip.to} /> <span>${integer(flip.count)}</span>
    </h3>
    <div class="strip small-strip">${flip.examples.map(({ id, anomaly_score: score }) => html`
      <a href=${href(`/inspections/${id}`, { recipe })} title=${number(score)}>
        <img src=${thumbnailOf(id)} alt=${t("thresholds.example", { score: number(score) })} width="256" height="256"
          loading="lazy" />
      </a>`)}
    </div>
  </section>`;
}
