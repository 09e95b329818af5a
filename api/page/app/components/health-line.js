/** The health of the system in one line, with a link to what is behind it. */

import { useResource } from "../api.js";
import { html } from "../html.js";
import { t } from "../strings.js";
import { Icon } from "./icon.js";

const LOOKS = {
  ok: { look: "ok", icon: "check" },
  degraded: { look: "review", icon: "triangle-alert" },
  down: { look: "ng", icon: "x" },
};

export function HealthLine() {
  const system = useResource("/v1/system", { every: 10_000 });
  if (system.problem) return html`<${Line} look="ng" icon="triangle-alert" text=${system.problem.message} />`;
  if (!system.data) return null;
  const { status, reasons } = system.data.health;
  const text = status === "ok" ? t("health.ok") : reasons[0] ?? t(`health.${status}`);
  return html`<${Line} ...${LOOKS[status]} text=${text} />`;
}

function Line({ look, icon, text }) {
  return html`<a class="quiet" href="/system"><span class=${`light ${look}`}><${Icon} name=${icon} />${text}</span></a>`;
}
