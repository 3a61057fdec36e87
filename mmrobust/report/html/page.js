// The page: filters, key figures, samples and provenance, and what happens when a filter changes.

const THEMES = { auto: "◐ Theme: system", light: "○ Theme: light", dark: "● Theme: dark" };
const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";
try { theme = localStorage.getItem("mmrobust-theme") ?? "auto"; } catch { /* a page opened from disk may have no storage */ }

function applyTheme() {
  document.documentElement.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  $("theme").textContent = THEMES[theme];
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  try { localStorage.setItem("mmrobust-theme", theme); } catch { /* then the choice lasts until the page is closed */ }
  applyTheme();
  drawCharts();
});
dark.addEventListener("change", () => { if (theme === "auto") { applyTheme(); drawCharts(); } });

// Filters

function choice(kind, label, options) {
  const select = make("select", { id: `choose-${kind}`, onchange: () => { state[kind] = select.value; reset(); } });
  select.append(...options.map((o) => make("option", { value: o, selected: o === state[kind] }, o)));
  return options.length > 1 ? make("fieldset", {}, make("label", { class: "label", for: `choose-${kind}` }, label), select) : null;
}

function checks(kind, label, places) {
  const box = (place) => {
    const input = make("input", { type: "checkbox", checked: state[kind].has(place), "data-kind": kind, value: NAMES[kind][place], onchange: () => { input.checked ? state[kind].add(place) : state[kind].delete(place); changed(); } });
    const one = make("label", { class: "check" }, input, kind === "checkpoint" ? swatch(place) : null, make("span", { class: "name", title: NAMES[kind][place] }, NAMES[kind][place]));
    if (kind === "checkpoint") { one.addEventListener("pointerenter", () => setFocus(place)); one.addEventListener("pointerleave", () => setFocus(null)); }
    return one;
  };
  const boxes = places.map(box), list = make("div", { class: "list" }, ...boxes);
  const parts = [make("legend", {}, label)];
  if (kind === "checkpoint" && places.length > 3) {
    const pick = (chosen) => { state[kind] = new Set(chosen); list.querySelectorAll("input").forEach((input, i) => { input.checked = state[kind].has(places[i]); }); changed(); };
    parts.push(make("div", { class: "small" },
      make("button", { type: "button", onclick: () => pick(places) }, "all"),
      make("button", { type: "button", onclick: () => pick([]) }, "none"),
      places.length > 8 ? make("button", { type: "button", onclick: () => pick(byQuality().slice(0, 8)) }, "best 8") : null));
  }
  if (places.length > MANY) {
    parts.push(make("input", { type: "search", placeholder: "Find…", "aria-label": `Find a ${kind}`, oninput: (event) => boxes.forEach((b, i) => { b.hidden = !NAMES[kind][places[i]].toLowerCase().includes(event.target.value.toLowerCase()); b.style.display = b.hidden ? "none" : ""; }) }));
  }
  return make("fieldset", {}, ...parts, list);
}

/** Show another table: all its scenarios and promptings, and all checkpoints, or the best if there are many. */
function reset() {
  const datas = [...new Set(REPORT.tables.map(dataName))];
  const metrics = [...new Set(REPORT.tables.filter((t) => dataName(t) === state.data).map((t) => t.metric))];
  if (!metrics.includes(state.metric)) state.metric = metrics[0];
  const kept = (kind, all, usual) => { const left = all.filter((place) => state[kind].has(place)); state[kind] = new Set(left.length ? left : usual); };
  const [c, s, p] = ["c", "s", "p"].map((key) => present(key));
  kept("scenario", s, s);
  kept("prompting", p, p);
  kept("checkpoint", c, c.length > MANY ? byQuality().slice(0, 8) : c);
  $("controls").replaceChildren(...[
    choice("data", "Data", datas), choice("metric", "Metric", metrics),
    checks("scenario", "Scenario", s), checks("prompting", "Prompting", p), checks("checkpoint", "Checkpoint", [...c].sort((a, b) => a - b)),
  ].filter(Boolean));
  changed();
}

// Words and numbers

function drawHead() {
  const t = table(), natural = t.natural ? `, ${t.natural.toLocaleString("en")} of them naturally incomplete` : "";
  $("title").textContent = `${t.dataset}: ${t.metric}`;
  const { of, sign } = words(), said = { of: of.replace(/^ /, ", "), beyond: sign > 0 ? "below" : "above" };
  for (const part of document.querySelectorAll("[data-said]")) part.textContent = said[part.dataset.said];
  $("facts").textContent = `${t.split}, ${t.n.toLocaleString("en")} samples${natural}. ${t.uncertainty[0].toUpperCase()}${t.uncertainty.slice(1)}.`;
  const shown = rows(), total = t.rows.length;
  $("filtered").textContent = shown.length < total ? `${shown.length} of ${total} curves` : `${total} curves`;
  $("announce").textContent = `${shown.length} of ${total} curves shown, ${t.metric}.`;
}

