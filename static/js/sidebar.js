// [data-sidebar-toggle]: on a narrow screen the navigation is folded away until asked for.
const sidebar = document.querySelector("[data-sidebar]");
const button = document.querySelector("[data-sidebar-toggle]");

if (sidebar && button) {
  const set = (open) => {
    sidebar.dataset.open = String(open);
    button.setAttribute("aria-expanded", String(open));
  };
  set(false);
  button.addEventListener("click", () => set(sidebar.dataset.open === "false"));
  sidebar.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && sidebar.dataset.open === "true") {
      set(false);
      button.focus();
    }
  });
}
