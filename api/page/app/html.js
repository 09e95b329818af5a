/** Templates: `html` escapes every value, so nothing from outside becomes markup. */

import htm from "../vendor/htm.mjs";
import { h } from "../vendor/preact.mjs";
import { ROOT, rooted } from "./router.js";

/** An element whose links and images are below the root path. */
function below(type, props, ...children) {
  if (typeof type === "string") for (const name of ["href", "src"]) if (props?.[name]) props[name] = rooted(props[name]);
  return h(type, props, ...children);
}

export const html = htm.bind(ROOT ? below : h);
