/**
 * The page: one tile for each camera, frames over one WebSocket, and what is live, stale or offline.
 *
 * In: `frame`, `status`, `health`, `probe` from the socket. Out: `watch` (the cameras that are visible at present),
 * `ack` (a frame is drawn, the next one may be sent) and `probe` (what was sent before this probe has arrived).
 */

import { Tile } from "./tile.js";
import { durationText } from "./words.js";

const SILENT_MS = 5000; // without a status for this long nothing on the page is shown as live
const SPEAK_MS = 4000; // how often the summary for screen readers changes

const $ = (id) => document.getElementById(id);
const tiles = new Map();
const base = document.documentElement.dataset.base; // the path before all others, behind a proxy; else empty
const socket = io({ path: `${base}/socket.io/`, transports: ["websocket"], reconnectionDelay: 300, reconnectionDelayMax: 2000 });
let statusAt = 0;
let full = null;
let watched = "";
let reasons = []; // why no frames are labelled
let notes = []; // what else fails
let rejected = false; // the viewer answers, but accepts no WebSocket
let signedOut = false; // the session has ended

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const tile = tiles.get(entry.target.dataset.camera);
    if (tile) tile.inView = entry.isIntersecting;
  }
  watch();
});

socket.on("connect", () => {
  rejected = false;
  watched = "";
  watch();
  refresh();
});
socket.on("disconnect", refresh);
socket.on("connect_error", async () => {
  const answer = await fetch(`${base}/api/session`).catch(() => null);
  rejected = answer !== null;
  signedOut = answer?.status === 401;
  if (signedOut) socket.disconnect(); // without a session it would only be rejected again
  refresh();
});
socket.on("health", (health) => {
  reasons = health.reasons;
  notes = health.notes ?? [];
  refresh();
});
socket.on("status", (status) => {
  statusAt = performance.now();
  placeTiles(status.cameras);
  showProcesses(status);
  refresh();
});
socket.on("frame", async (frame, jpeg) => {
  const tile = tiles.get(frame.camera);
  await tile?.show(frame, jpeg);
  socket.emit("ack", frame.camera, frame.frame_id);
  if (tile && tile.element.dataset.state !== "live") tile.refresh(isConnected());
});
socket.on("probe", (number) => socket.emit("probe", number));

/** Request the frames of the visible cameras. */
function watch() {
  for (const tile of tiles.values()) tile.setVisible(!document.hidden && tile.inView && (!full || tile === full));
  const names = [...tiles.values()].filter((tile) => tile.visible).map((tile) => tile.name).sort();
  if (socket.connected && names.join() !== watched) {
    watched = names.join();
    socket.emit("watch", names);
  }
}

function placeTiles(cameras) {
  for (const [name, tile] of tiles) {
    if (cameras.some((camera) => camera.name === name)) continue;
    if (tile === full) showFull(null);
    seen.unobserve(tile.element);
    tile.element.remove();
    tiles.delete(name);
  }
  for (const camera of cameras) {
    if (!tiles.has(camera.name)) addTile(camera.name);
    tiles.get(camera.name).camera = camera;
  }
  $("empty").hidden = cameras.length > 0;
  $("cameras").dataset.count = String(Math.min(cameras.length, 3));
  watch();
}

function addTile(name) {
  const tile = new Tile(name, { onFull: (one) => showFull(full === one ? null : one) });
  tiles.set(name, tile);
  const after = [...tiles.keys()].sort().find((other) => other > name);
  $("cameras").insertBefore(tile.element, after ? tiles.get(after).element : null);
  seen.observe(tile.element);
}

/** Show one camera alone, or all of them again. */
function showFull(tile) {
  const before = full;
  full = tile;
  document.body.classList.toggle("one", Boolean(tile));
  for (const one of tiles.values()) {
    one.element.classList.toggle("chosen", one === tile);
    one.element.querySelector(".full").setAttribute("aria-pressed", String(one === tile));
  }
  (tile ?? before)?.element.focus();
  watch();
}

function isConnected() {
  return socket.connected && performance.now() - statusAt < SILENT_MS;
}

function refresh() {
  const connected = isConnected();
  for (const tile of tiles.values()) tile.refresh(connected);
  const state = connected ? "connected" : socket.connected ? "silent" : signedOut ? "out" : statusAt ? "lost" : "connecting";
  $("connection").dataset.state = state;
  setText($("connection"), {
    connected: "Connected", silent: "No status", lost: "Connection lost", connecting: "Connecting", out: "Signed out",
  }[state]);
  $("signed-out").hidden = !signedOut;
  showBanner(state);
  const live = [...tiles.values()].filter((tile) => ["live", "unlabelled"].includes(tile.element.dataset.state));
  setText($("count-cameras"), tiles.size ? `${live.length} of ${tiles.size}` : "No camera");
}

function showBanner(state) {
  const lines = [];
  if (!socket.connected && rejected && !signedOut) lines.push("The viewer accepts no more browsers at present; trying again.");
  else if (state === "lost") lines.push("Connection to the viewer lost, trying again. Nothing below is live.");
  if (state === "connected" || state === "silent") lines.push(...reasons, ...notes);
  if (state === "silent" && !reasons.length) lines.push("No status received for 5 s. Nothing below is live.");
  $("banner").hidden = !lines.length;
  setText($("banner"), lines.map((line) => line[0].toUpperCase() + line.slice(1)).join(" · "));
}

function showProcesses(status) {
  for (const role of ["detector", "classifier"]) {
    const count = status.processes.filter((process) => process.role === role).length;
    setText($(`count-${role}s`), String(count));
    setText($(`count-${role}s`).nextElementSibling, count === 1 ? role : `${role}s`);
    document.querySelector(`[data-role=${role}]`).classList.toggle("none", count === 0);
  }
  setText($("model"), status.model ?? "none");
  fill($("process-rows"), status.processes, (one) => [
    one.role, one.host, String(one.pid), one.state, durationText(one.uptime_s), one.model ?? "",
  ]);
  fill($("stream-rows"), Object.entries(status.streams), ([name, stream]) => [
    name, String(stream.length), String(stream.lag), String(stream.pending),
  ]);
}

function fill(body, rows, cells) {
  const wanted = rows.map(cells);
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((texts, number) => {
    const row = body.rows[number] ?? body.insertRow();
    texts.forEach((text, column) => setText(row.cells[column] ?? row.insertCell(), text));
  });
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

document.addEventListener("visibilitychange", watch);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && full) showFull(null);
});
setInterval(refresh, 1000);
setInterval(() => setText($("spoken"), [...tiles.values()].map((tile) => tile.spoken).join(". ")), SPEAK_MS);
