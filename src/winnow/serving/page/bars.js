// Milliseconds and multiply-adds by stage: a table, whose bars are for the eye only.

import { make } from "./dom.js";

const ORDER = ["backbone", "neck", "scoring", "encoder", "queries", "decoder", "between stages"];
const SMALL = 0.005; // of the whole: stages below are left out of neither sum nor table, but have no bar

export const longest = (results) => ({
  time: Math.max(...results.map((each) => Math.max(...Object.values(each.timing_ms.stages)))),
  work: Math.max(0, ...results.map((each) => Math.max(0, ...Object.values(each.gflops ?? {})))),
});

export function chart(result, scale) {
  const times = result.timing_ms.stages;
  const work = result.gflops ?? {};
  const names = [...new Set([...ORDER, ...Object.keys(times), ...Object.keys(work)])]
    .filter((name) => times[name] > 0 || work[name] > 0);
  const sum = (values) => Object.values(values).reduce((total, each) => total + each, 0);
  const rows = names.map((name) => make("tr", {},
    make("th", { scope: "row" }, name === "between stages" ? "between" : name),
    ...cells(times[name], scale.time, "time"), ...cells(work[name], scale.work, "work")));
  return make("table", {},
    make("caption", {}, "Time and work by stage"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Stage"),
      make("th", { scope: "col", className: "number" }, "ms"), make("td", {}),
      make("th", { scope: "col", className: "number" }, "GFLOPs"), make("td", {}))),
    make("tbody", {}, ...rows),
    make("tfoot", {}, make("tr", {}, make("th", { scope: "row" }, "all"),
      make("td", { className: "number" }, figure(sum(times))), make("td", {}),
      make("td", { className: "number" }, figure(sum(work))), make("td", {}))));
}

function cells(value, most, kind) {
  const share = most > 0 ? (value ?? 0) / most : 0;
  const bar = make("span", { className: `bar ${kind}` });
  bar.style.width = share > SMALL ? `${100 * share}%` : "0";
  return [make("td", { className: "number" }, value === undefined ? "–" : figure(value)),
    make("td", { className: "track", "aria-hidden": "true" }, bar)];
}

const figure = (value) => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : value >= 0.1 || value === 0 ? 2 : 3);
