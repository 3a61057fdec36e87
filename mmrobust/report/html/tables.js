// Tables that sort by a column, on a click or on Enter.

/** Say under a table that is wider than its place that it goes on. */
function sayMore(host) {
  const said = make("p", { class: "more-said", "aria-hidden": "true" }, "scroll for more →");
  const look = () => { const more = host.scrollWidth - host.clientWidth - host.scrollLeft > 2; host.classList.toggle("more", more); said.hidden = !more; };
  host.after(said);
  host.addEventListener("scroll", look);
  new ResizeObserver(look).observe(host);
  return look;
}
const edges = new Map();

/** Fill host with a sortable table. columns: {name, text, value(item), cell(item, td), hint}; one row per item. */
function sortable(host, caption, columns, items, sort = null) {
  const body = make("tbody");
  const heads = columns.map((column, i) => make("th", { scope: "col", class: column.text ? "text" : null, title: column.hint }, make("button", { type: "button", onclick: () => sortBy(i) }, column.name)));
  let order = sort;
  function sortBy(i) {
    const first = columns[i].text || columns[i].low ? "ascending" : "descending";
    const flip = order && order.column === i;
    order = { column: i, way: flip ? (order.way === "ascending" ? "descending" : "ascending") : first };
    fill();
    $("announce").textContent = `Sorted by ${columns[i].name}, ${order.way}.`;
  }
  function fill() {
    let sorted = items;
    if (order) {
      const { value } = columns[order.column], sign = order.way === "ascending" ? 1 : -1;
      const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      const keyed = items.map((item) => [value(item), item]);
      keyed.sort(([a], [b]) => (a == null || b == null ? (a == null) - (b == null) : sign * compare(a, b))); // unknown values are last in both directions
      sorted = keyed.map(([, item]) => item);
    }
    heads.forEach((th, i) => (order && order.column === i ? th.setAttribute("aria-sort", order.way) : th.removeAttribute("aria-sort")));
    body.replaceChildren(...sorted.map((item) => make("tr", {}, ...columns.map((column, i) => {
      const cell = make(i === 0 ? "th" : "td", { class: column.text ? "text" : null, scope: i === 0 ? "row" : null });
      column.cell ? column.cell(item, cell) : cell.append(String(column.value(item) ?? UNKNOWN));
      return cell;
    }))));
  }
  fill();
  if (!edges.has(host)) edges.set(host, sayMore(host));
  host.replaceChildren(make("table", { class: "data" }, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads)), body));
  edges.get(host)();
}

const named = { name: "checkpoint", text: true, value: (r) => NAMES.checkpoint[r.c], cell: (r, td) => { td.append(swatch(r.c), NAMES.checkpoint[r.c]); td.title = NAMES.checkpoint[r.c]; } };
/** Below a value, small: half its interval, or both ends where the value is not near the middle; the whole of it for the mouse. */
function interval(td, ends, whole = false, print = shown) {
  if (!ends) return;
  const [low, high] = ends.map((end) => print(end));
  td.append(make("small", {}, whole ? `${low} to ${high}` : `±${print((ends[1] - ends[0]) / 2)}`));
  td.title = `95 % interval ${low} to ${high}`;
}
const figure = (name, value, hint, low = false) => ({ name, value, hint, low, cell: (r, td) => td.append(shown(value(r))) });
/** A figure of a curve, with its interval if that is known: r[key] and r.ends[key]. */
const ofCurve = (name, key, hint, low = false) => ({
  ...figure(name, (r) => r[key], hint, low),
  cell: (r, td) => { const print = key === "rel" ? percent : shown; td.append(print(r[key])); interval(td, r.ends[key], key === "worst", print); },
});

