/** Save a chart as a PNG file, with its title and legend. */

import { colour } from "./chart.js";

const MARGIN_PX = 16;
const HEAD_PX = 64;
const KEY_PX = 10;

/**
 * @param {uPlot} chart
 * @param {string} title
 * @param {Array<[string, string]>} legend pairs of a colour's name and a text
 * @param {string} name of the file
 */
export function downloadPng(chart, title, legend, name) {
  picture(chart.ctx.canvas, title, legend).toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, "image/png");
}

/** Return a canvas with the chart below its title and legend, on the page's ground. */
function picture(plot, title, legend) {
  const scale = devicePixelRatio;
  const canvas = document.createElement("canvas");
  canvas.width = plot.width + 2 * MARGIN_PX * scale;
  canvas.height = plot.height + (HEAD_PX + MARGIN_PX) * scale;
  const context = canvas.getContext("2d");
  context.fillStyle = colour("raised");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(plot, MARGIN_PX * scale, HEAD_PX * scale);
  context.scale(scale, scale);
  write(context, title, MARGIN_PX, 26, colour("ink"), "600 15px system-ui, sans-serif", canvas.width / scale - 2 * MARGIN_PX);
  let left = MARGIN_PX;
  for (const [name, text] of legend) {
    context.fillStyle = colour(name);
    context.fillRect(left, 41, KEY_PX, KEY_PX);
    left += KEY_PX + 6;
    left += write(context, text, left, 50, colour("faint"), "12px system-ui, sans-serif") + MARGIN_PX;
  }
  return canvas;
}

/** Write a text and return its width. */
function write(context, text, left, base, fill, font, most) {
  context.font = font;
  context.fillStyle = fill;
  context.fillText(text, left, base, most);
  return context.measureText(text).width;
}
