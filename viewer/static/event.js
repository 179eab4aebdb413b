/** The chart of an event's page, from the figures of its table. */

import { axis, colour, draw, timeAxis } from "./chart.js";

const figure = document.querySelector("figure.chart");
const percent = figure.dataset.unit === "percent";
const rows = [...figure.querySelectorAll("tbody tr")];
const times = rows.map((row) => Number(row.dataset.at));
const values = rows.map((row) => Number(row.dataset.value) * (percent ? 100 : 1));
const shown = (value) => (value === null || value === undefined ? "–" : percent ? `${value.toFixed(0)} %` : String(value));

draw(figure.querySelector(".plot"), options, [times, values]);

function options() {
  return {
    scales: {
      x: { range: [times[0], Math.max(times.at(-1), times[0] + 1)] }, // not uPlot's: it shows a single point in 1,000 days
      y: { range: percent ? [0, 100] : (_, least, most) => [0, Math.max(most + 1, 2)] },
    },
    axes: [
      timeAxis(),
      axis({ values: (_, marks) => marks.map((mark) => (percent || Number.isInteger(mark) ? shown(mark) : "")), size: 56 }),
    ],
    series: [
      { label: "Time", value: "{HH}:{mm}:{ss}" },
      { label: figure.dataset.label, stroke: colour("share"), width: 2, points: { show: true, size: 5, fill: colour("share") }, value: (_, value) => shown(value) },
    ],
    cursor: { drag: { x: false, y: false } },
  };
}
