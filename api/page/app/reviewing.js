/** Who reviews on this device, and what a reviewer may see of the reviews of others. */

import { call } from "./api.js";
import { replaceInListing } from "./listing.js";
import { href } from "./router.js";

/** An event: a review was added or taken back. */
export const REVIEWED = "linewatch:reviewed";

const KEPT = "linewatch:reviewer";

export const rememberedReviewer = () => localStorage.getItem(KEPT) ?? "";
export const rememberReviewer = (name) => localStorage.setItem(KEPT, name);

export const isSamePerson = (one, other) => one.trim().toLocaleLowerCase() === other.trim().toLocaleLowerCase();

/**
 * Whether the reviews of an inspection are hidden: it waits for another review, so that one is given blind. Who has
 * reviewed it sees all of them.
 */
export function isBlind(inspection) {
  const { effective_verdict: effective, reviews } = inspection;
  const person = rememberedReviewer();
  return effective === "review" && reviews.length > 0 && !reviews.some(({ reviewer }) => isSamePerson(reviewer, person));
}

/** Add a review; the inspection as it is then. */
export function addReview(id, { verdict, reviewer, reason }) {
  return change(`/v1/inspections/${id}/reviews`, { method: "POST", json: { verdict, reviewer, reason } });
}

/** Take back a review of one's own; the inspection as it is then. */
export function retractReview(id, { id: reviewId, reviewer }) {
  return change(href(`/v1/inspections/${id}/reviews/${reviewId}`, { reviewer }), { method: "DELETE" });
}

async function change(path, options) {
  const inspection = await call(path, options);
  replaceInListing([inspection]);
  dispatchEvent(new Event(REVIEWED));
  return inspection;
}
