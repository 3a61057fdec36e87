// The charts: specifications made with Altair, filled with the rows that pass the filters.

let views = [];
let drawing = 0;

/** Vega's configuration, in the colours of the page. */
function looks() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: "transparent",
    font,
    view: { stroke: null },
    axis: { labelColor: of("--muted"), titleColor: of("--muted"), gridColor: of("--grid"), domainColor: of("--line"), tickColor: of("--line"), titleFontWeight: 400, titleFontSize: 11, labelFontSize: 11, titlePadding: 6, tickSize: 4 },
    axisY: { domain: false, ticks: false },
  };
}

/** A panel with one chart: its title, its text for screen readers, the name of its specification, and its rows. */
function panel(title, aside, said, name, values, options = {}) {
  const chart = make("div", { class: "chart" });
  const figure = make("figure", { class: "panel" }, make("figcaption", {}, make("h3", {}, title), make("span", { class: "muted" }, aside)), chart);
  return { figure, chart, said, name, values, ...options };
}

async function embed(one, number) {
  const set = { low_end: one.ends?.[0], high_end: one.ends?.[1] };
  const params = CHARTS[one.name].params.map((p) => ({ ...p, value: set[p.name] ?? p.value }));
  // Tooltips print shares in %, with one decimal; other values with four digits.
  const made = table().words && one.name !== "standings" ? JSON.parse(JSON.stringify(CHARTS[one.name]).replaceAll('".1f"', '".4~g"').replaceAll('".0f"', '".3~g"').replaceAll(', %"', '"').replaceAll('"points lost"', '"lost"')) : CHARTS[one.name];
  const spec = { ...made, params, data: { name: "rows", values: one.values }, description: one.said, config: looks() };
  if (one.height) spec.height = one.height;
  const options = { actions: { export: { png: true, svg: true }, source: false, compiled: false, editor: false }, renderer: "svg", downloadFileName: "mmrobust", scaleFactor: { png: 2 } };
  const { view } = await vegaEmbed(one.chart, spec, options);
  if (number !== drawing) return view.finalize();
  const graphic = one.chart.querySelector("svg.marks");
  // Describe the picture as a whole, not every mark.
  if (graphic) { graphic.setAttribute("role", "img"); graphic.setAttribute("aria-label", one.said); }
  for (const name of ["role", "aria-label", "aria-roledescription"]) graphic?.closest(".chart-wrapper")?.removeAttribute(name);
  const menu = one.chart.querySelector("summary");
  if (menu) menu.setAttribute("aria-label", `Save the chart ${one.figure.querySelector("h3").textContent}`);
  views.push(view);
}

/** The rows of a curve, one for each rate with a value. */
function curveRows(row) {
  return table().rates.flatMap((rate, i) => row.v[i] == null ? [] : [{
    checkpoint: NAMES.checkpoint[row.c], colour: colour(row.c), dash: dash(row.c), rate,
    name: "", label: drawn(row.v[i]), value: drawn(row.v[i]), low: drawn(row.lo[i] ?? row.v[i]), high: drawn(row.hi[i] ?? row.v[i]), spread: drawn(row.sd[i]),
    interval: row.lo[i] == null ? UNKNOWN : `${shown(row.lo[i])} to ${shown(row.hi[i])}`,
  }]);
}
function rangeRow(row) {
  return {
    checkpoint: NAMES.checkpoint[row.c], colour: colour(row.c), worst: drawn(row.worst), auc: drawn(row.auc), complete: drawn(row.complete),
    where: `η ${row.at[0]}, seed ${row.at[1]}`,
  };
}

/** How many pixels apart names beside curves stand, and how many there are at most. */
const LABEL_GAP = 13, MOST_LABELS = 8;

/** The rows of a panel, the last of each curve with its name, at a height at which no two names overlap. */
function labelled(values, ends, height) {
  const last = [...new Map(values.map((row) => [row.checkpoint, row])).values()].sort((a, b) => b.value - a.value);
  if (!ends || last.length < 2 || last.length > MOST_LABELS) return values;
  const gap = (ends[1] - ends[0]) * LABEL_GAP / height;
  let above = Infinity, below = ends[0] - gap;
  for (const row of last) above = row.label = Math.min(row.value, above - gap);
  for (const row of last.reverse()) {
    below = row.label = Math.max(row.label, below + gap);
    row.name = row.checkpoint;
  }
  return values;
}