/** The answers that a reader with one minute wants, of the best checkpoint that is shown. */
function drawKey() {
  const passing = rows().filter((r) => r.auc != null), { sign, ...said } = words(), t = table();
  const tile = (question, big, ...answer) => make("div", { class: "tile" }, make("h2", { class: "what" }, question), make("p", { class: "big" }, big), make("p", { class: "who" }, ...answer));
  const common = shared(passing), [best, next] = byQuality(passing), own = common.filter((r) => r.c === best);
  if (!own.length) return $("key").replaceChildren();
  const name = (c) => make("b", {}, NAMES.checkpoint[c]), of = present("c", passing).length, points = t.words ? "" : " points";
  const signed = (v) => (shown(v).startsWith("-") ? "−" : "+") + shown(Math.abs(v));
  const tiles = [tile("How robust is it?", `${percent(mean(own.map((r) => r.rel)))}\u00a0%`, name(best), of > 1 ? `, the best of ${of}, ` : " ", `keeps this much: AUC-η ${shown(mean(own.map((r) => r.auc)))}, complete ${shown(mean(own.map((r) => r.complete)))}`)];
  const worst = own.reduce((a, b) => (b.worst != null && (a.worst == null || sign * b.worst < sign * a.worst) ? b : a));
  const ten = t.words ? -1 : worst.v.findIndex((v) => v != null && worst.complete - v >= UNIT / 10);
  tiles.push(tile("Where does it break?", shown(worst.worst), make("b", {}, NAMES.scenario[worst.s]), `, η ${worst.at[0]}: the ${said.worst} value`, t.words ? "" : ten < 0 ? "; never 10 points lost on average" : `; 10 points are lost at η ${t.rates[ten]}`));
  const told = own.filter((r) => NAMES.prompting[r.p] === "situation"), gaps = told.flatMap((r) => {
    const blind = own.find((o) => o.s === r.s && NAMES.prompting[o.p] === "concat");
    return blind ? r.v.map((v, i) => (t.rates[i] > 0 && v != null && blind.v[i] != null ? sign * (v - blind.v[i]) : null)) : [];
  });
  if (t.folds) tiles.push(tile("What is knowing the case worth?", "0", "Prompting makes no difference to any checkpoint"));
  else if (mean(gaps) != null) tiles.push(tile("What is knowing the case worth?", signed(mean(gaps)), `${points.trim()} of `, name(best), ", situation over concat prompting, on average where something is missing"));
  if (next != null) {
    const pairs = own.flatMap((r) => { const rival = common.find((o) => o.c === next && o.s === r.s && o.p === r.p); return rival ? r.v.map((_, i) => [r, rival, i]) : []; });
    const clear = pairs.filter(([r, o, i]) => r.lo[i] != null && o.lo[i] != null && (sign > 0 ? r.lo[i] > o.hi[i] : r.hi[i] < o.lo[i])).length;
    const gap = sign * (mean(own.map((r) => r.auc)) - mean(common.filter((r) => r.c === next).map((r) => r.auc)));
    tiles.push(tile("How far ahead of the next?", signed(gap), `${points.trim()} of AUC-η over `, name(next), `; their intervals are apart at ${clear} of ${pairs.length} points`));
  }
  $("key").replaceChildren(...tiles);
}

function drawLegend() {
  const shown = present("c", rows());
  $("legend").replaceChildren(...shown.map((c) => {
    const button = make("button", { type: "button", "data-c": c, "aria-pressed": "false" }, swatch(c), NAMES.checkpoint[c]);
    let held = false;
    button.addEventListener("click", () => { held = !held; setFocus(held ? c : null); });
    button.addEventListener("pointerenter", () => setFocus(c));
    button.addEventListener("pointerleave", () => { if (!held) setFocus(null); });
    return button;
  }));
}

/** Draw the charts below the main ones. */
function drawExtras(panels) {
  drawSections(panels);
  const published = REPORT.published;
  if (published) $("published").replaceChildren(...published.comparisons.map((c) => drawPublished(published, c, panels)));
}

function drawPublished(published, comparison, panels) {
  const bars = make("div", { class: "panels" }), host = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Published figures, ${comparison.dataset}` });
  const all = ends(comparison.lines.flatMap((l) => l.values.map(share)));
  comparison.columns.forEach((name, i) => {
    const values = comparison.lines.filter((l) => l.values[i] != null).map((l) => ({ case: name, source: l.source, ours: l.ours, value: share(l.values[i]) }));
    if (name === "average" || !values.length) return;
    const made = panel(name, comparison.dataset, `${comparison.metric} in %, ${name}: ${values.map((v) => `${v.source} ${v.value.toFixed(1)}`).join("; ")}.`, "published", values, { height: 20 * values.length, ends: all });
    bars.append(made.figure);
    panels.push(made);
  });
  const columns = [{ name: "source", text: true, value: (l) => l.source }, ...comparison.columns.map((name, i) => figure(name, (l) => l.values[i]))];
  sortable(host, `Published figures, ${comparison.dataset}`, columns, comparison.lines);
  const promptings = Object.entries(comparison.promptings).map(([name, value]) => `${name} ${percent(value)}`).join(", ");
  return make("div", {}, make("h3", {}, `${comparison.dataset} (paper)`), make("p", { class: "lead" }, `Hollow: the paper's. Filled: ours (${comparison.remark}).${promptings && ` The paper's average by prompting: ${promptings}.`}`), bars, host);
}

