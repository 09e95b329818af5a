/** A grid of cards of one size. Only those near the visible part of the page are in the document, however many there are. */

import { useLayoutEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";

const AHEAD = 900; // pixels above and below the visible part

/**
 * @param {number} narrowest width of a card in pixels.
 * @param {number} text height of a card below its square image, in pixels.
 * @param {(item: object, index: number) => any} children draws a card.
 */
export function Grid({ items, narrowest, text, gap, children }) {
  const place = useRef(null);
  const [width, setWidth] = useState(0);
  const [top, setTop] = useState(0); // of the visible part, in the grid, in pixels; in steps, so that it changes seldom
  const columns = Math.max(1, Math.floor((width + gap) / (narrowest + gap)));
  const row = (width + gap) / columns + text;
  const rows = Math.ceil(items.length / columns);

  useLayoutEffect(() => {
    const measure = () => setWidth(place.current.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    const follow = () => setTop(Math.floor(-place.current.getBoundingClientRect().top / row) * row);
    follow();
    addEventListener("scroll", follow, { passive: true });
    return () => removeEventListener("scroll", follow);
  }, [row]);

  const first = Math.min(rows, Math.max(0, Math.floor((top - AHEAD) / row)));
  const last = Math.min(rows, Math.ceil((top + innerHeight + AHEAD) / row));
  const shown = width > 0 ? items.slice(first * columns, last * columns) : [];
  const style = {
    gap: `${gap}px`,
    gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))`,
    gridAutoRows: `${row - gap}px`,
    paddingTop: `${first * row}px`,
    paddingBottom: `${Math.max(0, rows - last) * row}px`,
  };
  return html`<div class="gallery" ref=${place} style=${style}>
    ${shown.map((item, index) => children(item, first * columns + index))}
  </div>`;
}
