// The page "Models" inside of Airflow's own page. Airflow lends React; the server renders all HTML, and this file shows
// it: it keeps the state of the page in the address, draws the charts, and follows links without loading Airflow again.

const { createElement, useEffect, useRef, useState } = globalThis.React;
const { useLocation, useNavigate } = globalThis.ReactRouterDOM;

const BASE = new URL("models-page/", document.baseURI);

for (const file of ["models.css"]) {
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL(`static/${file}`, BASE) });
  document.head.append(link);
}

/** Plotly is 4 MB: loaded where there are charts only. */
let plotly;
const loadPlotly = () =>
  (plotly ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), {
      src: new URL("static/plotly.min.js", BASE),
      onload: () => resolve(globalThis.Plotly),
      onerror: () => reject(new Error("the charts' library did not load")),
    });
    document.head.append(script);
  }));

/** The figures that the server describes, in the colours of Airflow's light or dark mode. One after the other, from the
 * top: the page can be used before the last one is there. */
async function drawCharts(element) {
  const charts = [...element.querySelectorAll("[data-chart]")];
  if (charts.length === 0) return;
  const Plotly = await loadPlotly();
  const { color, fontFamily } = getComputedStyle(element);
  for (const chart of charts) {
    await new Promise((resolve) => setTimeout(resolve));
    if (!chart.isConnected) return; // the page shows something else now
    const { data, layout } = JSON.parse(chart.dataset.chart);
    const axis = { automargin: true, gridcolor: "rgba(136, 136, 136, 0.3)", zerolinecolor: "rgba(136, 136, 136, 0.3)" };
    const axes = { xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis } };
    const look = { paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { color, family: fontFamily } };
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", layout.title.text);
    await Plotly.newPlot(chart, data, { ...layout, ...axes, ...look }, { displayModeBar: false, responsive: true });
  }
}

/** The text of the charts that are drawn, after the mode has changed. */
function recolour(element) {
  const { color } = getComputedStyle(element);
  for (const chart of element.querySelectorAll(".js-plotly-plot")) globalThis.Plotly.relayout(chart, { "font.color": color });
}

/** What a chart shows as a table, for those who cannot see it: a line per place on the x axis, or per true class. */
function tableOf({ data, layout }) {
  const plain = (text) => new DOMParser().parseFromString(text, "text/html").body.textContent; // Plotly's are escaped
  const shown = (value) => (typeof value === "number" ? String(+value.toFixed(4)) : plain(value ?? "–"));
  const table = document.createElement("table");
  table.createCaption().textContent = layout.title.text;
  const addLine = (cells, { head }) => {
    const line = table.insertRow();
    cells.forEach((value, place) => {
      const cell = document.createElement(head || place === 0 ? "th" : "td");
      if (cell.tagName === "TH") cell.scope = head ? "col" : "row";
      cell.textContent = shown(value);
      line.append(cell);
    });
  };
  if (data[0].type === "heatmap") {
    table.caption.textContent += ": a column per predicted class";
    addLine(["true class", ...data[0].x], { head: true });
    data[0].z.forEach((counts, place) => addLine([data[0].y[place], ...counts], {}));
    return table;
  }
  addLine([layout.xaxis?.title?.text ?? "", ...data.map(({ name }) => name)], { head: true });
  const places = [...new Set(data.flatMap(({ x }) => x))];
  if (places.every((x) => typeof x === "number")) places.sort((one, other) => one - other);
  for (const x of places) addLine([x, ...data.map((line) => line.y[line.x.indexOf(x)])], {});
  return table;
}

/** The page for a query, and the full query if this one leaves something open, such as "the champion". */
async function load(query, signal) {
  if (query.includes("view=compare")) loadPlotly().catch(() => {}); // meanwhile; `drawCharts` tells if it fails
  const response = await fetch(new URL(`page?${query}`, BASE), { credentials: "same-origin", signal });
  if (response.ok) {
    const full = response.headers.get("Content-Location");
    return { html: await response.text(), full: full && new URL(full, BASE).searchParams };
  }
  const reasons = { 401: "Log in to Airflow again.", 403: "You may not read this DAG." };
  if (response.status === 422) throw new Error(await response.text());
  throw new Error(reasons[response.status] ?? `The page could not be read (${response.status}).`);
}

