/** Numbers, durations and dates for people, by their locale. Dates are in the browser's zone. */

import { locale, t } from "./strings.js";

const dash = "–";
const integers = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const significant = new Intl.NumberFormat(locale, { maximumSignificantDigits: 4 });
const MOST_DIGITS = 8; // of numbers that are shown beside each other
const days = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
const moments = new Intl.DateTimeFormat(locale, { dateStyle: "short", timeStyle: "medium" });
const times = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
const clocks = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });

const given = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const integer = (value) => (given(value) ? integers.format(value) : dash);
export const number = (value) => (given(value) ? significant.format(value) : dash);

/** Numbers beside each other: with four significant digits, or as many more as it takes to tell different ones apart. */
export function apart(...values) {
  const different = new Set(values.filter(given)).size;
  for (let digits = 4; ; digits += 1) {
    const format = new Intl.NumberFormat(locale, { maximumSignificantDigits: digits });
    const texts = values.map((value) => (given(value) ? format.format(value) : dash));
    const isEach = new Set(texts.filter((_, index) => given(values[index]))).size === different;
    if (isEach || digits === MOST_DIGITS) return texts;
  }
}

/** As many decimals as it takes to tell numbers apart that are a hundredth of `range` apart. */
export const decimalsOf = (range) => (range > 0 ? Math.min(20, Math.max(0, 2 - Math.floor(Math.log10(range)))) : 2);

/** A number on an axis that covers `range`. */
export function numberIn(value, range) {
  return new Intl.NumberFormat(locale, { maximumFractionDigits: decimalsOf(range) }).format(value);
}

/** A share, 0 to 1, in percent, on an axis that covers `range`, a share too. */
export function percentIn(share, range) {
  const maximumFractionDigits = decimalsOf(100 * range);
  return new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits }).format(share);
}

/** A share, 0 to 1, in percent; with decimals where it is small. */
export function percent(share) {
  if (!given(share)) return dash;
  const digits = share > 0 && share < 0.1 ? 1 : 0;
  return new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: digits }).format(share);
}

/** A share with three significant digits, to compare it with a limit. */
export function exactPercent(share) {
  if (!given(share)) return dash;
  return new Intl.NumberFormat(locale, { style: "percent", maximumSignificantDigits: 3 }).format(share);
}

/**
 * A score as a multiple of its threshold, with two decimals: `1.35 ×`. Next to the threshold it has as many more as it
 * takes to show on which side it is: `0.996 ×`.
 */
export function ratio(score, threshold) {
  if (!given(score) || !(threshold > 0)) return dash;
  for (let digits = 2; digits <= MOST_DIGITS; digits += 1) {
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    const format = new Intl.NumberFormat(locale, options);
    const text = format.format(score / threshold);
    if (score === threshold || text !== format.format(1)) return `${text} ×`;
  }
  return `${score < threshold ? "<" : ">"} 1 ×`;
}

/** A number with its unit, one of those of `Intl.NumberFormat`. */
function withUnit(value, unit, digits) {
  const options = { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: digits };
  return new Intl.NumberFormat(locale, options).format(value);
}

/** Milliseconds as ms, s, min or h. */
export function duration(milliseconds) {
  if (!given(milliseconds)) return dash;
  if (milliseconds < 1000) return withUnit(milliseconds, "millisecond", milliseconds < 10 ? 1 : 0);
  const seconds = milliseconds / 1000;
  if (seconds < 90) return withUnit(seconds, "second", seconds < 10 ? 1 : 0);
  if (seconds < 5400) return withUnit(seconds / 60, "minute", 0);
  return seconds < 172800 ? withUnit(seconds / 3600, "hour", 1) : withUnit(seconds / 86400, "day", 1);
}

export function bytes(count) {
  if (!given(count)) return dash;
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(count, 1)) / 3)));
  return withUnit(count / 1000 ** step, units[step], 1);
}

export const day = (moment) => days.format(new Date(moment));
export const time = (moment) => times.format(new Date(moment));
export const clock = (moment) => clocks.format(new Date(moment));
export const dateTime = (moment) => moments.format(new Date(moment));
export const utc = (moment) => t("time.utc", { time: new Date(moment).toISOString().replace("T", " ").slice(0, 19) });

/** A moment as an input of type `datetime-local` takes it, in the browser's zone; empty if it is none. */
export function localInput(moment) {
  const date = new Date(moment ?? NaN);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** Midnight of a day in the browser's zone, as RFC 3339 in UTC. Days have 23 or 25 hours when the clocks change. */
export function startOfDay(daysAgo) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  midnight.setDate(midnight.getDate() - daysAgo);
  return midnight.toISOString();
}

export const startOfToday = () => startOfDay(0);
