/** The chart of the Compliance page, from the figures of its table, and its export as PNG. */

import { axis, colour, draw, timeAxis } from "./chart.js";
import { downloadPng } from "./chart_png.js";

const STEP_S = { hour: 3600, day: 86400 };
const HOURS_FROM_MIN = 240; // more people's minutes than this are shown in hours
const names = new Map(); // of the table's steps, by the middle of each
const figure = document.querySelector("figure.chart");

if (figure) {
  const step = STEP_S[figure.dataset.by];
  const shown = series(step);
  const inHours = Math.max(...shown[1]) > HOURS_FROM_MIN;
  if (inHours) shown[1] = shown[1].map((minutes) => (minutes === null ? null : minutes / 60));
  const unit = inHours ? "h" : "min";
  const chart = draw(figure.querySelector(".plot"), () => options(step, unit, shown[0]), shown);
  const button = document.getElementById("png");
  button.hidden = false;
  button.addEventListener("click", () => {
    const legend = [["people", `People seen, ${unit}`], ["share", "Masks worn, %"]];
    downloadPng(chart(), document.getElementById("chart-title").textContent, legend, `${figure.dataset.file}.png`);
  });
}

/** Return the middles of the table's steps, people's minutes and shares in per cent; missing steps become gaps. */
function series(step) {
  const times = [];
  const shares = [];
  const people = [];
  for (const row of document.getElementById("rows").tBodies[0].rows) {
    const middle = Number(row.dataset.at) + step / 2;
    if (times.length && middle - times.at(-1) > 1.5 * step) {
      times.push(times.at(-1) + step);
      shares.push(null);
      people.push(null);
    }
    names.set(middle, row.cells[0].textContent);
    times.push(middle);
    shares.push(row.dataset.share === "" ? null : 100 * Number(row.dataset.share));
    people.push(Number(row.dataset.people) / 60);
  }
  return [times, people, shares];
}

/** Return the options of uPlot. step: in seconds. unit: of the time that people were seen. times: middles of the steps. */
function options(step, unit, times) {
  const bars = uPlot.paths.bars({ size: [0.7, 48] });
  return {
    scales: {
      x: { range: [times[0] - step, times.at(-1) + step] }, // not uPlot's: it shows a single step in 1,000 days
      "%": { range: [0, 100] },
      people: { range: (_, least, most) => [0, Math.max(most * 1.1, 1)] },
    },
    axes: [
      timeAxis(),
      axis({ scale: "%", values: (_, values) => values.map((value) => `${value} %`), size: 56 }),
      axis({ scale: "people", side: 1, grid: { show: false }, values: (_, values) => values.map((value) => `${value} ${unit}`), size: 64 }),
    ],
    series: [
      { label: "Time", value: (_, at) => names.get(at) ?? "–" },
      {
        label: "People seen", scale: "people", paths: bars, fill: colour("people"), stroke: colour("people"), points: { show: false },
        value: (_, value) => (value === null ? "–" : `${value.toFixed(1)} ${unit}`),
      },
      {
        label: "Masks worn", scale: "%", stroke: colour("share"), width: 2, points: { show: true, size: 6, fill: colour("share") },
        value: (_, value) => (value === null ? "–" : `${value.toFixed(0)} %`),
      },
    ],
    legend: { markers: { fill: (_, number) => colour(["", "people", "share"][number]) } },
    cursor: { drag: { x: false, y: false } },
  };
}
