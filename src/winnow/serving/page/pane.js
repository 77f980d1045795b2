// One picture with what one model at one share of the tokens found on it.

import * as api from "./api.js";
import { chart } from "./bars.js";
import { LEVELS, classColour, ink } from "./colours.js";
import { make, percent, plural, settled } from "./dom.js";
import { place } from "./labels.js";
import { clear, field, paintHeat, paintKept } from "./maps.js";

const WAIT = 140; // milliseconds of rest before a moved slider asks

export class Pane {
  /** `changed` hears of new settings and answers, `chose` of a clicked detection, `failed` of errors. */
  constructor(name, models, settings, { changed, chose, failed }) {
    this.name = name;
    this.models = models;
    this.settings = settings;
    this.changed = changed;
    this.chose = chose;
    this.failed = failed;
    this.result = null;
    this.chosen = null;
    this.#build();
    this.askSoon = settled(() => this.ask(), WAIT);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.stage);
  }

  get model() {
    return this.models.find((each) => each.name === this.settings.model) ?? this.models[0];
  }

  get rho() {
    return this.model.sparse ? this.settings.rho ?? this.model.rho : null;
  }

  /** Show another picture: a blob for the server, and a bitmap to look at. */
  async open(picture) {
    this.picture = picture;
    this.result = this.chosen = null;
    const { bitmap } = picture;
    this.photo.width = bitmap.width;
    this.photo.height = bitmap.height;
    this.photo.getContext("2d").drawImage(bitmap, 0, 0);
    this.stage.style.aspectRatio = `${bitmap.width} / ${bitmap.height}`;
    this.element.style.setProperty("--ratio", bitmap.width / bitmap.height);
    this.draw();
    await this.ask();
  }

  /** Ask the model anew; an answer that is no longer wanted is given up. */
  async ask(show = ["tokens", "flops"]) {
    this.waiting?.abort();
    this.waiting = new AbortController();
    const { signal } = this.waiting;
    const picture = this.picture;
    this.element.setAttribute("aria-busy", "true");
    try {
      const result = await api.detect(picture.blob, { model: this.model.name, rho: this.rho, show, signal });
      this.#take(result, show);
      this.changed(this);
      const looks = this.view === "attention" || this.chosen !== null;
      if (looks && !result.samples && !show.includes("samples")) await this.ask(["samples"]);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.failed(error, picture);
    } finally {
      if (!signal.aborted) this.element.removeAttribute("aria-busy");
    }
  }

  /** Where the decoder looked for a detection; it is asked for only now, as telling it takes longer. */
  async choose(index) {
    this.chosen = index;
    this.draw();
    if (index !== null && !this.result.samples) await this.ask(["samples"]);
  }

  /** Detections above the threshold, best first, with their places in the answer. */
  shown(threshold) {
    return (this.result?.detections ?? []).map((each, index) => ({ ...each, index }))
      .filter((each) => each.score >= threshold);
  }

  look({ threshold, view, level, layer }) {
    Object.assign(this, { threshold, view, level, layer });
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !this.picture) return;
    const density = Math.min(devicePixelRatio, 2);
    for (const canvas of [this.map, this.points]) {
      canvas.width = Math.round(width * density);
      canvas.height = Math.round(height * density);
    }
    this.#drawMap();
    this.#drawBoxes();
    this.#drawPoints(density);
    this.#say();
  }

  close() {
    this.waiting?.abort();
    this.observer.disconnect();
    this.element.remove();
  }

  #take(result, show) {
    const again = show.includes("samples") && this.result?.model === result.model;
    const extra = again ? { timing_ms: this.result.timing_ms, gflops: this.result.gflops } : {};
    const before = this.result?.detections[this.chosen];
    this.result = { ...result, ...extra };
    this.chosen = before ? nearest(before, this.result.detections) : null;
    this.draw();
  }

  #drawMap() {
    const levels = this.result?.levels;
    const name = { scores: "scores", tokens: "kept", attention: "looked" }[this.view];
    if (!levels || !name || !levels[0][name]) return clear(this.map);
    const map = field(levels, this.level, name);
    return name === "kept" ? paintKept(this.map, map, this.level) : paintHeat(this.map, map);
  }

  #drawBoxes() {
    const { width, height } = this.result ?? {};
    const { clientWidth: across, clientHeight: down } = this.stage;
    const found = this.shown(this.threshold).map((each) => {
      const [x1, y1, x2, y2] = each.box;
      const colour = this.colour(each);
      const label = make("span", {}, `${each.class_name} ${each.score.toFixed(2)}`);
      const element = make("div", { className: "box" }, label);
      element.classList.toggle("chosen", each.index === this.chosen);
      element.classList.toggle("aside", this.chosen !== null && each.index !== this.chosen);
      Object.assign(element.style, { left: `${100 * x1 / width}%`, top: `${100 * y1 / height}%`,
        width: `${100 * (x2 - x1) / width}%`, height: `${100 * (y2 - y1) / height}%` });
      element.style.setProperty("--colour", colour);
      element.style.setProperty("--ink", ink(colour));
      element.addEventListener("click", () => this.chose(this, each.index === this.chosen ? null : each.index));
      const corners = [x1 * across / width, y1 * down / height, x2 * across / width, y2 * down / height];
      return { element, label, corners, area: (x2 - x1) * (y2 - y1), first: each.index === this.chosen };
    });
    const small = [...found].sort((a, b) => b.area - a.area); // small ones lie on top
    this.boxes.replaceChildren(...small.map(({ element }) => element));
    this.boxes.classList.toggle("quiet", this.view !== "boxes");
    place([...found].sort((a, b) => b.first - a.first), across, down);
  }

  #drawPoints(density) {
    clear(this.points);
    const layers = this.chosen === null ? null : this.result?.samples?.[this.chosen];
    if (!layers) return;
    const pen = this.points.getContext("2d");
    const [across, down] = [this.points.width / this.result.width, this.points.height / this.result.height];
    const wanted = this.layer > 0 ? [layers[Math.min(this.layer, layers.length) - 1]] : layers;
    for (const [x, y, weight, level] of wanted.flat()) {
      pen.globalAlpha = 0.25 + 0.75 * weight / 255;
      pen.fillStyle = LEVELS[level % LEVELS.length];
      pen.strokeStyle = "rgba(10, 12, 18, .75)";
      pen.lineWidth = density;
      pen.beginPath();
      pen.arc(x * across, y * down, density * (1.6 + 3.2 * Math.sqrt(weight / 255)), 0, 2 * Math.PI);
      pen.fill();
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  colour(detection) {
    return classColour(this.model.classes.findIndex((each) => each.id === detection.class_id));
  }

  #say() {
    if (!this.result) return;
    const { tokens, timing_ms: timing, rho } = this.result;
    const spent = Object.values(timing.stages).reduce((sum, each) => sum + each, 0);
    const parts = [make("strong", {}, make("b", { className: "letter" }, `${this.name} `),
      plural(this.shown(this.threshold).length, "object"))];
    if (tokens) parts.push(this.model.sparse
      ? `${tokens.kept.toLocaleString("en")} of ${tokens.total.toLocaleString("en")} tokens (${percent(tokens.kept / tokens.total)})`
      : `all ${tokens.total.toLocaleString("en")} tokens`);
    parts.push(`${spent.toFixed(spent < 10 ? 1 : 0)} ms in the network`);
    this.summary.replaceChildren(...parts.map((each) => make("span", {}, each)));
    this.rhoShown.textContent = this.model.sparse ? percent(this.rho ?? rho) : "all tokens";
  }

  /** The bars of both panes share a scale, so that they can be compared. */
  drawBars(scale) {
    if (this.result) this.bars.replaceChildren(chart(this.result, scale));
  }

  #build() {
    const id = this.name.toLowerCase();
    this.photo = make("canvas", { role: "img", "aria-label": "The picture" });
    this.map = make("canvas", { "aria-hidden": "true" });
    this.points = make("canvas", { "aria-hidden": "true" });
    this.boxes = make("div", { className: "boxes", "aria-hidden": "true" }); // the list of objects says the same
    this.stage = make("div", { className: "stage" }, this.photo, this.map, this.points, this.boxes);
    this.summary = make("p", { className: "summary", "aria-live": "polite" });
    this.bars = make("div", { className: "bars" });
    const select = make("select", { id: `model-${id}` }, ...this.models.map((each) =>
      make("option", { value: each.name, selected: each === this.model }, each.name)));
    select.addEventListener("change", () => this.#set({ model: select.value }));
    this.slider = make("input", { type: "range", id: `rho-${id}`, min: -2, max: 0, step: 0.01,
      value: Math.log10(this.rho ?? 1), disabled: !this.model.sparse });
    const tell = () => this.slider.setAttribute("aria-valuetext", percent(10 ** this.slider.value));
    this.slider.addEventListener("input", () => {
      tell();
      this.#set({ rho: Math.round(1000 * 10 ** this.slider.value) / 1000 });
    });
    tell();
    this.rhoShown = make("output", { for: `rho-${id}` }, percent(this.rho ?? 1));
    this.element = make("article", { className: "pane", "aria-label": `Picture ${this.name}` },
      this.stage, make("div", { className: "details" }, this.summary, make("div", { className: "dials" },
        make("div", { className: "dial", hidden: this.models.length < 2 },
          make("label", { htmlFor: select.id }, "Model"), select),
        make("div", { className: "dial wide" },
          make("label", { htmlFor: this.slider.id }, "Tokens kept, ρ"), this.rhoShown, this.slider)),
      this.bars));
  }

  #set(settings) {
    Object.assign(this.settings, settings);
    this.slider.disabled = !this.model.sparse;
    this.rhoShown.textContent = this.model.sparse ? percent(this.rho) : "all tokens";
    this.changed(this);
    this.askSoon();
  }
}

/** The detection of the same class whose corners are nearest. */
function nearest(one, others) {
  const distance = (other) => other.box.reduce((sum, side, i) => sum + Math.abs(side - one.box[i]), 0)
    + (other.class_id === one.class_id ? 0 : 1e6);
  const best = others.map(distance).reduce((low, each, i, all) => (each < all[low] ? i : low), 0);
  return others.length ? best : null;
}
