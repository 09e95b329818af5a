/** All views with their addresses. `icon` puts a view into the navigation; `within` marks the item that it belongs to. */

import { Gallery } from "./gallery.js";
import { InspectionView } from "./inspection.js";
import { Overview } from "./overview.js";
import { Rescoring } from "./rescoring.js";

export const VIEWS = [
  { path: "/", title: "nav.overview", icon: "layout-dashboard", component: Overview },
  { path: "/inspections", title: "nav.inspections", icon: "images", component: Gallery },
  { path: "/inspections/{id}", title: "nav.inspection", within: "images", component: InspectionView },
  { path: "/rescoring", title: "nav.rescoring", icon: "history", component: Rescoring },
];

/** The view of a path, and the id in it. */
export function findView(path) {
  for (const view of VIEWS) {
    const match = new RegExp(`^${view.path.replace("{id}", "([^/]+)")}/?$`).exec(path);
    if (match) return { view, id: match[1] };
  }
  return null;
}
