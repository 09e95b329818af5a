/** Inspect images of this computer: each becomes an inspection of one batch, which is shown when all have been sent. */

import { useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { DropZone } from "../components/drop-zone.js";
import { Progress } from "../components/progress.js";
import { html } from "../html.js";
import { go, href } from "../router.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";

const AT_ONCE = 4;

/** @param {string} [recipe] the chosen recipe; without one, nothing can be inspected. */
export function SubmitImages({ recipe }) {
  const may = useMay("submit");
  const [sending, setSending] = useState(null); // {done, total}
  const [refused, setRefused] = useState([]); // {name, detail}
  if (!may) return null;
  const submit = async (images) => {
    setRefused([]);
    setSending({ done: 0, total: images.length });
    try {
      const accepted = await submitBatch(recipe, images, {
        onSent: (done) => setSending({ done, total: images.length }),
        onRefused: (name, detail) => setRefused((before) => [...before, { name, detail }]),
      });
      if (accepted) go(href("/inspections", { recipe, batch_id: accepted }));
    } catch (problem) {
      setRefused((before) => [...before, { name: t("submit.batch"), detail: problem.message }]);
    }
    setSending(null);
  };
  if (!recipe) return html`<p class="soft small">${t("submit.chooseRecipe")}</p>`;
  return html`
    ${sending
      ? html`<${Progress} done=${sending.done} total=${sending.total} />`
      : html`<${DropZone} text=${t("submit.drop", { recipe })} onImages=${submit} />`}
    ${refused.length > 0 && html`<ul role="alert" class="small scrolled">${refused.map(({ name, detail }) => html`
      <li class="light ng">${name}: ${detail}</li>`)}</ul>`}`;
}

/** Submit images, several at once. Returns the id of their batch; null if none was accepted. */
async function submitBatch(recipe, images, { onSent, onRefused }) {
  const batch = await call("/v1/batches", { method: "POST" });
  const left = [...images];
  let sent = 0;
  let accepted = 0;
  const work = async () => {
    for (let image = left.shift(); image; image = left.shift()) {
      try {
        await submitImage(recipe, image, batch.id);
        accepted += 1;
      } catch (problem) {
        onRefused(image.path, problem.message);
      }
      onSent(++sent);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  await call(`/v1/batches/${batch.id}/close`, { method: "POST" });
  return accepted > 0 ? batch.id : null;
}

function submitImage(recipe, { file, path }, batchId) {
  const form = new FormData();
  const fields = { recipe, batch_id: batchId, external_id: path.slice(-200) };
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("image", file, path);
  return call("/v1/inspections", { method: "POST", body: form });
}
