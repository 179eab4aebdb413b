/** The texts of the page. Pure functions, without the document and the clock. */

const REASONS = {
  source_full: "pipeline full",
  memory: "Redis full",
  stale: "overtaken",
  expired: "too late",
  pixels_gone: "picture expired",
  dead: "unreadable",
};

/** Return "3 masks, 1 without", "1 mask", "1 without" or "no faces". */
export function countsText(faces) {
  const masks = faces.filter((face) => face.label === "mask").length;
  const without = faces.length - masks;
  const parts = [];
  if (masks) parts.push(masks === 1 ? "1 mask" : `${masks} masks`);
  if (without) parts.push(`${without} without`);
  return parts.join(", ") || "no faces";
}

/** Return "12 of 480 (overtaken 10, too late 2)" or "none of 480". */
export function droppedText(ledger) {
  const rows = Object.entries(ledger.dropped).filter(([, count]) => count > 0);
  const total = rows.reduce((sum, [, count]) => sum + count, 0);
  const produced = ledger.produced.toLocaleString("en");
  if (!total) return `none of ${produced}`;
  const reasons = rows
    .sort((a, b) => b[1] - a[1])
    .map(([reason, count]) => `${REASONS[reason] ?? reason} ${count.toLocaleString("en")}`);
  return `${total.toLocaleString("en")} of ${produced} (${reasons.join(", ")})`;
}

/** Return "14:03:22", preceded by the date if that is not today. */
export function timeText(unixSeconds, now = new Date()) {
  const at = new Date(unixSeconds * 1000);
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === now.toDateString() ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}

/** Return "3 d 4 h", "2 h 5 min", "7 min" or "12 s". */
export function durationText(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Return the median of numbers, null if there are none. */
export function median(numbers) {
  if (!numbers.length) return null;
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
