// Light, dark, or as the system has it; kept for this browser.

import { find } from "./dom.js";

const CHOICES = ["auto", "light", "dark"];

export function offerThemes() {
  const button = find("theme");
  const apply = (choice) => {
    document.documentElement.dataset.theme = choice;
    button.textContent = `Colours: ${choice}`;
  };
  let choice = CHOICES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";
  apply(choice);
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    localStorage.setItem("theme", choice);
    apply(choice);
  });
}
