/** Image files of this computer: chosen in a dialog, or dropped on the page, also as folders. */

const IMAGE = /\.(jpe?g|png|bmp|webp|tiff?)$/i;

/** The images among chosen files: `{file, path}`, with the path in the chosen folder. */
export function chosenImages(files) {
  return imagesOf([...files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
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
  return imagesOf(found);
}

/** Paths become names that browsers send unchanged in a form. */
function imagesOf(files) {
  const images = files.filter(({ path }) => IMAGE.test(path));
  return images.map(({ file, path }) => ({ file, path: path.replace(/["\r\n]/g, "_") }));
}
