/** Gallery and search: all filters of the listing, kept in the address; more are read as one scrolls. */

import { useEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { Grid } from "../components/grid.js";
import { InspectionCard } from "../components/inspection-card.js";
import { Holds, useHolds } from "../components/legal-holds.js";
import { Empty, Failure, Loading } from "../components/states.js";
import { html } from "../html.js";
import { useListing } from "../listing.js";
import { go, href } from "../router.js";
import { t } from "../strings.js";
import { FILTERS, Filters } from "./filters.js";
import { SelectionBar } from "./selection.js";
import { SubmitImages } from "./submit-images.js";

const CARD = { narrowest: 168, text: 142, gap: 12 }; // pixels; the height of `.card .text` in style/components.css

export function Gallery({ query }) {
  const filter = Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));
  const listing = useListing(filter);
  const holds = useHolds(query);
  const selection = useSelection(listing.items);
  const isFiltered = Object.keys(filter).some((name) => name !== "recipe");
  const selected = listing.items.filter(({ id }) => selection.ids.has(id));
  return html`
    <div class="view-head"><h1>${t("nav.inspections")}</h1><${Exports} filter=${filter} /></div>
    <${Filters} query=${query} />
    <${Holds} of=${query} holds=${holds} />
    <${SubmitImages} recipe=${query.recipe} />
    ${listing.problem && html`<${Failure} problem=${listing.problem} retry=${listing.more} />`}
    ${listing.ended && listing.items.length === 0 && html`<${NothingFound} isFiltered=${isFiltered} recipe=${query.recipe} />`}
    <${Grid} items=${listing.items} ...${CARD}>${(inspection, index) => html`<${InspectionCard}
      key=${inspection.id} inspection=${inspection} query=${filter} selected=${selection.ids.has(inspection.id)}
      onSelect=${(event) => selection.toggle(index, event.shiftKey)} />`}<//>
    ${!listing.ended && !listing.problem && html`<${More} onVisible=${listing.more} cursor=${listing.cursor} />`}
    ${selected.length > 0 && html`
      <${SelectionBar} selected=${selected} onClear=${selection.clear} onDeselect=${selection.remove}
        onChanged=${listing.replace} />`}
  `;
}

function Exports({ filter }) {
  const names = { csv: "CSV", parquet: "Parquet" };
  return html`<div class="actions">${Object.entries(names).map(([format, name]) => html`
    <a class="button" href=${href("/v1/inspections/export", { ...filter, format })} download>
      ${t("gallery.export", { format: name })}
    </a>`)}</div>`;
}

function NothingFound({ isFiltered, recipe }) {
  if (isFiltered) {
    return html`<${Empty} title=${t("gallery.nothing")}>
      <p>${t("gallery.nothing.filter")}</p>
      <button onClick=${() => go("/inspections")}>${t("gallery.reset")}</button>
    <//>`;
  }
  return html`<${Empty} title=${t("gallery.none")}>
    <p>${t("gallery.none.next")}</p>
    <code>linewatch submit part.jpg --recipe ${recipe ?? "NAME"} --wait</code>
  <//>`;
}

/** The selected inspections; with shift, all between the last click and this one. */
function useSelection(items) {
  const [ids, setIds] = useState(new Set());
  const last = useRef(null);
  const toggle = (index, isRange) => {
    const changed = new Set(ids);
    const isOn = !changed.has(items[index].id);
    const start = isRange && last.current !== null ? last.current : index;
    const range = items.slice(Math.min(start, index), Math.max(start, index) + 1);
    for (const { id } of range) changed[isOn ? "add" : "delete"](id);
    last.current = index;
    setIds(changed);
  };
  const remove = (id) => setIds((before) => new Set([...before].filter((each) => each !== id)));
  return { ids, toggle, remove, clear: () => setIds(new Set()) };
}

/** Reads more once it comes near the visible part of the page, until it is far below it. */
function More({ onVisible, cursor }) {
  const place = useRef(null);
  const read = useRef(onVisible);
  read.current = onVisible;
  useEffect(() => {
    const onChange = ([entry]) => entry.isIntersecting && read.current();
    const observer = new IntersectionObserver(onChange, { rootMargin: "1500px" });
    observer.observe(place.current);
    return () => observer.disconnect();
  }, [cursor]);
  return html`<div class="more" ref=${place}><${Loading} /></div>`;
}
