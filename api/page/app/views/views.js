/** All views with their addresses. `icon` puts a view into the navigation; `within` marks the item that it belongs to. */

import { Drift } from "./drift.js";
import { Gallery } from "./gallery.js";
import { InspectionView } from "./inspection.js";
import { Live } from "./live.js";
import { Models } from "./models.js";
import { Overview } from "./overview.js";
import { Rescoring } from "./rescoring.js";
import { Review } from "./review.js";
import { SystemView } from "./system.js";
import { Thresholds } from "./thresholds.js";
import { Train } from "./train.js";

export const VIEWS = [
  { path: "/", title: "nav.overview", icon: "layout-dashboard", component: Overview },
  { path: "/live", title: "nav.live", icon: "radio", component: Live },
  { path: "/inspections", title: "nav.inspections", icon: "images", component: Gallery },
  { path: "/inspections/{id}", title: "nav.inspection", within: "images", component: InspectionView },
  { path: "/review", title: "nav.review", icon: "clipboard-check", component: Review },
  { path: "/thresholds", title: "nav.thresholds", icon: "sliders-horizontal", component: Thresholds },
  { path: "/train", title: "nav.train", icon: "graduation-cap", component: Train },
  { path: "/models", title: "nav.models", icon: "boxes", component: Models },
  { path: "/rescoring", title: "nav.rescoring", icon: "history", component: Rescoring },
  { path: "/drift", title: "nav.drift", icon: "trending-up", component: Drift },
  { path: "/system", title: "nav.system", icon: "server", component: SystemView },
];

/** The view of a path, and the id in it. */
export function findView(path) {
  for (const view of VIEWS) {
    const match = new RegExp(`^${view.path.replace("{id}", "([^/]+)")}/?$`).exec(path);
    if (match) return { view, id: match[1] };
  }
  return null;
}
