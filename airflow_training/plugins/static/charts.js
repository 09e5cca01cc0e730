// Charts, drawn by uPlot.

import { number, time as hour } from "./format.js";
import { onTheme } from "./theme.js";

const HEIGHT = 220;
// Epochs and steps are integers.
const WHOLE = Array.from({ length: 15 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();
const drawn = new Set();

const clock = (seconds) => hour(new Date(seconds * 1000));
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colors = () => Array.from({ length: 8 }, (_, index) => color(`--line-${index + 1}`));

// Charts are redrawn in the colors of the theme, and resized with their element.
onTheme(() => requestAnimationFrame(() => drawn.forEach((chart) => chart.redraw())));
const widths = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) target.chart?.plot.setSize({ width: contentRect.width, height: HEIGHT });
});

// A chart in the element `host`. `show` takes
// { title, x: "epoch", y: "MB", time: whether x is a time, fromZero: whether y begins at 0, lines: [{ name, points: [[x, y], …], color, dashed, limit }] }.
// A line's `color` is an index, its position by default; a `limit` is drawn thin and dashed.
class Chart {
  constructor(host) {
    this.host = host;
    host.chart = this;
    drawn.add(this);
    widths.observe(host);
  }

  show(what) {
    const data = aligned(what.lines);
    const shape = JSON.stringify([what.title, what.x, what.y, what.time, what.lines.map(({ name, color: one, points }) => [name, one, points.length <= 60])]);
    const values = JSON.stringify(data);
    if (this.shape === shape && this.values === values) return;
    this.values = values;
    if (this.shape === shape) {
      const keeps = zoomed(this.plot);
      this.plot.setData(data, !keeps);
      // A zoomed chart keeps its scale, so setData does not redraw it.
      if (keeps) this.plot.redraw();
    } else {
      const kept = this.plot && zoomed(this.plot) ? this.plot.scales.x : null;
      this.plot?.destroy();
      this.plot = new uPlot(options(what, this.host.clientWidth), data, this.host);
      if (kept) this.plot.setScale("x", kept);
      this.shape = shape;
    }
    this.what = what;
    const picture = this.host.querySelector(".u-wrap");
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", description(what));
  }

  redraw() {
    if (!this.plot) return;
    this.shape = null;
    this.show(this.what);
  }

  remove() {
    this.plot?.destroy();
    widths.unobserve(this.host);
    drawn.delete(this);
    this.host.remove();
  }
}

// The charts of a section; existing ones are updated, not replaced.
export class Charts {
  constructor() {
    this.charts = new Map();
  }

  // Each entry of `what` has a `key`.
  show(container, what) {
    const keys = new Set(what.map(({ key }) => key));
    for (const [key, chart] of this.charts) {
      if (keys.has(key)) continue;
      chart.remove();
      this.charts.delete(key);
    }
    for (const one of what) {
      if (!this.charts.has(one.key)) this.charts.set(one.key, new Chart(document.createElement("div")));
      const chart = this.charts.get(one.key);
      if (chart.host.parentElement !== container) container.append(chart.host);
      chart.show(one);
    }
  }
}

// Whether the user has zoomed in by dragging; a double click zooms out.
function zoomed({ data: [xs], scales: { x } }) {
  return xs.length > 1 && (x.min > xs[0] || x.max < xs.at(-1));
}

// uPlot takes one column for x, and one for each line.
function aligned(lines) {
  const tables = lines.map(({ points }) => [points.map(([x]) => x), points.map(([, y]) => y)]);
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

function showLast(plot) {
  if (plot.cursor.idx === null || plot.cursor.idx === undefined) plot.setLegend({ idx: plot.data[0].length - 1 }, false);
}

function options({ title, x, y, time, fromZero, lines }, width) {
  const palette = colors();
  const axis = { stroke: color("--text"), grid: { stroke: color("--rule"), width: 1 }, ticks: { stroke: color("--rule") } };
  const value = (_, raw) => (raw === null || raw === undefined ? "–" : number(raw));
  return {
    width: Math.max(width, 200),
    height: HEIGHT,
    title,
    // Room for half of the last label; uPlot's default at the other sides.
    padding: [null, time ? 36 : 14, null, null],
    cursor: { drag: { x: true, y: false } },
    scales: { x: { time: Boolean(time) }, y: fromZero ? { range: (_, __, most) => [0, most * 1.1 || 1] } : {} },
    axes: [
      { ...axis, label: x, labelSize: 22, size: 34, ...(time ? { values: (_, ticks) => ticks.map(clock), space: 90 } : { incrs: WHOLE }) },
      { ...axis, label: y, labelSize: 26, size: 70, values: (_, ticks) => ticks.map((tick) => number(tick)) },
    ],
    // The legend shows the values under the pointer, or else the last ones.
    hooks: { setCursor: [showLast], ready: [showLast], setData: [showLast] },
    series: [
      { label: x, value: time ? (_, raw) => (raw ? clock(raw) : "–") : value },
      ...lines.map((line, index) => ({
        label: line.name,
        value,
        stroke: line.limit ? color("--text-weak") : palette[(line.color ?? index) % palette.length],
        width: line.limit ? 1 : 2,
        dash: line.limit || line.dashed ? [6, 4] : undefined,
        spanGaps: true,
        points: { show: line.points.length <= 60 && !line.limit, size: 5 },
      })),
    ],
  };
}

// The chart in words, for screen readers.
function description({ title, x, y, lines }) {
  const values = lines.filter(({ points }) => points.length).map(({ name, points }) => {
    const ys = points.map(([, value]) => value);
    const [least, greatest] = [ys.reduce((a, b) => Math.min(a, b)), ys.reduce((a, b) => Math.max(a, b))];
    return `${name} from ${number(least)} to ${number(greatest)}, last ${number(ys.at(-1))}`;
  });
  return `${title}, ${y} by ${x}: ${values.join("; ")}`;
}
