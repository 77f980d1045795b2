// Light, dark, or as the system has it; kept for this browser.

import { find } from "./dom.js";

const CHOICES = { auto: ["Auto", "as the system"], light: ["Light", "light"], dark: ["Dark", "dark"] };
const ORDER = Object.keys(CHOICES);

export function offerThemes() {
  const button = find("theme");
  const apply = (choice) => {
    const [word, said] = CHOICES[choice];
    document.documentElement.dataset.theme = choice;
    button.textContent = word;
    button.title = `Colours: ${said}`;
    button.setAttribute("aria-label", `Colours: ${said}`);
  };
  let choice = ORDER.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";
  apply(choice);
  button.addEventListener("click", () => {
    choice = ORDER[(ORDER.indexOf(choice) + 1) % ORDER.length];
    localStorage.setItem("theme", choice);
    apply(choice);
  });
}