/** Start a DAG run through Airflow's own API, as the person who is logged in: its permissions and its audit log. */
async function trigger(form) {
  const conf = {};
  for (const { name, type, value } of form.elements) {
    if (name && value !== "") conf[name] = type === "number" ? Number(value) : value;
  }
  const dag = form.dataset.trigger;
  const response = await fetch(new URL(`api/v2/dags/${dag}/dagRuns`, document.baseURI), {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ conf, logical_date: null }),
  });
  const answer = await response.json().catch(() => ({ detail: `the answer was ${response.status}` })); // of a proxy
  if (response.ok) return `/dags/${dag}/runs/${encodeURIComponent(answer.dag_run_id)}`;
  const detail = typeof answer.detail === "string" ? answer.detail : JSON.stringify(answer.detail);
  throw new Error(response.status === 403 ? `You may not start ${dag}.` : `${dag} was not started: ${detail}`);
}

/** The page of the address that was opened. React shows a component that had to be loaded 300 ms later; the server is
 * asked meanwhile. */
let opened;
if (location.pathname.endsWith("/plugin/models")) {
  const query = new URLSearchParams(location.search).toString();
  opened = { query, answer: load(query) };
  opened.answer.catch(() => {}); // the component tells
}

/** Whether the page was left by one of its links: Airflow makes the component anew then. */
let followed = false;

function Models({ dagId, runId }) {
  const { pathname, search } = useLocation();
  const navigate = useNavigate();
  const [html, setHtml] = useState();
  const [problem, setProblem] = useState();
  const box = useRef(null);
  const query = new URLSearchParams(search);
  if (runId) {
    query.set("dag_id", dagId);
    query.set("run_id", runId);
  }
  const wanted = query.toString();

  useEffect(() => {
    const request = new AbortController();
    const answer = opened?.query === wanted ? opened.answer : load(wanted, request.signal);
    opened = undefined;
    answer.then(
      ({ html: text, full }) => {
        setProblem(undefined);
        setHtml(text);
        if (!full) return;
        if (runId) ["dag_id", "run_id"].forEach((name) => full.delete(name)); // the path has them
        // Not by the router, which would make the page anew.
        history.replaceState(history.state, "", `${location.pathname}?${full}`);
      },
      (error) => error.name === "AbortError" || setProblem(error.message),
    );
    return () => request.abort();
  }, [wanted]);

  useEffect(() => {
    // A link that was followed is gone: keyboard and screen reader go on at the new heading.
    const heading = box.current?.querySelector("h1");
    if (followed && heading) {
      Object.assign(heading, { tabIndex: -1 }).focus();
      followed = false;
    }
    if (box.current) drawCharts(box.current).catch((error) => setProblem(error.message));
  }, [html]);

  useEffect(() => {
    // Airflow's switch between light and dark changes a class of the document.
    const mode = new MutationObserver(() => recolour(box.current));
    mode.observe(document.documentElement, { attributeFilter: ["class"] });
    return () => mode.disconnect();
  }, []);

  useEffect(() => {
    if (problem) box.current.scrollIntoView({ block: "start" }); // it stands above what was clicked
  }, [problem]);

  const show = (parameters) => {
    followed = true;
    navigate({ pathname, search: `?${parameters}` });
  };
  const onClick = (event) => {
    const details = event.target.closest("figure details");
    if (details && !details.querySelector("table")) {
      const chart = details.parentElement.querySelector("[data-chart]");
      details.append(tableOf(JSON.parse(chart.dataset.chart)));
    }
    const link = event.target.closest("a[data-state]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    show(new URL(link.href).searchParams);
  };
  const onSubmit = (event) => {
    event.preventDefault();
    if (event.target.dataset.trigger) {
      const button = event.target.querySelector("button");
      button.disabled = true; // a second click would start a second run
      setProblem(undefined);
      trigger(event.target)
        .then(navigate, (error) => setProblem(error.message))
        .finally(() => (button.disabled = false));
      return;
    }
    const values = [...new FormData(event.target)].filter(([, value]) => value !== "");
    show(new URLSearchParams(values));
  };
  return createElement(
    "div",
    { className: "cifar-models", ref: box, onClick, onSubmit },
    problem && createElement("p", { className: "cifar-problem", role: "alert" }, problem),
    html === undefined
      ? !problem && createElement("p", { className: "cifar-muted", role: "status" }, "Reading the models…")
      : createElement("div", { dangerouslySetInnerHTML: { __html: html } }), // escaped by the server's templates
  );
}

// By the names of the plugin's views: an ES module runs once, however many views it has.
globalThis["Models"] = Models;
globalThis["Models of this run"] = Models;
