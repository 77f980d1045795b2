// What a link to this page carries. Whatever is not told has the value it starts with.

const START = {
  sample: 0, model: "", rho: null, threshold: 0.3, view: "boxes", level: -1,
  compare: false, model2: "", rho2: null,
};
export const VIEWS = ["boxes", "scores", "tokens", "attention"];

export function read(search = location.search) {
  const told = new URLSearchParams(search);
  const state = { ...START };
  const number = (name, low, high) => {
    const value = Number(told.get(name));
    if (told.has(name) && Number.isFinite(value) && value >= low && value <= high) state[name] = value;
  };
  number("sample", 0, 5);
  number("rho", 0.01, 1);
  number("rho2", 0.01, 1);
  number("threshold", 0.05, 0.95);
  number("level", -1, 9);
  state.model = told.get("model") ?? "";
  state.model2 = told.get("model2") ?? "";
  state.compare = told.get("compare") === "1";
  if (VIEWS.includes(told.get("view"))) state.view = told.get("view");
  state.sample = Math.floor(state.sample);
  state.level = Math.floor(state.level);
  return state;
}

export function write(state) {
  const told = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    const mattersOnlyBeside = name.endsWith("2") && !state.compare;
    if (value === START[name] || value === null || mattersOnlyBeside) continue;
    told.set(name, value === true ? "1" : String(value));
  }
  const search = told.toString();
  history.replaceState(null, "", search ? `?${search}` : location.pathname);
}
