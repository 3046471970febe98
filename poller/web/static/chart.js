// Draws a symbol's history in panels that share their days: hover or arrow keys read a report out,
// buttons and dragging choose the range. Without this script the page has a chart that is drawn.
"use strict";

const MILLISECONDS = 86400000;
const KEPT = "poller-range";
const plot = document.getElementById("plot");
const source = document.getElementById("plot-figures");
const panels = document.getElementById("panels");
const readout = document.getElementById("readout");
const buttons = [...document.querySelectorAll(".ranges button")];
const numbers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 4 });
const steps = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2, signDisplay: "exceptZero" });
const percents = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2, signDisplay: "exceptZero" });
const hundredths = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 4 });

let figures = null;
let graphs = [];
let chosen = -1;
let marker = null;

function kept() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

function keep(days) {
  try {
    localStorage.setItem(KEPT, days);
  } catch {
    // a browser that keeps nothing
  }
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function short(value) {
  for (const [size, letter] of [[1e9, " B"], [1e6, " M"], [1e3, " k"]]) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(4))}${letter}`;
  }
  return `${Number(value.toPrecision(4))}`;
}

function dayText(place) {
  return new Date(figures.days[place] * MILLISECONDS).toISOString().slice(0, 10);
}

// What is known of a report: [panel's key, head, figure].
function parts(place) {
  return figures.panels.map((panel) => {
    const value = panel.values[place];
    let text = "–";
    if (figures.below.includes(place) && panel.key === "shares") text = "below threshold";
    else if (value !== null) text = (panel.key === "shares" ? numbers : hundredths).format(value);
    if (panel.key === "shares" && figures.change[place] !== null) {
      const percent = figures.percent[place];
      text += ` (${steps.format(figures.change[place])}`;
      text += percent === null ? ")" : `, ${percents.format(percent)} %)`;
    }
    return [panel.key, panel.name, text.replaceAll("-", "−")];
  });
}

function notes(place) {
  const found = [];
  if (figures.split.includes(place)) found.push("split since the report before");
  if (figures.revised.includes(place)) found.push("revised");
  return found;
}

function read(place) {
  const shown = place < 0 ? figures.days.length - 1 : place;
  const day = document.createElement("b");
  day.textContent = dayText(shown);
  readout.replaceChildren(day);
  for (const [key, name, text] of parts(shown)) {
    const part = document.createElement("span");
    part.className = key;
    part.textContent = `${name} `;
    const figure = document.createElement("b");
    figure.textContent = text.replace(" %", "\u00a0%");
    part.append(figure);
    readout.append(part);
  }
  for (const note of notes(shown)) {
    const part = document.createElement("span");
    part.textContent = note;
    readout.append(part);
  }
  const words = parts(shown).map(([, name, text]) => `${name} ${text}`);
  panels.setAttribute("aria-valuenow", shown + 1);
  panels.setAttribute("aria-valuetext", [dayText(shown), ...words, ...notes(shown)].join("; "));
}

function choose(place) {
  chosen = place;
  for (const graph of graphs) {
    if (place < 0) graph.clearSelection();
    else graph.setSelection(place);
  }
  marker.hidden = place < 0;
  if (place >= 0) {
    const [graph] = graphs;
    const left = graph.toDomXCoord(figures.days[place] * MILLISECONDS);
    const box = graph.graphDiv.getBoundingClientRect();
    marker.style.left = `${box.left - panels.getBoundingClientRect().left + left}px`;
  }
  read(place);
}

// Hatches the days below the reporting threshold, half-way to the reports beside them.
function hatch(context, area, graph) {
  context.strokeStyle = colour("soft");
  context.lineWidth = 1;
  context.globalAlpha = 0.6;
  const at = (place) => graph.toDomXCoord(figures.days[place] * MILLISECONDS);
  for (const place of figures.below) {
    const left = Math.max(place ? (at(place - 1) + at(place)) / 2 : at(place), area.x);
    const last = place === figures.days.length - 1;
    const right = Math.min(last ? at(place) : (at(place) + at(place + 1)) / 2, area.x + area.w);
    if (right <= left) continue;
    context.save();
    context.beginPath();
    context.rect(left, area.y, right - left, area.h);
    context.clip();
    context.beginPath();
    const first = Math.floor((left - area.h) / 7) * 7;
    for (let x = first; x < right; x += 7) {
      context.moveTo(x, area.y + area.h);
      context.lineTo(x + area.h, area.y);
    }
    context.stroke();
    context.restore();
  }
  context.globalAlpha = 1;
}

function ring(graph, name, context, x, y, tone, size, place) {
  context.beginPath();
  const revised = figures.revised.includes(place);
  context.arc(x, y, revised ? 4.5 : 1.8, 0, 2 * Math.PI);
  if (revised) {
    context.fillStyle = colour("card");
    context.strokeStyle = colour("ratio");
    context.lineWidth = 2;
    context.fill();
    context.stroke();
  } else if (figures.days.length <= 60) {
    context.fillStyle = tone;
    context.fill();
  }
}

function look(panel) {
  const isLast = panel === figures.panels.at(-1);
  const tone = colour({ shares: "area", ratio: "ratio", cover: "good", price: "price" }[panel.key]);
  const labels = {
    axisLabelFontSize: 12,
    axisLineColor: colour("line"),
    gridLineColor: colour("line"),
    drawGrid: true,
  };
  return {
    labels: ["day", panel.name],
    labelsUTC: true,
    colors: [tone],
    strokeWidth: 1.8,
    fillGraph: panel.key === "shares",
    fillAlpha: 0.12,
    includeZero: panel.key !== "price",
    connectSeparatedPoints: false,
    drawPoints: panel.key === "shares" && (figures.days.length <= 60 || figures.revised.length > 0),
    drawPointCallback: ring,
    highlightCircleSize: 4,
    rightGap: 8,
    axisLineColor: colour("line"),
    gridLineColor: colour("line"),
    axes: {
      x: { ...labels, drawAxis: true, axisLabelWidth: 70, pixelsPerLabel: 90, axisLabelFormatter: dateLabel(isLast), axisHeight: isLast ? 20 : 4 },
      y: { ...labels, axisLabelWidth: 56, pixelsPerLabel: panel.key === "shares" ? 34 : 20, axisLabelFormatter: short },
    },
    interactionModel: {
      mousedown: Dygraph.Interaction.defaultModel.mousedown,
      dblclick: () => range(0),
      willDestroyContextMyself: true,
    },
    underlayCallback: panel.key === "price" ? null : hatch,
    highlightCallback: (_, at) => choose(figures.days.indexOf(Math.round(at / MILLISECONDS))),
    unhighlightCallback: () => choose(-1),
    zoomCallback: (from, to) => show([from, to]),
  };
}

function dateLabel(isLast) {
  return (moment, granularity) => {
    if (!isLast) return "";
    const text = new Date(moment).toISOString();
    return granularity >= Dygraph.MONTHLY ? text.slice(0, 7) : text.slice(0, 10);
  };
}

function show(span, pressed = null) {
  for (const button of buttons) button.setAttribute("aria-pressed", button === pressed);
  for (const graph of graphs) graph.updateOptions({ dateWindow: span, valueRange: null });
  if (chosen >= 0) choose(chosen);
}

function range(days) {
  const pressed = buttons.find((button) => Number(button.dataset.days) === days) ?? buttons.at(-1);
  const length = Number(pressed.dataset.days);
  const [first, last] = [figures.days[0], figures.days.at(-1)];
  const from = length ? Math.max(first, last - length) : first;
  show([from * MILLISECONDS, last * MILLISECONDS], pressed);
}

function draw() {
  const pressed = buttons.find((button) => button.getAttribute("aria-pressed") === "true");
  const zoomed = graphs.length && !pressed ? graphs[0].xAxisRange() : null;
  for (const graph of graphs) graph.destroy();
  graphs = [];
  const text = source.textContent.trim();
  figures = text ? JSON.parse(text) : null;
  const isDrawn = figures !== null && plot !== null;
  plot.hidden = !isDrawn;
  document.getElementById("chart").classList.toggle("live", isDrawn);
  if (!isDrawn) return;
  chosen = -1;
  panels.replaceChildren();
  for (const panel of figures.panels) {
    const head = document.createElement("p");
    head.className = `panel-head ${panel.key}`;
    head.textContent = panel.name;
    const body = document.createElement("div");
    body.className = `panel ${panel.key}`;
    panels.append(head, body);
    const rows = figures.days.map((day, n) => [new Date(day * MILLISECONDS), panel.values[n]]);
    graphs.push(new Dygraph(body, rows, look(panel)));
  }
  marker = document.createElement("div");
  marker.className = "marker";
  marker.hidden = true;
  panels.append(marker);
  panels.setAttribute("aria-valuemax", figures.days.length);
  read(-1);
  if (zoomed) show(zoomed);
  else range(Number(pressed?.dataset.days ?? kept() ?? 0));
}

function keyed(key) {
  const last = figures.days.length - 1;
  const at = chosen < 0 ? last : chosen;
  const places = {
    ArrowLeft: chosen < 0 ? last : at - 1,
    ArrowDown: chosen < 0 ? last : at - 1,
    ArrowRight: at + 1,
    ArrowUp: at + 1,
    PageDown: at - 10,
    PageUp: at + 10,
    Home: 0,
    End: last,
  };
  if (key.key === "Escape") return choose(-1);
  if (!(key.key in places) || key.ctrlKey || key.metaKey || key.altKey) return undefined;
  key.preventDefault();
  const place = Math.min(Math.max(places[key.key], 0), last);
  const [from, to] = graphs[0].xAxisRange();
  const day = figures.days[place] * MILLISECONDS;
  if (day < from || day > to) range(0);
  return choose(place);
}

if (plot && typeof Dygraph !== "undefined") {
  // the legend and the annotations of the library set styles that the content policy forbids
  Dygraph.PLUGINS = [Dygraph.Plugins.Axes, Dygraph.Plugins.Grid];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      keep(button.dataset.days);
      range(Number(button.dataset.days));
    });
  }
  panels.addEventListener("keydown", keyed);
  panels.addEventListener("blur", () => choose(-1));
  new MutationObserver(draw).observe(source, { childList: true, characterData: true, subtree: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("resize", () => choose(-1));
  draw();
}
