/**
 * Draw a frame and its boxes on a canvas.
 *
 * The two labels differ in lightness (Okabe and Ito's sky blue and vermillion), in the number of lines, and in text.
 */

export const COLOURS = { mask: "#56b4e9", no_mask: "#d55e00" };
const FONT_PX = 13; // on the screen
const LINE_PX = 2;
const NARROW_PX = 480; // in an image that is narrower than this on the screen ...
const MAX_OVERHANG = 2.5; // ... a text is at most this many times as wide as its box, to leave other faces visible
const MAX_SCALE = 4;

/**
 * Draw the image, then the boxes, then the texts, so that no line crosses a text.
 *
 * An image that is displayed enlarged gets a canvas that is larger by a whole factor (data-scale), so that lines and
 * texts stay sharp.
 */
export function drawFrame(canvas, bitmap, frame) {
  const shown = canvas.getBoundingClientRect();
  const onScreen = Math.min(shown.width / frame.width, shown.height / frame.height) || 1; // screen px per image px
  const scale = Math.max(1, Math.min(MAX_SCALE, Math.ceil(onScreen * devicePixelRatio - 0.1)));
  const [width, height] = [frame.width * scale, frame.height * scale];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.dataset.scale = String(scale);
  const faces = frame.faces.map((face) => ({ ...face, box: face.box.map((side) => Math.round(side * scale)) }));
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, width, height);
  for (const face of faces) drawBox(context, face, Math.max(1, Math.round((LINE_PX * scale) / onScreen)));
  const taken = [];
  const overhang = frame.width * onScreen < NARROW_PX ? MAX_OVERHANG : Infinity;
  for (const face of faces.sort((a, b) => area(b.box) - area(a.box))) {
    drawText(context, face, Math.max(8, (FONT_PX * scale) / onScreen), overhang, taken);
  }
}

function drawBox(context, { box, label }, line) {
  const [x1, y1, x2, y2] = box;
  outline(context, x1 - line, y1 - line, x2 + line, y2 + line, line, "rgb(0 0 0 / 45%)");
  outline(context, x1, y1, x2, y2, line, COLOURS[label]);
  const inset = 3 * line;
  if (label === "no_mask" && Math.min(x2 - x1, y2 - y1) > 6 * inset) {
    outline(context, x1 + inset, y1 + inset, x2 - inset, y2 - inset, line, COLOURS[label]);
  }
}

/** Draw a rectangle by filling its sides; stroking a path would blend the colour at the edges. */
function outline(context, x1, y1, x2, y2, line, colour) {
  context.fillStyle = colour;
  context.fillRect(x1, y1, x2 - x1, line);
  context.fillRect(x1, y2 - line, x2 - x1, line);
  context.fillRect(x1, y1 + line, line, y2 - y1 - 2 * line);
  context.fillRect(x2 - line, y1 + line, line, y2 - y1 - 2 * line);
}

/**
 * Write the text of a face above or below its box, where it overlaps no other text; a short form where the full one does
 * not fit. A text may be `overhang` times as wide as the box. Where nothing fits, the box alone shows the label.
 */
function drawText(context, { box, label, text }, fontPx, overhang, taken) {
  const { width, height } = context.canvas;
  const short = text.replace(/ \(.*?(\d+%)\)/, " $1");
  for (const written of [text, short]) {
    const size = fitFont(context, written, fontPx, width);
    const tag = { width: Math.ceil(context.measureText(written).width + size * 0.8), height: Math.ceil(size * 1.5) };
    if (written !== short && tag.width > overhang * (box[2] - box[0])) continue;
    const x = clamp(box[0], 0, width - tag.width);
    for (const top of [box[1] - tag.height, box[3], box[1]]) {
      const y = clamp(top, 0, height - tag.height);
      const area = [x, y, x + tag.width, y + tag.height];
      if (taken.some((other) => overlap(area, other))) continue;
      taken.push(area);
      context.fillStyle = COLOURS[label];
      context.fillRect(x, y, tag.width, tag.height);
      context.fillStyle = "#000";
      context.textBaseline = "middle";
      context.fillText(written, x + size * 0.4, y + tag.height / 2 + size * 0.06);
      return;
    }
  }
}

/** Set the font, smaller if the text would be wider than the canvas; return its size. */
function fitFont(context, text, wantedPx, width) {
  const use = (px) => (context.font = `600 ${px}px system-ui, sans-serif`);
  use(wantedPx);
  const wide = context.measureText(text).width + wantedPx;
  if (wide <= width) return wantedPx;
  const smaller = Math.max(1, (wantedPx * width) / wide);
  use(smaller);
  return smaller;
}

const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
const clamp = (value, low, high) => Math.max(low, Math.min(value, high));
const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
