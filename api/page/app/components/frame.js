/** The frame of every view: navigation, the recipe, the health of the system, and who is signed in. */

import { useEffect, useState } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { html } from "../html.js";
import { changeQuery, href } from "../router.js";
import { signOut, useMay, useSession } from "../session.js";
import { LANGUAGES, chooseLanguage, language, t } from "../strings.js";
import { Icon } from "./icon.js";

export function Frame({ views, current, query, onSignedOut, children }) {
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [current]);
  return html`<div class="frame">
    <a class="skip" href="#main">${t("nav.skip")}</a>
    <nav class=${`navigation ${open ? "open" : ""}`} aria-label=${t("nav.label")}>
      <a class="brand" href=${href("/", { recipe: query.recipe })}><img src="/static/icon.svg" alt="" />Linewatch</a>
      ${views.filter((view) => view.icon).map((view) => html`
        <${Item} view=${view} current=${current} recipe=${query.recipe} />`)}
      <div class="bottom"><${Preferences} /><${Person} onSignedOut=${onSignedOut} /></div>
    </nav>
    <div>
      <header class="top">
        <button class="menu-button" aria-expanded=${open} onClick=${() => setOpen(!open)}>
          <${Icon} name="menu" /><span class="visually-hidden">${t("nav.label")}</span>
        </button>
        <${RecipePicker} recipe=${query.recipe} />
      </header>
      <main id="main" tabindex="-1">${children}</main>
    </div>
  </div>`;
}

function Item({ view, current, recipe }) {
  const may = useMay(view.scope ?? "read");
  if (!may) return null;
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
    await signOut();
    onSignedOut();
  };
  return html`<div class="row">
    <span class="soft">${t("session.as", { name: session.name ?? session.actor })}</span>
    <button class="plain" onClick=${leave}><${Icon} name="log-out" />${t("session.leave")}</button>
  </div>`;
}
