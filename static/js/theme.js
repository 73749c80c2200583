// [data-theme-toggle]: switch between light and dark; choosing what the system says forgets the choice.
const root = document.documentElement;
const systemDark = matchMedia("(prefers-color-scheme: dark)");

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);

function remember(theme) {
  try {
    if (theme) localStorage.setItem("theme", theme);
    else localStorage.removeItem("theme");
  } catch {
    // Storage can be refused; the choice then lasts for this page.
  }
}

function label() {
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    const dark = isDark();
    button.setAttribute("aria-label", dark ? "Use the light theme" : "Use the dark theme");
    button.querySelector("[data-when=dark]").hidden = !dark;
    button.querySelector("[data-when=light]").hidden = dark;
  }
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-theme-toggle]")) return;
  const wanted = isDark() ? "light" : "dark";
  const system = systemDark.matches ? "dark" : "light";
  if (wanted === system) delete root.dataset.theme;
  else root.dataset.theme = wanted;
  remember(wanted === system ? null : wanted);
  label();
});
systemDark.addEventListener("change", label);
label();
