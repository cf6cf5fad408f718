// Light or dark: as the system prefers, until the button says otherwise.
import { memory } from "./memory.js";

const KEY = "iterpo.theme";
const preferred = window.matchMedia("(prefers-color-scheme: dark)");

function apply() {
  const dark = (memory.get(KEY) ?? (preferred.matches ? "dark" : "light")) === "dark";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  return dark;
}

export function themeButton(button) {
  const show = () => { button.textContent = apply() ? "Light" : "Dark"; };
  preferred.addEventListener("change", show);
  button.addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    memory.set(KEY, next);
    show();
  });
  show();
}
