/** The page: it reads the session, chooses the view by the address, and draws the frame around it. */

import { render } from "../vendor/preact.mjs";
import { useEffect } from "../vendor/hooks.mjs";
import { Frame } from "./components/frame.js";
import { Failure, Loading } from "./components/states.js";
import { Toasts } from "./components/toast.js";
import { html } from "./html.js";
import { followLinks, useAddress } from "./router.js";
import { SessionContext, useSessionState } from "./session.js";
import { language, t } from "./strings.js";
import { SignIn } from "./views/sign-in.js";
import { VIEWS, findView } from "./views/views.js";

document.documentElement.lang = language;
document.documentElement.dataset.theme = localStorage.getItem("linewatch:theme") ?? "";

function Page() {
  const address = useAddress();
  const { session, problem, reload } = useSessionState();
  useEffect(() => {
    addEventListener("click", followLinks);
    return () => removeEventListener("click", followLinks);
  }, []);
  const found = findView(address.path);
  useEffect(() => {
    document.title = `${found ? t(found.view.title) : t("unknown.title")} · Linewatch`;
  }, [found?.view]);
  if (problem) return html`<main><${Failure} problem=${problem} retry=${reload} /></main>`;
  if (!session) return html`<main><${Loading} /></main>`;
  if (session.needed) return html`<${SignIn} onSignedIn=${reload} />`;
  return html`<${SessionContext.Provider} value=${session}>
    <${Frame} views=${VIEWS} current=${found?.view} query=${address.query} onSignedOut=${reload}>
      ${found
        ? html`<${found.view.component} key=${found.view.path} query=${address.query} id=${found.id} />`
        : html`<${Unknown} />`}
    <//>
    <${Toasts} />
  <//>`;
}

function Unknown() {
  return html`<section class="message">
    <h1>${t("unknown.title")}</h1>
    <p>${t("unknown.text")}</p>
    <a href="/">${t("nav.overview")}</a>
  </section>`;
}

render(html`<${Page} />`, document.body);
