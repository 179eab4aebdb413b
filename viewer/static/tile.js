/** One camera on the page: draws its frames and shows how old they are. */

import { drawFrame } from "./boxes.js";
import { countsText, droppedText, durationText, median, timeText } from "./words.js";

const RECENT_MS = 5000; // the period of rates and latencies; of a slow camera the time of three of its frames
const MIN_SPAN_MS = 500; // a rate over less says nothing
const STALE_S = 2; // a camera without a new frame for this long is stale ...
const OFFLINE_S = 5; // ... and after this long offline, with a curtain over its last frame

export class Tile {
  /** @param {string} name @param {{onFull: function(Tile): void}} page */
  constructor(name, page) {
    this.name = name;
    this.camera = null; // of the last status
    this.frame = null; // metadata of the frame on the canvas
    this.drawnAt = -1; // performance.now()
    this.visibleSince = 0; // performance.now(); frames drawn before are old
    this.samples = []; // [time of drawing, latency in ms] of the last seconds
    this.inView = true; // until the observer reports otherwise
    this.visible = false; // in view, the page is visible, and no other camera is shown alone
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

  /** Set whether this tile can be seen. */
  setVisible(visible) {
    if (visible && !this.visible) this.visibleSince = performance.now();
    this.visible = visible;
  }

  /** Draw a frame with its own boxes. Resolves when it is drawn, or turned out to be damaged. */
  async show(frame, jpeg) {
    const cameAt = performance.now();
    let bitmap;
    try {
      bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    } catch {
      return; // a damaged image; the one before stays and becomes stale
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
    if (this.element.dataset.state === "live") this.set(".faces", this.facesText() ?? "–");
  }

  /** Return what is on the canvas, null if it was not labelled. */
  facesText() {
    return this.frame?.labelled ? countsText(this.frame.faces) : null;
  }

  /** Return the state of the camera: a name for the style sheet, a text, and a detail for the curtain. */
  state(connected) {
    const silent = (performance.now() - Math.max(this.drawnAt, this.visibleSince)) / 1000;
    const drawn = this.drawnAt >= this.visibleSince;
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

  /** Update everything but the image. */
  refresh(connected) {
    const [state, words, more] = this.state(connected);
    this.element.dataset.state = state;
    this.set(".state", words);
    const curtain = this.element.querySelector(".curtain");
    curtain.hidden = state === "live" || state === "unlabelled" || state === "stale";
    this.set(".curtain strong", words);
    this.set(".curtain span", more);
    const fresh = state === "live" || state === "unlabelled";
    const faces = this.visible && fresh ? this.facesText() : null;
    this.spoken = `${this.name}: ${faces ?? words.toLowerCase()}`;
    this.canvas.setAttribute("aria-label", this.spoken);
    this.element.setAttribute("aria-label", `Camera ${this.name}, ${words}`);
    this.refreshNumbers(faces, fresh);
  }

  refreshNumbers(faces, fresh) {
    const fps = this.camera.fps;
    const since = performance.now() - Math.max(RECENT_MS, fps ? 3000 / fps : 0);
    this.samples = this.samples.filter(([at]) => at > since);
    const latency = median(this.samples.map(([, ms]) => ms));
    const span = this.samples.length > 1 ? this.samples.at(-1)[0] - this.samples[0][0] : 0;
    const seen = fresh && this.visible;
    const shown = span >= MIN_SPAN_MS ? ((1000 * (this.samples.length - 1)) / span).toFixed(1) : "–";
    this.set(".faces", faces ?? "–");
    this.set(".fps", seen ? `${shown} ${fps ? `of ${fps.toFixed(1)} fps` : "fps"}` : "–");
    this.set(".latency", seen && latency !== null ? `${Math.round(latency)} ms` : "–");
    this.set(".dropped", droppedText(this.camera.ledger));
  }

  set(selector, text) {
    const element = this.element.querySelector(selector);
    if (element.textContent !== text) element.textContent = text;
  }
}
