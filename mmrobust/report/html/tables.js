// Tables that sort by a column, on a click or on Enter.

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
  host.replaceChildren(make("table", { class: "data" }, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads)), body));
}

const named = { name: "checkpoint", text: true, value: (r) => NAMES.checkpoint[r.c], cell: (r, td) => { td.append(swatch(r.c), NAMES.checkpoint[r.c]); td.title = NAMES.checkpoint[r.c]; } };
/** Below a value, small: half its interval, or both ends where the value is not near the middle; the whole of it for the mouse. */
function interval(td, ends, whole = false) {
  if (!ends) return;
  const [low, high] = ends.map((end) => percent(end));
  td.append(make("small", {}, whole ? `${low} to ${high}` : `±${percent((ends[1] - ends[0]) / 2)}`));
  td.title = `95 % interval ${low} to ${high}`;
}
const figure = (name, value, hint, low = false) => ({ name, value, hint, low, cell: (r, td) => td.append(percent(value(r))) });
/** A figure of a curve, with its interval if that is known: r[key] and r.ends[key]. */
const ofCurve = (name, key, hint, low = false) => ({
  ...figure(name, (r) => r[key], hint, low),
  cell: (r, td) => { td.append(percent(r[key])); interval(td, r.ends[key], key === "worst"); },
});

function drawRanking() {
  const shown = rows(), common = shared(shown), best = bestOf(common);
  const items = byQuality(shown).map((c) => {
    const own = common.filter((r) => r.c === c);
    if (!own.length) return { c, where: UNKNOWN, wins: 0, of: 0, ends: {} };
    const worst = own.reduce((a, b) => ((b.worst ?? Infinity) < (a.worst ?? Infinity) ? b : a));
    return {
      c, auc: mean(own.map((r) => r.auc)), complete: mean(own.map((r) => r.complete)), rel: mean(own.map((r) => r.rel)), drop: mean(own.map((r) => r.drop)),
      // Of a mean over several curves no interval is known; that of the worst cell reaches from the lowest end of all.
      ends: { ...(own.length === 1 ? own[0].ends : {}), worst: own.every((r) => r.ends.worst) ? [Math.min(...own.map((r) => r.ends.worst[0])), worst.ends.worst[1]] : null },
      worst: worst.worst, where: `${NAMES.scenario[worst.s]}, ${NAMES.prompting[worst.p]}, η ${worst.at[0]}, seed ${worst.at[1]}`,
      wins: own.reduce((n, r) => n + r.v.filter((v, i) => v != null && percent(v) === best(r, i)).length, 0),
      of: own.reduce((n, r) => n + r.v.filter((v) => v != null).length, 0),
    };
  });
  const bar = (r, td) => {
    const track = make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width:${share(r.auc) ?? 0}%;--colour:${colour(r.c)}` }));
    td.append(percent(r.auc), track);
    interval(td, r.ends.auc);
  };
  const columns = [
    named,
    { ...ofCurve("AUC-η", "auc", "mean height of the curve over the missing rate"), cell: bar },
    figure("complete", (r) => r.complete, "value at η = 0"),
    ofCurve("relative", "rel", "AUC-η in % of complete"),
    ofCurve("worst cell", "worst", "lowest value of any rate and seed"),
    { name: "worst at", text: true, value: (r) => r.where },
    ofCurve("drop", "drop", "percentage points lost per 10 points of missing rate", true),
    { name: "best in", value: (r) => r.wins, hint: "points of the curves where no other checkpoint that is shown is better", cell: (r, td) => td.append(`${r.wins} of ${r.of}`) },
  ];
  const of = new Set(shown.map((r) => `${r.s}/${r.p}`)).size, over = new Set(common.map((r) => `${r.s}/${r.p}`)).size;
  const some = over < of ? `, over the ${over} of ${of} curves that all of them have at the same rates` : "";
  sortable($("ranking"), `Checkpoints by mean AUC-η, ${state.metric} in %${some}`, columns, items, { column: 1, way: "descending" });
}

/** The best value of the shown checkpoints at each rate, as printed, by scenario and prompting. */
function bestOf(shown) {
  const best = new Map();
  for (const r of shown) r.v.forEach((v, i) => {
    const key = `${r.s}/${r.p}/${i}`;
    if (v != null && v > (best.get(key) ?? -Infinity)) best.set(key, v);
  });
  return (r, i) => percent(best.get(`${r.s}/${r.p}/${i}`) ?? null);
}

function drawValues() {
  const shown = rows(), best = bestOf(shown), several = present("c", shown).length > 1;
  const cell = (i) => (r, td) => {
    const text = percent(r.v[i]);
    td.append(several && r.v[i] != null && text === best(r, i) ? make("b", {}, text) : text);
    if (half(r, i) != null) td.append(make("small", {}, `±${percent(half(r, i))}`));
    if (r.v[i] != null && r.complete != null) {
      td.classList.add("heat");
      td.style.setProperty("--drop", Math.min(46, Math.max(0, 110 * (r.complete - r.v[i]) / UNIT)).toFixed(1));
      td.title = `${percent(r.complete - r.v[i])} points below complete` + (r.lo[i] == null ? "" : `; 95 % interval ${percent(r.lo[i])} to ${percent(r.hi[i])}`) + (r.sd[i] == null ? "" : `; spread over seeds ${percent(r.sd[i])}`);
    }
  };
  const columns = [
    named,
    { name: "scenario", text: true, value: (r) => NAMES.scenario[r.s] },
    { name: "prompting", text: true, value: (r) => NAMES.prompting[r.p] },
    ...table().rates.map((rate, i) => ({ name: `${rate}`, value: (r) => r.v[i], cell: cell(i), hint: `missing rate ${rate}` })),
    ofCurve("AUC-η", "auc", "mean height of the curve"),
    ofCurve("rel.", "rel", "AUC-η in % of complete"),
    ofCurve("drop", "drop", "percentage points lost per 10 points of missing rate", true),
    ofCurve("worst", "worst", "lowest value of any rate and seed"),
  ];
  sortable($("values"), `${state.metric} in % by missing rate`, columns, shown);
}

function drawCells() {
  if (!$("cells-details").open) return;
  const { columns: cells, shown, of } = REPORT.cells;
  $("cells-lead").textContent = shown < of ? `The first ${shown.toLocaleString("en")} of ${of.toLocaleString("en")} cells; all of them: mmrobust report … --csv cells.csv` : `${of.toLocaleString("en")} cells.`;
  const allowed = (kind, name) => state[kind].has(NAMES[kind].indexOf(name));
  const items = cells.checkpoint.map((_, i) => i).filter((i) => cells.metric[i] === state.metric && state.data === dataName({ dataset: cells.dataset[i], split: cells.split[i] }) && ["checkpoint", "scenario", "prompting"].every((kind) => allowed(kind, cells[kind][i])));
  const of_ = (name, text) => ({ name: name.replace("_", " "), text, value: (i) => cells[name][i] });
  const number = (name, title) => ({ name: title, value: (i) => cells[name][i], cell: (i, td) => td.append(percent(cells[name][i])) });
  sortable($("cells"), "Single cells", [of_("checkpoint", true), of_("scenario", true), of_("prompting", true), of_("missing_rate"), of_("seed"), number("value", state.metric), number("ci_low", "95 % from"), number("ci_high", "to"), of_("n_affected")], items);
}
