/** The words of the page, in the person's language. A language is one file in `strings/`; list it here to add it. */

import de from "../strings/de.js";
import en from "../strings/en.js";

export const LANGUAGES = { en: { name: "English", strings: en }, de: { name: "Deutsch", strings: de } };
const KEPT = "linewatch:language";

export const language = chosenLanguage();
/** Numbers and dates follow the browser's region if it speaks the chosen language. */
export const locale = navigator.languages.find((tag) => tag.split("-")[0] === language) ?? language;
const plurals = new Intl.PluralRules(locale);

function chosenLanguage() {
  const wanted = [localStorage.getItem(KEPT), ...navigator.languages.map((tag) => tag.split("-")[0])];
  return wanted.find((code) => code in LANGUAGES) ?? "en";
}

/** Show the page in another language from now on. */
export function chooseLanguage(code) {
  localStorage.setItem(KEPT, code);
  location.reload();
}

/**
 * A text by its key. `{name}` in it is replaced by a value; a text with `one` and `other` is chosen by `count`.
 *
 * A key that is missing is shown as it is, and the tests fail.
 */
export function t(key, values = {}) {
  let text = LANGUAGES[language].strings[key] ?? en[key] ?? key;
  if (typeof text === "object") text = text[plurals.select(values.count)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? `{${name}}`));
}

/** A text for a code of the API, such as a status; the code itself where there is none. */
export function tCode(group, code) {
  const key = `${group}.${code}`;
  return key in en ? t(key) : code;
}
