/** The upload of images to an open training, after which it starts. It can be interrupted and continued. */

import { useEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { pieces, uploadPiece } from "./training-images.js";

/**
 * Upload images of one training at a time.
 *
 * @param {string} path of the trainings of the recipe.
 * @param {() => Promise<void>} onChanged called when the upload has ended or was interrupted.
 * @returns {{state: object | null, begin: Function, resume: Function, stop: Function}} `state` is that of the last
 *   upload: `{id, images, sent, refused, problem, running}`, with the `id` of the training, the number of images that
 *   were `sent`, and those that were `refused`, each with `name` and `detail`.
 */
export function useUpload(path, onChanged) {
  const [state, setState] = useState(null);
  const aborter = useRef(null);
  useEffect(() => () => aborter.current?.abort(), []);

  const run = async (upload) => {
    aborter.current = new AbortController();
    const { signal } = aborter.current;
    const change = (changes) => setState({ ...Object.assign(upload, changes) });
    change({ problem: null, running: true });
    try {
      for (const piece of pieces(upload.images.slice(upload.sent))) {
        const refused = await uploadPiece(`${path}/${upload.id}/images`, piece, signal);
        change({ sent: upload.sent + piece.length, refused: [...upload.refused, ...refused] });
      }
      await call(`${path}/${upload.id}/start`, { method: "POST", signal });
    } catch (problem) {
      change({ running: false, problem: problem.name === "AbortError" ? null : problem });
    }
    await onChanged(); // first, so that a started training is not shown as an open one
    change({ running: false });
  };
  return {
    state,
    begin: (id, images) => run({ id, images, sent: 0, refused: [] }),
    resume: () => run(state),
    stop: () => aborter.current.abort(),
  };
}