/** The shown rows grouped by scenario and prompting, in the order of the table. */
function groups() {
  const found = new Map();
  for (const row of rows()) {
    const key = `${row.p}/${row.s}`;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(row);
  }
  // Ordered by prompting, so that a row of panels has one prompting; first what compares the most checkpoints.
  return [...found.values()].sort((a, b) => a[0].p - b[0].p || b.length - a.length);
}

/** Ends of the scale that all panels share, so that they can be compared. */
function ends(all, within = true) {
  const known = all.filter((v) => v != null && Number.isFinite(v));
  if (!known.length) return null;
  const [low, high] = known.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  if (table().words) return [low - 0.02 * (high - low), high + 0.02 * (high - low)];
  const round = [Math.floor((low - 1) / 5) * 5, Math.ceil((high + 1) / 5) * 5];
  return within ? [Math.max(0, round[0]), Math.min(100, round[1])] : round;
}

function sayCurves(group, metric) {
  const ends = (row) => {
    const known = row.v.filter((v) => v != null);
    return `${NAMES.checkpoint[row.c]} from ${shown(known[0])} to ${shown(known[known.length - 1])}`;
  };
  const more = group.length > 12 ? ` and ${group.length - 12} more` : "";
  return `${metric}${words().of}, ${NAMES.scenario[group[0].s]}, ${NAMES.prompting[group[0].p]}, from the lowest to the highest missing rate: ${group.slice(0, 12).map(ends).join("; ")}${more}.`;
}

function sayRanges(group, metric) {
  const one = (r) => `${NAMES.checkpoint[r.c]} complete ${shown(r.complete)}, AUC-η ${shown(r.auc)}, worst cell ${shown(r.worst)}`;
  const more = group.length > 12 ? ` and ${group.length - 12} more` : "";
  return `${metric}${words().of}, ${NAMES.scenario[group[0].s]}, ${NAMES.prompting[group[0].p]}: ${group.slice(0, 12).map(one).join("; ")}${more}.`;
}

async function drawCharts() {
  const number = ++drawing;
  for (const view of views) view.finalize();
  views = [];
  const metric = state.metric, panels = [];
  const fill = (id, made) => {
    $(id).replaceChildren(...(made.length ? made.map((p) => p.figure) : [make("p", { class: "empty" }, "Nothing passes the filters.")]));
    panels.push(...made);
  };
  const parts = groups(), several = new Set(parts.map((g) => g[0].p)).size > 1;
  const title = (group) => [NAMES.scenario[group[0].s], several ? NAMES.prompting[group[0].p] : ""];
  const lines = parts.map((group) => group.flatMap(curveRows)), bars = parts.map((group) => group.map(rangeRow));
  const shared = ends([...lines.flat().flatMap((r) => [r.low, r.high]), ...bars.flat().flatMap((r) => [r.worst, r.complete, r.auc])]);
  const beside = (rows) => labelled(rows, shared, CHARTS.curves.height);
  fill("curves", parts.map((group, i) => panel(...title(group), sayCurves(group, metric), "curves", beside(lines[i]), { ends: shared })));
  fill("ranges", parts.map((group, i) => panel(...title(group), sayRanges(group, metric), "ranges", bars[i], { ends: shared, height: 24 * group.length })));
  drawExtras(panels);
  try {
    await Promise.all(panels.map((one) => embed(one, number)));
  } catch (error) {
    if (number === drawing) throw error; // a chart of an earlier choice may fail, as its element is gone
  }
  if (number === drawing) { setFocus(state.focus); document.body.dataset.drawn = number; }
}

/** Highlight one checkpoint, or none. */
function setFocus(c) {
  state.focus = c;
  const name = c == null ? null : NAMES.checkpoint[c];
  for (const view of views) { try { view.signal("focus", name).run(); } catch { /* a chart without checkpoints */ } }
  for (const button of document.querySelectorAll("#legend button")) button.setAttribute("aria-pressed", String(Number(button.dataset.c) === c));
}
