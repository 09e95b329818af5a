/** The frame of every view: navigation, the recipe, the health of the system, and who is signed in. */

import { useLayoutEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { html } from "../html.js";
import { changeQuery, href } from "../router.js";
import { signOut, useSession } from "../session.js";
import { LANGUAGES, chooseLanguage, language, t } from "../strings.js";
import { Icon } from "./icon.js";
import { showToast } from "./toast.js";

export function Frame({ views, current, query, onSignedOut, children }) {
  const menu = useMenu();
  const items = views.filter((view) => view.icon);
  return html`<div class="frame">
    <a class="skip" href="#main">${t("nav.skip")}</a>
    ${menu.open && html`<div class="backdrop" onClick=${menu.close}></div>`}
    <nav class=${`navigation ${menu.open ? "open" : ""}`} aria-label=${t("nav.label")} ref=${menu.place} onClick=${menu.onClick}>
      <button class="plain menu-button" onClick=${menu.close}><${Icon} name="x" />${t("action.close")}</button>
      <a class="brand" href=${href("/", { recipe: query.recipe })}><img src="/static/icon.svg" alt="" />Linewatch</a>
      ${items.map((view) => html`<${Item} view=${view} current=${current} recipe=${query.recipe} />`)}
      <div class="bottom"><${Preferences} /><${Person} onSignedOut=${onSignedOut} /></div>
    </nav>
    <div>
      <header class="top">
        <button class="menu-button" aria-expanded=${menu.open} onClick=${menu.show} ref=${menu.button}>
          <${Icon} name="menu" /><span class="visually-hidden">${t("nav.label")}</span>
        </button>
        ${current?.path !== "/system" && html`<${RecipePicker} recipe=${query.recipe} />`}
      </header>
      <main id="main" tabindex="-1">${children}</main>
    </div>
  </div>`;
}

/** The navigation of a narrow screen: it opens by a button, and closes by Escape, a link, its button, or outside of it. */
function useMenu() {
  const [open, setOpen] = useState(false);
  const place = useRef(null);
  const button = useRef(null);
  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  useLayoutEffect(() => {
    if (!open) return undefined;
    place.current.querySelector("a.item")?.focus();
    const onKey = (event) => event.key === "Escape" && close();
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [open]);
  const onClick = (event) => event.target.closest("a") && setOpen(false);
  return { open, show: () => setOpen(true), close, onClick, place, button };
}

function Item({ view, current, recipe }) {
  const here = view === current || view.icon === current?.within;
  return html`<a class="item" href=${href(view.path, { recipe })} aria-current=${here ? "page" : undefined}>
    <${Icon} name=${view.icon} />${t(view.title)}
  </a>`;
}

function RecipePicker({ recipe }) {
  const recipes = useResource("/v1/recipes", { every: 30_000 });
  const names = recipes.data?.items.filter((each) => each.state === "active").map((each) => each.name) ?? [];
  if (recipe && !names.includes(recipe)) names.push(recipe);
  return html`<label class="inline">
    <span class="soft">${t("recipe.label")}</span>
    <select value=${recipe ?? ""} onChange=${(event) => changeQuery({ recipe: event.target.value, model_version: "" })}>
      <option value="">${t("recipe.all")}</option>
      ${names.map((name) => html`<option value=${name}>${name}</option>`)}
    </select>
  </label>`;
}

function Preferences() {
  const theme = document.documentElement.dataset.theme;
  const chooseTheme = (event) => {
    document.documentElement.dataset.theme = event.target.value;
    localStorage.setItem("linewatch:theme", event.target.value);
    dispatchEvent(new Event("linewatch:theme"));
  };
  return html`<div class="row">
    <select aria-label=${t("preferences.language")} value=${language}
      onChange=${(event) => chooseLanguage(event.target.value)}>
      ${Object.entries(LANGUAGES).map(([code, { name }]) => html`<option value=${code}>${name}</option>`)}
    </select>
    <select aria-label=${t("preferences.theme")} value=${theme} onChange=${chooseTheme}>
      <option value="">${t("preferences.auto")}</option>
      <option value="light">${t("preferences.light")}</option>
      <option value="dark">${t("preferences.dark")}</option>
    </select>
  </div>`;
}

function Person({ onSignedOut }) {
  const session = useSession();
  if (session.auth === "off") return html`<span class="soft">${t("session.off")}</span>`;
  const leave = async () => {
    try {
      await signOut();
      onSignedOut();
    } catch (problem) {
      showToast(problem.message);
    }
  };
  return html`<div class="row">
    <span class="soft">${t("session.as", { name: session.name ?? session.actor })}</span>
    <button class="plain" onClick=${leave}><${Icon} name="log-out" />${t("session.leave")}</button>
  </div>`;
}
