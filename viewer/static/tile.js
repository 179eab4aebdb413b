/** One camera on the page: its frames as they come, and the truth about how fresh they are. */

import { drawFrame } from "./boxes.js";
import { countsText, droppedText, durationText, median, timeText } from "./words.js";

const RECENT_MS = 5000; // rates and latencies are taken over this long
const STALE_S = 2; // a picture older than this is not called live ...
const OFFLINE_S = 5; // ... and one older than this is behind a curtain

export class Tile {
  /** @param {string} name @param {{onFull: function(Tile): void}} page */
  constructor(name, page) {
    this.name = name;
    this.camera = null; // what the last status said
    this.frame = null; // metadata of the frame on the canvas
    this.drawnAt = -1; // performance.now()
    this.lookedAt = 0; // since when it is looked at, performance.now(); what was drawn before is old
    this.samples = []; // [when drawn, latency ms] of the last seconds
    this.inView = true; // until it is known not to be
    this.visible = false; // and the page is looked at, and no other camera is shown alone
    this.element = document.getElementById("tile").content.firstElementChild.cloneNode(true);
    this.element.dataset.camera = name;
    this.element.querySelector(".name").textContent = name;
    this.canvas = this.element.querySelector("canvas");
    Object.assign(this.canvas.dataset, { camera: name, drawnCount: "0" });
    this.element.querySelector(".full").addEventListener("click", () => page.onFull(this));
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target === this.element) page.onFull(this);
    });
  }

  /** Note that somebody begins or ceases to look at this tile. */
  look(visible) {
    if (visible && !this.visible) this.lookedAt = performance.now();
    this.visible = visible;
  }

  /** Draw a frame with its own boxes. Resolves when it is on the canvas, or cannot be. */
  async show(frame, jpeg) {
    const cameAt = performance.now();
    let bitmap;
    try {
      bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    } catch {
      return; // a damaged picture; the one before stays, and grows old in plain sight
    }
    drawFrame(this.canvas, bitmap, frame);
    bitmap.close();
    Object.assign(this.canvas.dataset, {
      frameId: frame.frame_id,
      faces: JSON.stringify(frame.faces),
      drawnCount: String(Number(this.canvas.dataset.drawnCount) + 1),
    });
    this.frame = frame;
    this.drawnAt = performance.now();
    this.samples.push([this.drawnAt, frame.age_ms + this.drawnAt - cameAt]);
  }

  /** Return what is true of the camera: a state for the style sheet, words, and more words for the curtain. */
  state(connected) {
    const silent = (performance.now() - Math.max(this.drawnAt, this.lookedAt)) / 1000;
    const drawn = this.drawnAt >= this.lookedAt;
    const since = Math.max(this.frame?.captured_at ?? 0, this.camera.newest_at ?? 0);
    if (!connected) return ["lost", "No connection", since ? `last picture ${timeText(since)}` : ""];
    const patience = this.camera.fps > 0 ? 3 / this.camera.fps : 0;
    if (this.camera.state === "offline" || (drawn && this.visible && silent > Math.max(OFFLINE_S, patience))) {
      const words = since ? `Offline since ${timeText(since)}` : "Offline";
      return ["offline", words, ["running", "no producer"].includes(this.camera.detail) ? "" : this.camera.detail];
    }
    if (!drawn && this.visible) return ["waiting", "Waiting for a picture", ""];
    if (this.camera.state === "stale" || (this.visible && silent > Math.max(STALE_S, patience))) {
      const forSo = this.visible ? ` for ${durationText(Math.max(silent, STALE_S))}` : "";
      return ["stale", `Stale: no new picture${forSo}`, ""];
    }
    const unlabelled = this.visible ? !this.frame.labelled : this.camera.state === "unlabelled";
    if (unlabelled) return ["unlabelled", "Not labelled right now", ""];
    return ["live", "Live", ""];
  }

  /** Bring everything but the picture up to date. */
  refresh(connected) {
    const [state, words, more] = this.state(connected);
    this.element.dataset.state = state;
    this.set(".state", words);
    const curtain = this.element.querySelector(".curtain");
    curtain.hidden = state === "live" || state === "unlabelled" || state === "stale";
    this.set(".curtain strong", words);
    this.set(".curtain span", more);
    const fresh = state === "live" || state === "unlabelled";
    const faces = this.visible && this.frame?.labelled && fresh ? countsText(this.frame.faces) : null;
    this.spoken = `${this.name}: ${faces ?? words.toLowerCase()}`;
    this.canvas.setAttribute("aria-label", this.spoken);
    this.element.setAttribute("aria-label", `Camera ${this.name}, ${words}`);
    this.refreshNumbers(faces, fresh);
  }

  refreshNumbers(faces, fresh) {
    const since = performance.now() - RECENT_MS;
    this.samples = this.samples.filter(([at]) => at > since);
    const latency = median(this.samples.map(([, ms]) => ms));
    const span = this.samples.length > 1 ? this.samples.at(-1)[0] - this.samples[0][0] : Infinity;
    const seen = fresh && this.visible;
    const shown = (1000 * (this.samples.length - 1)) / span;
    this.set(".faces", faces ?? "–");
    const sent = this.camera.fps ? `of ${this.camera.fps.toFixed(1)} fps` : "fps";
    this.set(".fps", seen ? `${shown.toFixed(1)} ${sent}` : "–");
    this.set(".latency", seen && latency !== null ? `${Math.round(latency)} ms` : "–");
    this.set(".dropped", droppedText(this.camera.ledger));
  }

  set(selector, text) {
    const element = this.element.querySelector(selector);
    if (element.textContent !== text) element.textContent = text;
  }
}
