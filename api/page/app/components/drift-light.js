/** Whether what comes in still is what the model was made for: a light with a word. */

import { useMemo } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t } from "../strings.js";
import { Icon } from "./icon.js";
import { recipePath } from "./recipe-needed.js";

const LIGHTS = {
  none: { look: "ok", icon: "check" },
  watch: { look: "review", icon: "circle-help" },
  drift: { look: "ng", icon: "triangle-alert" },
  notJudged: { look: "other", icon: "circle-help" },
};

/** `judged` is false for a day or a recipe with too few parts: the API's light is then `none`, which says nothing. */
export function Light({ light, judged = true, title = "" }) {
  const name = judged ? light : "notJudged";
  const { look, icon } = LIGHTS[name];
  return html`<span class=${`light ${look}`} title=${title}><${Icon} name=${icon} />${t(`drift.${name}`)}</span>`;
}

/** The light of a recipe, with a link to its reasons. */
export function DriftLight({ recipe }) {
  const since = useMemo(() => new Date(Date.now() - 8 * 86_400_000).toISOString(), []);
  const drift = useResource(`${recipePath(recipe)}/drift`, { query: { since }, every: 60_000 });
  if (!drift.data) return null;
  const { day, light, reasons } = drift.data.summary;
  return html`<a class="quiet" href=${href("/drift", { recipe })}>
    <${Light} light=${light} judged=${day !== null} title=${reasons.join(" ")} />
  </a>`;
}
