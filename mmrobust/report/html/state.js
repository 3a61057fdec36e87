// The report, the choices of the filters, and functions that make elements.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const REPORT = read("report"), CHARTS = read("charts");
const NAMES = REPORT.names; // {checkpoint, scenario, prompting}: lists of names; rows hold indices into them (c, s, p)
const UNIT = 100000, UNKNOWN = "–";
const MANY = 12; // with more checkpoints than this, only the best are shown at first
const COLOURS = REPORT.colours, DASHES = REPORT.dashes;

const $ = (id) => document.getElementById(id);
const percent = (whole, decimals = 1) => (whole == null ? UNKNOWN : ((100 * whole) / UNIT).toFixed(decimals).replace(/^-(0(?:\.0+)?)$/, "$1"));
/** A number to four digits, as every other format prints it. */
const number = (value) => {
  const size = Math.abs(value);
  if (value == null || !size) return value == null ? UNKNOWN : "0";
  return size < 1e-4 || size >= 1e9 ? value.toExponential(3) : value.toFixed(Math.max(0, 3 - Math.floor(Math.log10(size))));
};
/** How to speak of the chosen metric, and its sign: -1 where less is better. */
const SHARE = { of: " in %", relative: "AUC-η in % of complete", worst: "lowest", drop: "percentage points lost per 10 points of missing rate", sign: 1 };
const words = (of = table()) => of.words ?? SHARE;
/** A value of the chosen metric as text, and as charts draw it. */
const shown = (value) => (table().words ? number(value) : percent(value));
const drawn = (value) => (table().words ? value : share(value));
const share = (whole) => (whole == null ? null : (100 * whole) / UNIT);
const mean = (values) => {
  const known = values.filter((v) => v != null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
};
const colour = (c) => COLOURS[look(c) % COLOURS.length];
const dash = (c) => DASHES[Math.floor(look(c) / COLOURS.length) % DASHES.length];
const half = (row, i) => (row.lo[i] == null || row.hi[i] == null ? null : (row.hi[i] - row.lo[i]) / 2);

/** Make an element: make("p", {class: "muted", onclick: f}, "text", child …). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A short line in the colour and dash of a checkpoint. */
function swatch(c) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("viewBox", "0 0 20 6");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const looks = { x1: 1.5, x2: 18.5, y1: 3, y2: 3, stroke: colour(c), "stroke-width": 3.5, "stroke-linecap": dash(c)[1] ? "butt" : "round" };
  if (dash(c)[1]) looks["stroke-dasharray"] = dash(c).join(" ");
  for (const [name, value] of Object.entries(looks)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

const dataName = (table) => `${table.dataset} · ${table.split}`;
const state = { data: dataName(REPORT.tables[0]), metric: REPORT.tables[0].metric, scenario: new Set(), prompting: new Set(), checkpoint: new Set(), focus: null };
const listeners = [];

/** The table of the chosen data and metric. */
function table() {
  return REPORT.tables.find((t) => dataName(t) === state.data && t.metric === state.metric);
}
/** Its rows that pass the filters. */
function rows() {
  return table().rows.filter((r) => state.scenario.has(r.s) && state.prompting.has(r.p) && state.checkpoint.has(r.c));
}
/** The distinct indices of a kind (c, s or p) in the rows, in their order. */
function present(key, from = table().rows) {
  return [...new Set(from.map((row) => row[key]))];
}
/** The rows of the curves that every checkpoint of the rows has, at the same rates: means over any others would not compare. */
function shared(from = table().rows) {
  const all = present("c", from).length, curves = new Map();
  for (const r of from) {
    const key = `${r.s}/${r.p}/${r.v.map((v) => v != null)}`;
    curves.set(key, [...(curves.get(key) ?? []), r]);
  }
  return [...curves.values()].filter((of) => of.length === all).flat();
}
/** Checkpoints by mean AUC-η over the curves that all have, the best first. */
function byQuality(from = table().rows) {
  const common = shared(from);
  const quality = new Map(present("c", from).map((c) => [c, mean(common.filter((r) => r.c === c).map((r) => r.auc))]));
  const sign = words(REPORT.tables.find((t) => t.rows.includes(from[0]))).sign, good = (c) => (quality.get(c) == null ? -Infinity : sign * quality.get(c));
  return [...quality.keys()].sort((a, b) => (good(a) === good(b) ? 0 : good(b) - good(a)));
}
let ranks = null;
/** The number that decides a checkpoint's look: its index, or its rank if there are more than colours, so that the best differ. */
function look(c) {
  if (NAMES.checkpoint.length <= COLOURS.length) return c;
  ranks ??= new Map([...new Set(REPORT.tables.flatMap((t) => (t.headline ? byQuality(t.rows) : [])))].map((best, i) => [best, i]));
  return ranks.get(c) ?? c;
}
function changed() {
  for (const listener of listeners) listener();
}
