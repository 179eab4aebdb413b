/** Tell the server the time zone of this browser, by a cookie; load a page again whose times are of another one. */

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const root = document.documentElement;
const cookie = `maskwatch-time-zone=${zone}`;

if (zone && !document.cookie.split("; ").includes(cookie)) {
  document.cookie = `${cookie}; path=${root.dataset.base || "/"}; max-age=31536000; samesite=lax`;
  const isKept = document.cookie.split("; ").includes(cookie);
  if (isKept && root.dataset.zone && root.dataset.zone !== zone) location.reload();
}
