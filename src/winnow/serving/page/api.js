// The server's answers, or an Error whose message can be shown.

import { find } from "./dom.js";

const KEY = "winnow-key";

export async function models() {
  return (await ask("/v1/models")).json();
}

/** What a model finds on a picture. `show` names what else to tell; a signal gives up waiting. */
export async function detect(picture, { model, rho, show, signal }) {
  const form = new FormData();
  form.append("image", picture, "picture");
  form.append("model", model);
  form.append("threshold", "0.05");
  if (rho !== null) form.append("rho", rho);
  for (const view of show) form.append("show", view);
  const answer = await (await ask("/v1/detect", { method: "POST", body: form, signal })).json();
  return { model: answer.model, ...answer.results[0] };
}

async function ask(address, options = {}, tries = 3) {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let answer;
  try {
    answer = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server can't be reached. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    await askForKey();
    return ask(address, options, tries);
  }
  if (answer.status === 429 && tries > 0) {
    await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") ?? 1)));
    return ask(address, options, tries - 1);
  }
  const said = await answer.json().catch(() => null);
  throw new Error(sentence(said?.error?.message ?? `The server answered ${answer.status}`));
}

/** One dialog for all who wait for the key. */
let asking = null;
function askForKey() {
  asking ??= new Promise((done) => {
    const dialog = find("key-dialog");
    find("key-note").textContent = sessionStorage.getItem(KEY) ? "That was not the key."
      : "It is kept until this tab is closed.";
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, find("key").value);
      find("key").value = "";
      asking = null;
      done();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

function sentence(words) {
  const plain = words.replace(/^image 0\b:?/, "This picture").trim();
  return plain.charAt(0).toUpperCase() + plain.slice(1) + (/[.!?]$/.test(plain) ? "" : ".");
}