function drawOnce() {
  const published = REPORT.published, samples = REPORT.samples;
  placeSections();
  if (published) {
    $("s-published").hidden = false;
    $("published-lead").textContent = `${published.title}. Source: ${published.source}. These figures are the paper's, not measured here.`;
  }
  if (samples) {
    $("s-samples").hidden = false;
    $("samples-lead").textContent = `Right when complete, wrong in the case, under ${samples.prompting} prompting: those that most of the ${samples.checkpoints} checkpoint${samples.checkpoints > 1 ? "s" : ""} lose first, then those whose loss grows most.`;
    $("samples").append(...samples.cases.flatMap(drawCase));
  }
  const facts = Object.keys(Object.values(REPORT.checkpoints)[0] ?? {});
  sortable($("checkpoints"), "Checkpoints", [{ name: "checkpoint", text: true, value: (e) => e[0] }, ...facts.map((f) => ({ name: f, text: true, value: (e) => e[1][f] }))], Object.entries(REPORT.checkpoints));
  $("provenance").append(...REPORT.provenance.map(drawProvenance));
  if (REPORT.tables_left_out) $("provenance").append(make("p", { class: "lead" }, `${REPORT.tables_left_out} tables of further metrics are left out of the page for its size; --metric NAME shows one, --csv writes all.`));
  $("sections").append(...[...document.querySelectorAll("main section[id^=s-]")].filter((s) => !s.hidden).map((s) => make("a", { href: `#${s.id}` }, s.querySelector("h2").textContent)));
  $("cells-details").addEventListener("toggle", drawCells);
}

function drawCase(one) {
  const anchor = (sample) => `${one.case}/${sample.id}`;
  const card = (sample) => {
    const first = sample.failures[0], sure = first.probability == null ? "" : ` (${(100 * first.probability).toFixed(0)}\u00a0%)`;
    const image = sample.thumbnail ? make("img", { src: sample.thumbnail, alt: `Sample ${sample.id}`, width: 76, height: 76, onload: (e) => e.target.classList.toggle("tiny", e.target.naturalWidth < 64) }) : null;
    const rest = sample.failures.length > 1 ? make("details", {}, make("summary", {}, `${sample.failures.length} of ${REPORT.samples.checkpoints} checkpoints`), make("ul", {}, ...sample.failures.map((f) => make("li", {}, `${f.checkpoint}: ${f.predicted}${f.probability == null ? "" : ` (${(100 * f.probability).toFixed(0)} %)`}`)))) : make("p", { class: "muted" }, first.checkpoint);
    return make("li", { class: "sample", id: anchor(sample) }, image, make("div", { class: "words" }, make("strong", {}, sample.id), sample.text ? make("q", {}, sample.text) : null, make("p", { class: "verdict" }, "is ", make("b", {}, sample.truth), ", taken for ", make("b", {}, first.predicted), sure), rest));
  };
  return [
    make("h3", {}, `${one.case}: ${one.lost.toLocaleString("en")} samples lost by at least one checkpoint`),
    make("p", { class: "links" }, ...one.samples.map((s) => make("a", { href: `#${encodeURIComponent(anchor(s))}` }, s.id))),
    make("ul", { class: "samples" }, ...one.samples.map(card)),
  ];
}

function drawProvenance(p) {
  const list = make("dl"), add = (name, value) => { if (value) list.append(make("dt", {}, name), make("dd", {}, value)); };
  add("command", p.command ? make("code", {}, p.command) : null);
  if (p.dataset) add("data", `${p.dataset.name}, split ${p.dataset.split}, fingerprint ${p.dataset.fingerprint}`);
  if (p.noise) add("noise", Object.entries(p.noise).map((pair) => pair.join(" ")).join(", "));
  if (p.git) add("git", `${p.git.commit}${p.git.dirty ? " (dirty)" : ""}`);
  add("device", [p.device, p.dtype].filter(Boolean).join(", "));
  add("versions", Object.entries(p.versions ?? {}).map((pair) => pair.join(" ")).join(", "));
  add("time", [p.started, p.finished].filter(Boolean).join(" to "));
  const names = p.checkpoints.slice(0, 8).join(", ") + (p.checkpoints.length > 8 ? ` and ${p.checkpoints.length - 8} more` : "");
  return make("div", { class: "card" }, make("h3", {}, names || "results"), list);
}

if (matchMedia("(max-width: 900px)").matches) $("filters").open = false;
applyTheme();
drawOnce();
listeners.push(drawHead, drawKey, drawLegend, drawRanking, drawValues, drawCells, drawCharts);
reset();
