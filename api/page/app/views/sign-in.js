/** Sign in with an API key. */

import { useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { signIn } from "../session.js";
import { ProblemLine } from "../components/problem-line.js";
import { t } from "../strings.js";

export function SignIn({ onSignedIn }) {
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try {
      await signIn(new FormData(event.target).get("key").trim());
      onSignedIn();
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  return html`<main class="sign-in">
    <form class="panel" onSubmit=${submit}>
      <h1>${t("session.title")}</h1>
      <p class="soft">${t("session.text")}</p>
      <label>${t("session.key")}<input name="key" type="password" required autocomplete="current-password" autofocus /></label>
      <${ProblemLine} problem=${problem} />
      <button class="primary">${t("session.enter")}</button>
    </form>
  </main>`;
}
