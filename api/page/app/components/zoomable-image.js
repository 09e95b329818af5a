/** An image, and another one over it, that zoom to the pointer and pan together. */

import { useEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { t } from "../strings.js";
import { Icon } from "./icon.js";

const LARGEST = 16;
const STEP = 1.3;
const START = { scale: 1, x: 0, y: 0 };

/**
 * @param {string | null} over the address of the image above, of the same form.
 * @param {number} opacity of the image above, 0 to 1.
 */
export function ZoomableImage({ src, over, opacity, alt }) {
  const place = useRef(null);
  const [view, setView] = useState(START);
  const [broken, setBroken] = useState(null);
  const [attempt, setAttempt] = useState(0);
  const retry = () => {
    setBroken(null);
    setAttempt(attempt + 1);
  };
  const pointers = useRef(new Map());

  const zoom = (factor, clientX, clientY) => {
    const box = place.current.getBoundingClientRect();
    const [atX, atY] = [(clientX ?? box.x + box.width / 2) - box.x, (clientY ?? box.y + box.height / 2) - box.y];
    setView((before) => {
      const scale = Math.min(LARGEST, Math.max(1, before.scale * factor));
      const grown = scale / before.scale;
      return within({ scale, x: atX - (atX - before.x) * grown, y: atY - (atY - before.y) * grown }, box);
    });
  };
  useKeys({ "+": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: () => setView(START) });
  useEffect(() => {
    const onWheel = (event) => {
      event.preventDefault();
      zoom(event.deltaY < 0 ? STEP : 1 / STEP, event.clientX, event.clientY);
    };
    const element = place.current;
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  }, []);

  const onPointerDown = (event) => {
    place.current.setPointerCapture(event.pointerId);
    pointers.current.set(event.pointerId, event);
  };
  const onPointerMove = (event) => {
    const last = pointers.current.get(event.pointerId);
    if (!last) return;
    const others = [...pointers.current.values()].filter((other) => other.pointerId !== event.pointerId);
    if (others.length > 0) {
      const distance = (pointer) => Math.hypot(pointer.clientX - others[0].clientX, pointer.clientY - others[0].clientY);
      zoom(distance(event) / Math.max(distance(last), 1), others[0].clientX, others[0].clientY);
    } else {
      const box = place.current.getBoundingClientRect();
      const [right, down] = [event.clientX - last.clientX, event.clientY - last.clientY];
      setView((before) => within({ ...before, x: before.x + right, y: before.y + down }, box));
    }
    pointers.current.set(event.pointerId, event);
  };
  const onPointerUp = (event) => pointers.current.delete(event.pointerId);

  const transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  return html`<div class="stack">
    <div class="zoomable" ref=${place} onPointerDown=${onPointerDown} onPointerMove=${onPointerMove}
      onPointerUp=${onPointerUp} onPointerCancel=${onPointerUp} onDblClick=${(event) => zoom(2, event.clientX, event.clientY)}>
      <img key=${`image ${attempt}`} src=${src} alt=${alt} draggable=${false} style=${{ transform }}
        onError=${() => setBroken("image")} />
      ${over && broken !== "heatmap" && html`<img key=${`heatmap ${attempt}`} src=${over} alt="" draggable=${false}
        style=${{ transform, opacity }} onError=${() => setBroken((before) => before ?? "heatmap")} />`}
    </div>
    ${broken && html`<p class="light ng" role="alert">
      <${Icon} name="triangle-alert" />${t(`inspection.broken.${broken}`)}
      <button onClick=${retry}>${t("action.retry")}</button>
    </p>`}
    <div class="row small soft">
      <button onClick=${() => zoom(1 / STEP)} aria-label=${t("zoom.out")}>−</button>
      <span class="number">${Math.round(view.scale * 100)} %</span>
      <button onClick=${() => zoom(STEP)} aria-label=${t("zoom.in")}>+</button>
      <button onClick=${() => setView(START)}>${t("zoom.fit")}</button>
      <span class="push">${t("zoom.keys")}</span>
    </div>
  </div>`;
}

/** Keep the image within its place. */
function within({ scale, x, y }, box) {
  const bound = (value, side) => Math.min(0, Math.max(value, side * (1 - scale)));
  return { scale, x: bound(x, box.width), y: bound(y, box.height) };
}
