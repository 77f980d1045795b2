// The page: one or two panes that look at one picture, and the settings they share.

import * as api from "./api.js";
import { longest } from "./bars.js";
import { find, make, plural } from "./dom.js";
import { saveJson, savePicture } from "./keep.js";
import { Pane } from "./pane.js";
import { listen, markSample, offerCamera, offerSamples, picture, sample } from "./picture.js";
import { VIEWS, read, write } from "./state.js";
import { offerThemes } from "./theme.js";

const NOTES = {
  boxes: "What was found. Choose an object to see where the decoder looked for it.",
  scores: "How much the model wants to refine each token: dark little, bright much.",
  tokens: "The encoder refined the tokens that are lit; the dark ones it left as they came.",
  attention: "How much the decoder looked at each place, from all queries.",
};

const state = read();
let layer = 0;
let known = null;    // models and limits
let current = null;  // the picture
const panes = [];

function trouble(error) {
  const line = find("trouble");
  line.textContent = error?.message ?? "";
  line.hidden = !error;
}

async function show(blob, name, number = null) {
  try {
    const next = await picture(blob, name, known.limits);
    trouble(null);
    find("told").textContent = next.note;
    state.sample = number ?? 0;
    markSample(number);
    current = next;
    await Promise.all(panes.map((pane) => pane.open(current)));
  } catch (error) {
    trouble(error);
  }
}

const showSample = async (number) => show(await sample(number), `Sample ${number + 1}`, number);

const hearers = {
  changed() {
    trouble(null);
    [state.model, state.rho] = [panes[0].settings.model, panes[0].settings.rho];
    if (panes[1]) [state.model2, state.rho2] = [panes[1].settings.model, panes[1].settings.rho];
    refresh();
  },
  chose(pane, index) {
    for (const each of panes) if (each !== pane) each.choose(null);
    pane.choose(index);
    refresh();
  },
  failed: trouble,
};

function addPane(name, settings) {
  const pane = new Pane(name, known.models, settings, hearers);
  panes.push(pane);
  find("panes").append(pane.element);
  pane.look(sharedLook());
  if (current) pane.open(current);
}

/** Beside the first: the same model at a quarter of its share, which shows what tokens are worth. */
function compare(is) {
  state.compare = is;
  if (is && panes.length < 2) {
    const first = panes[0];
    state.rho2 ??= first.rho === null ? null : Math.max(0.01, Math.round(250 * first.rho) / 1000);
    addPane("B", { model: state.model2 || first.settings.model, rho: state.rho2 });
  } else if (!is && panes.length > 1) {
    panes.pop().close();
  }
  find("panes").classList.toggle("two", is);
  find("compare").setAttribute("aria-pressed", String(is));
  refresh();
}

const sharedLook = () => ({ threshold: state.threshold, view: state.view, level: state.level, layer });

function refresh() {
  write(state);
  for (const pane of panes) pane.look(sharedLook());
  const results = panes.map((pane) => pane.result).filter(Boolean);
  if (results.length) for (const pane of panes) pane.drawBars(longest(results));
  find("threshold-shown").textContent = state.threshold.toFixed(2);
  find("view-note").textContent = NOTES[state.view];
  showLevels();
  listObjects();
  showLayers();
}

function showLevels() {
  const levels = panes[0]?.result?.levels;
  find("levels-row").hidden = state.view === "boxes" || !levels;
  if (!levels) return;
  const options = [make("option", { value: -1 }, "all"), ...levels.map((each, i) =>
    make("option", { value: i }, `stride ${each.stride}: ${each.count} of ${each.width * each.height}`))];
  find("level").replaceChildren(...options);
  find("level").value = String(Math.min(state.level, levels.length - 1));
}

function listObjects() {
  const pane = panes.find((each) => each.chosen !== null) ?? panes[0];
  const found = pane?.shown(state.threshold) ?? [];
  const list = find("objects");
  const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  const place = list.scrollTop;
  list.replaceChildren(...found.map((each) => {
    const mark = make("i", {});
    mark.style.background = pane.colour(each);
    const button = make("button", { type: "button", "aria-pressed": String(each.index === pane.chosen) },
      mark, make("span", {}, each.class_name), make("b", {}, each.score.toFixed(2)));
    button.addEventListener("click", () => hearers.chose(pane, each.index === pane.chosen ? null : each.index));
    return make("li", {}, button);
  }));
  list.querySelectorAll("button")[focused]?.focus();
  list.scrollTop = place;
  const pressed = list.querySelector("[aria-pressed=true]");
  if (pressed) { // only the list moves, never the page
    const low = pressed.offsetTop + pressed.offsetHeight - list.clientHeight;
    list.scrollTop = Math.min(pressed.offsetTop, Math.max(list.scrollTop, low));
  }
  find("objects-title").textContent = panes.length > 1 ? `Objects of ${pane.name}` : "Objects";
  const [best] = pane?.result?.detections ?? [];
  find("objects-note").textContent = !pane?.result || found.length ? ""
    : best ? `Nothing scores that high. The best is a ${best.class_name} with ${best.score.toFixed(2)}.`
      : "Nothing was found.";
}

function showLayers() {
  const pane = panes.find((each) => each.chosen !== null);
  const layers = pane?.result?.samples?.[pane.chosen];
  find("layers-row").hidden = !layers;
  if (!layers) return;
  find("layer").max = layers.length;
  find("layer-shown").textContent = layer === 0 ? `all ${plural(layers.length, "layer")}`
    : `layer ${Math.min(layer, layers.length)} of ${layers.length}`;
}

function offerViews() {
  find("views").replaceChildren(...VIEWS.map((view) => {
    const input = make("input", { type: "radio", name: "view", value: view, checked: view === state.view });
    input.addEventListener("change", () => {
      state.view = view;
      refresh();
      if (view === "attention") for (const pane of panes) pane.result?.samples ?? pane.ask(["samples"]);
    });
    return make("label", {}, input, make("span", {}, view.charAt(0).toUpperCase() + view.slice(1)));
  }));
}

function listenToSettings() {
  find("threshold").value = state.threshold;
  find("threshold").addEventListener("input", ({ target }) => {
    state.threshold = Number(target.value);
    refresh();
  });
  find("level").addEventListener("change", ({ target }) => {
    state.level = Number(target.value);
    refresh();
  });
  find("layer").addEventListener("input", ({ target }) => {
    layer = Number(target.value);
    refresh();
  });
  find("compare").addEventListener("click", () => compare(!state.compare));
  const done = () => panes.filter((pane) => pane.result);
  find("save-json").addEventListener("click", () => done().length && saveJson(done(), state.threshold));
  find("save-picture").addEventListener("click", () => done().length && savePicture(done(), state.threshold));
  find("copy-link").addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    find("kept-note").textContent = "The link is in the clipboard.";
  });
}

async function start() {
  offerThemes();
  try {
    known = await api.models();
  } catch (error) {
    trouble(error);
    return;
  }
  offerViews();
  offerSamples(showSample);
  offerCamera(show, trouble);
  listen(show);
  listenToSettings();
  addPane("A", { model: state.model, rho: state.rho });
  compare(state.compare);
  await showSample(state.sample);
}

start();
