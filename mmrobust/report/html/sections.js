// The further tables of the report (standings, what knowing the case is worth, classes, reliability …), each with its chart.

/** In the order of reading: what the inputs are worth, how checkpoints compare, classes, calibration, costs. */
const HEADINGS = {
  worth: "What each modality is worth", standings: "Standings", prompting: "What knowing the case is worth", effective: "Effective robustness",
  rates: "Train rate × test rate", classes: "Classes that break first", dependence: "Missing by class", reliability: "Reliability", costs: "What the trainings cost",
};
const OPEN = new Set(["worth", "standings", "costs"]); // the others have charts

/** Add an empty section for every kind that any data set has: that of modalities above the comparison of checkpoints. */
function placeSections() {
  const kinds = Object.keys(HEADINGS).filter((kind) => REPORT.sections.some((s) => s.kind === kind));
  for (const kind of kinds) $(kind === "worth" ? "worth" : "extra").append(make("section", { "data-section": kind, id: `s-${kind}`, "aria-labelledby": `h-${kind}` },
    make("h2", { id: `h-${kind}` }, HEADINGS[kind]), make("p", { class: "lead", id: `lead-${kind}` }), make("div", { class: "panels", id: `charts-${kind}` }),
    make("details", { id: `more-${kind}`, class: "numbers", open: OPEN.has(kind) }, make("summary", {}, "The numbers"), make("div", { class: "scroll", id: `table-${kind}`, tabindex: "0", role: "region", "aria-label": `${HEADINGS[kind]}, table` }))));
}

function drawSections(panels) {
  for (const host of document.querySelectorAll("[data-section]")) {
    const kind = host.dataset.section, section = REPORT.sections.find((s) => s.kind === kind && state.data === dataName(s));
    host.hidden = !section;
    if (!section) continue;
    $(`lead-${kind}`).textContent = section.note;
    const made = kind === "standings" ? standingsPanel(section) : sectionPanels(section);
    $(`charts-${kind}`).replaceChildren(...made.map((p) => p.figure));
    panels.push(...made);
    sectionTable(section);
  }
}

/** Draw the table of a section, with the rows that pass the filters. */
function sectionTable(section) {
  const at = { scenario: section.columns.indexOf("scenario"), prompting: section.columns.indexOf("prompting"), checkpoint: section.columns.indexOf("checkpoint") };
  const passes = (row) => Object.entries(at).every(([kind, i]) => i < 0 || state[kind].has(NAMES[kind].indexOf(row[i])));
  const columns = section.columns.map((name, i) => {
    if (i < section.labels || section.kind === "classes") return { name, text: true, value: (row) => row[i] };
    const value = (row) => { const number = parseFloat(row[i].replace("−", "-").replaceAll(",", "")); return Number.isNaN(number) ? null : number; };
    return { name, value, cell: (row, td) => td.append(row[i]) };
  });
  sortable($(`table-${section.kind}`), section.title, columns, section.rows.filter(passes));
}

/** The chart of how often each checkpoint wins, with intervals if they are known. */
function standingsPanel(section) {
  const shown = section.points.filter(([c]) => state.checkpoint.has(c));
  const values = shown.map(([c, wins, low, high, rank]) => ({
    checkpoint: NAMES.checkpoint[c], colour: colour(c), wins: share(wins), low: share(low ?? wins), high: share(high ?? wins), rank,
    interval: low == null ? UNKNOWN : `${percent(low)} to ${percent(high)}`,
  }));
  const said = `Wins against the other checkpoints, in % of the comparisons: ${values.map((v) => `${v.checkpoint} ${v.wins.toFixed(1)}`).join("; ")}.`;
  return values.length ? [panel("Wins", "% of comparisons", said, "standings", values, { height: 24 * values.length, ends: [0, 100] })] : [];
}

/** The charts of a section, one for each scenario and prompting. */
function sectionPanels(section) {
  const byChart = new Map(), classes = section.kind === "classes", heat = classes || section.kind === "rates";
  for (const [s, p, of, at, v] of section.points) {
    const c = classes ? at : heat ? null : of;
    if (!state.scenario.has(s) || (p != null && !state.prompting.has(p)) || (c != null && !state.checkpoint.has(c))) continue;
    const key = `${p ?? 0}/${s}`;
    if (!byChart.has(key)) byChart.set(key, { s, p, values: [] });
    byChart.get(key).values.push(heat ? heatRow(classes, of, at, v) : lineRow(of, at, v));
  }
  const parts = [...byChart.values()].sort((a, b) => (a.p ?? 0) - (b.p ?? 0) || a.s - b.s);
  const limits = ends(parts.flatMap((part) => part.values.map((row) => row.value)), section.kind === "reliability" || heat);
  return parts.map(({ s, p, values }) => {
    const prompting = p == null ? "" : NAMES.prompting[p], said = `${section.title}, ${NAMES.scenario[s]} ${prompting}: ${values.length} values; the same numbers stand in the table below.`;
    const rows = new Set(values.map((row) => row.y)).size;
    const name = classes ? "losses" : heat ? "rates" : "curves", height = heat ? 24 * rows : 190;
    return panel(NAMES.scenario[s], prompting, said, name, heat ? values : labelled(values, limits, height), { ends: limits, height });
  });
}

function heatRow(classes, of, at, v) {
  return { y: String(of), x: classes ? NAMES.checkpoint[at] : String(at), value: drawn(v) };
}
function lineRow(c, rate, v) {
  return { checkpoint: NAMES.checkpoint[c], colour: colour(c), dash: dash(c), rate, name: "", label: drawn(v), value: drawn(v), low: drawn(v), high: drawn(v), spread: null, interval: UNKNOWN };
}
