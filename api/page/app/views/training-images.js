/** Images of a training: labelled by their folders, and uploaded in pieces. */

import { call } from "../api.js";

const MOST_IMAGES = 50;
const MOST_BYTES = 32_000_000;
/** Statuses that are the fault of an image or its name; all others end the upload. */
const REFUSES_IMAGES = new Set([400, 413, 415, 422]);

/** Images with their labels, by the folders of the MVTec layout: `test/<type>` to judge with, all others good parts. */
export function labelled(images) {
  const parts = images.filter(({ path }) => !/(^|\/)ground_truth\//.test(path));
  return parts.map((image) => ({ ...image, label: labelOf(image.path) }));
}

function labelOf(path) {
  const type = /(^|\/)test\/([^/]+)\//.exec(path)?.[2];
  if (!type) return "good";
  const plain = type.normalize("NFKD").replace(/\p{Mark}/gu, "").replace(/[^A-Za-z0-9 ._-]/g, "_").slice(0, 64);
  return `test/${plain.replace(/^[^A-Za-z0-9]/, "0")}`;
}

/** Pieces of images, each small enough for one request. */
export function* pieces(images) {
  let piece = [];
  let bytes = 0;
  for (const image of images) {
    if (piece.length === MOST_IMAGES || (piece.length > 0 && bytes + image.file.size > MOST_BYTES)) {
      yield piece;
      [piece, bytes] = [[], 0];
    }
    piece.push(image);
    bytes += image.file.size;
  }
  if (piece.length > 0) yield piece;
}

/**
 * Upload a piece and return the refused images: `{name, detail}`.
 *
 * If it is refused as a whole, its halves are uploaded, so that only images at fault are left out.
 */
export async function uploadPiece(path, images, signal) {
  try {
    const { errors } = await call(path, { method: "POST", body: formOf(images), signal });
    return errors.map(({ external_id: name, detail }) => ({ name, detail }));
  } catch (problem) {
    if (!REFUSES_IMAGES.has(problem.status)) throw problem;
    if (images.length === 1) return [{ name: images[0].path, detail: problem.message }];
    const middle = images.length >> 1;
    const first = await uploadPiece(path, images.slice(0, middle), signal);
    return [...first, ...(await uploadPiece(path, images.slice(middle), signal))];
  }
}

function formOf(images) {
  const form = new FormData();
  const items = {};
  for (const { file, label, path } of images) {
    form.append("images", file, path);
    items[path] = { label };
  }
  form.append("items", JSON.stringify(items));
  return form;
}
