/** What the pages' charts share: uPlot in the colours of the page, as wide as the page, drawn anew when these change. */

const HEIGHT_PX = 280;
const zone = knownZone(document.documentElement.dataset.zone);
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Return a colour of style.css or pages.css. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Return an axis in the page's colours, with more of uPlot's options. */
export function axis(more = {}) {
  const line = { stroke: colour("line"), width: 1 };
  const font = "12px system-ui, sans-serif";
  return { stroke: colour("faint"), font, labelFont: font, grid: line, ticks: line, ...more };
}

/** Return uPlot's format of times: 24 hours, and the day where it changes. */
export function timeAxis() {
  const day = "\n{D} {MMM}";
  return axis({
    space: 64,
    values: [
      [86400 * 28, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
      [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
      [60, "{HH}:{mm}", day, null, day, null, null, null, 1],
      [1, "{HH}:{mm}:{ss}", day, null, day, null, null, null, 1],
    ],
  });
}

/**
 * Draw a chart into an element, again whenever its width or the colours change.
 *
 * @param {HTMLElement} element
 * @param {() => object} options of uPlot, without its size; called at each drawing
 * @param {Array} series the data, as uPlot takes them
 * @returns {() => uPlot} the present chart
 */
export function draw(element, options, series) {
  let chart = null;
  const redraw = () => {
    chart?.destroy();
    const times = zone && { tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone) };
    chart = new uPlot({ width: element.clientWidth, height: HEIGHT_PX, ...times, ...options() }, series, element);
  };
  redraw();
  dark.addEventListener("change", redraw);
  new ResizeObserver(() => {
    if (chart.width !== element.clientWidth) chart.setSize({ width: element.clientWidth, height: HEIGHT_PX });
  }).observe(element);
  return () => chart;
}

/** Return the time zone of the page, null if this browser does not know it: then charts are in its own. */
function knownZone(name) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return name;
  } catch {
    return null;
  }
}