function drawRanking() {
  const passing = rows(), common = shared(passing), best = bestOf(common), { sign, ...said } = words();
  const items = byQuality(passing).map((c) => {
    const own = common.filter((r) => r.c === c);
    if (!own.length) return { c, where: UNKNOWN, wins: 0, of: 0, ends: {} };
    const worst = own.reduce((a, b) => (b.worst != null && (a.worst == null || sign * b.worst < sign * a.worst) ? b : a));
    const beyond = own.every((r) => r.ends.worst) ? own.map((r) => r.ends.worst[sign > 0 ? 0 : 1]) : null;
    return {
      c, auc: mean(own.map((r) => r.auc)), complete: mean(own.map((r) => r.complete)), rel: mean(own.map((r) => r.rel)), drop: mean(own.map((r) => r.drop)),
      // Of a mean over several curves no interval is known; that of the worst cell reaches from the worst end of all.
      ends: { ...(own.length === 1 ? own[0].ends : {}), worst: !beyond ? null : sign > 0 ? [Math.min(...beyond), worst.ends.worst[1]] : [worst.ends.worst[0], Math.max(...beyond)] },
      worst: worst.worst, where: `${NAMES.scenario[worst.s]}, ${NAMES.prompting[worst.p]}, η ${worst.at[0]}, seed ${worst.at[1]}`,
      wins: own.reduce((n, r) => n + r.v.filter((v, i) => best(r, i)).length, 0),
      of: own.reduce((n, r) => n + r.v.filter((v) => v != null).length, 0),
    };
  });
  const bar = (r, td) => {
    const track = make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width:${share(r.auc) ?? 0}%;--colour:${colour(r.c)}` }));
    td.append(shown(r.auc), table().words ? "" : track);
    interval(td, r.ends.auc);
  };
  const columns = [
    named,
    { ...ofCurve("AUC-η", "auc", "mean height of the curve over the missing rate", sign < 0), cell: bar },
    figure("complete", (r) => r.complete, "value at η = 0"),
    ofCurve("relative", "rel", said.relative),
    ofCurve("worst cell", "worst", `${said.worst} value of any rate and seed`, sign < 0),
    { name: "worst at", text: true, value: (r) => r.where },
    ofCurve("drop", "drop", said.drop, true),
    { name: "best in", value: (r) => r.wins, hint: "points of the curves where it is better than every other checkpoint that is shown", cell: (r, td) => td.append(`${r.wins} of ${r.of}`) },
  ];
  const of = new Set(passing.map((r) => `${r.s}/${r.p}`)).size, over = new Set(common.map((r) => `${r.s}/${r.p}`)).size;
  const some = over < of ? `, over the ${over} of ${of} curves that all of them have at the same rates` : "";
  sortable($("ranking"), `Checkpoints by mean AUC-η, ${state.metric}${said.of}${some}`, columns, items, { column: 1, way: sign > 0 ? "descending" : "ascending" });
}

/** Whether the value of a row at each rate is better than that of every other shown checkpoint, as printed. */
function bestOf(passing) {
  const best = new Map(), { sign } = words(), place = (r, i) => `${r.s}/${r.p}/${i}`;
  for (const r of passing) r.v.forEach((v, i) => {
    if (v == null) return;
    const own = { v, text: shown(v), alone: true }, rival = best.get(place(r, i));
    if (!rival) best.set(place(r, i), own);
    else if (rival.text === own.text) rival.alone = false;
    else if (sign * v > sign * rival.v) best.set(place(r, i), own);
  });
  return (r, i) => { const found = best.get(place(r, i)); return r.v[i] != null && found.alone && found.text === shown(r.v[i]); };
}

function drawValues() {
  const passing = rows(), best = bestOf(passing), several = present("c", passing).length > 1, { sign, ...said } = words();
  // Of an error, the rise as a share of the complete value.
  const lost = (r, i) => (table().words ? (sign * (r.complete - r.v[i])) / (sign < 0 ? r.complete || 1 : 1) : (r.complete - r.v[i]) / UNIT);
  const cell = (i) => (r, td) => {
    const text = shown(r.v[i]);
    td.append(several && best(r, i) ? make("b", {}, text) : text);
    if (half(r, i) != null) td.append(make("small", {}, `±${shown(half(r, i))}`));
    if (r.v[i] != null && r.complete != null) {
      td.classList.add("heat");
      td.style.setProperty("--drop", Math.min(46, Math.max(0, 110 * lost(r, i))).toFixed(1));
      td.title = `${shown(sign * (r.complete - r.v[i]))}${table().words ? "" : " points"} ${sign > 0 ? "below" : "above"} complete` + (r.lo[i] == null ? "" : `; 95 % interval ${shown(r.lo[i])} to ${shown(r.hi[i])}`) + (r.sd[i] == null ? "" : `; spread over seeds ${shown(r.sd[i])}`);
    }
  };
  const columns = [
    named,
    { name: "scenario", text: true, value: (r) => NAMES.scenario[r.s] },
    { name: "prompting", text: true, value: (r) => NAMES.prompting[r.p] },
    ...table().rates.map((rate, i) => ({ name: `${rate}`, value: (r) => r.v[i], cell: cell(i), hint: `missing rate ${rate}`, low: sign < 0 })),
    ofCurve("AUC-η", "auc", "mean height of the curve", sign < 0),
    ofCurve("rel.", "rel", said.relative),
    ofCurve("drop", "drop", said.drop, true),
    ofCurve("worst", "worst", `${said.worst} value of any rate and seed`, sign < 0),
  ];
  sortable($("values"), `${state.metric}${said.of} by missing rate`, columns, passing);
}

function drawCells() {
  if (!$("cells-details").open) return;
  const { columns: cells, shown: first, of } = REPORT.cells;
  $("cells-lead").textContent = first < of ? `The first ${first.toLocaleString("en")} of ${of.toLocaleString("en")} cells; all of them: mmrobust report … --csv cells.csv` : `${of.toLocaleString("en")} cells.`;
  const allowed = (kind, name) => state[kind].has(NAMES[kind].indexOf(name));
  const items = cells.checkpoint.map((_, i) => i).filter((i) => cells.metric[i] === state.metric && state.data === dataName({ dataset: cells.dataset[i], split: cells.split[i] }) && ["checkpoint", "scenario", "prompting"].every((kind) => allowed(kind, cells[kind][i])));
  const of_ = (name, text) => ({ name: name.replace("_", " "), text, value: (i) => cells[name][i] });
  const figures = (name, title) => ({ name: title, value: (i) => cells[name][i], cell: (i, td) => td.append(shown(cells[name][i])) });
  sortable($("cells"), "Single cells", [of_("checkpoint", true), of_("scenario", true), of_("prompting", true), of_("missing_rate"), of_("seed"), figures("value", state.metric), figures("ci_low", "95 % from"), figures("ci_high", "to"), of_("n_affected")], items);
}
