// Runs before the first paint, so a chosen theme never flashes. Everything else is an ES module.
(() => {
  const root = document.documentElement;
  root.classList.add("has-js");
  try {
    const theme = localStorage.getItem("theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // Storage can be refused; the page then follows the operating system.
  }
})();
