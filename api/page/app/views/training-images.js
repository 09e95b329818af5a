/** Images of a training: read from a folder, labelled by its folders, and uploaded in pieces. */

import { call } from "../api.js";

const MOST_IMAGES = 50;
const MOST_BYTES = 32_000_000;
const IMAGE = /\.(jpe?g|png|bmp|webp|tiff?)$/i;
/** Statuses that are the fault of an image or its name; all others end the upload. */
const REFUSES_IMAGES = new Set([400, 413, 415, 422]);

/** The images among chosen files: `{file, path, label}`. */
export function chosenImages(files) {
  return labelled([...files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
}

/** The images among dropped folders and files. */
export async function droppedImages(transfer) {
  const found = [];
  const visit = async (entry, path) => {
    if (entry.isFile) {
      found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (entries.length === 0) return;
      for (const each of entries) await visit(each, `${path}/${each.name}`);
    }
  };
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  for (const entry of entries) await visit(entry, entry.name);
  return labelled(found);
}

/** Images with their labels, by the folders of the MVTec layout: `test/<type>` to judge with, all others good parts. */
function labelled(files) {
  return files
    .filter(({ path }) => IMAGE.test(path) && !/(^|\/)ground_truth\//.test(path))
    .map(({ file, path }) => ({ file, path: nameOf(path), label: labelOf(path) }));
}

/** A name that browsers send unchanged in a form. */
const nameOf = (path) => path.replace(/["\r\n]/g, "_");

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
