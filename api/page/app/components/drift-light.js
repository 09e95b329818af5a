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
};

export function Light({ light, title = "" }) {
  const { look, icon } = LIGHTS[light];
  return html`<span class=${`light ${look}`} title=${title}><${Icon} name=${icon} />${t(`drift.${light}`)}</span>`;
}

/** The light of a recipe, with a link to its reasons. */
export function DriftLight({ recipe }) {
  const since = useMemo(() => new Date(Date.now() - 8 * 86_400_000).toISOString(), []);
  const drift = useResource(`${recipePath(recipe)}/drift`, { query: { since }, every: 60_000 });
  if (!drift.data) return null;
  const { light, reasons } = drift.data.summary;
  return html`<a class="quiet" href=${href("/drift", { recipe })}>
    <${Light} light=${light} title=${reasons.join(" ")} />
  </a>`;
}
